"""Applications behind the real gateway: `edge-session serve --upstream`."""

import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import behind_gateway
import django_project
import httpx
import pytest
import uvicorn
from conftest import SECRET
from werkzeug.serving import WSGIRequestHandler, make_server

from edge_session import component_path

COOKIE = "connect.sid"

#: The socket arrives as standard input, and is passed on as systemd does.
HAND_OVER = 'exec 3<&0 0</dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec "$0" "$@"'


class Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_request(self, *_: Any) -> None:
        pass


def free_socket() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


def url_of(listener: socket.socket) -> str:
    return f"http://127.0.0.1:{listener.getsockname()[1]}"


@contextmanager
def serving_wsgi(app: Any) -> Iterator[str]:
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Quiet)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def serving_asgi(app: Any) -> Iterator[str]:
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off"))
    with free_socket() as listener:
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield url_of(listener)
        finally:
            server.should_exit = True
            thread.join()


def binary() -> Path:
    """Returns the gateway's binary. If it is missing, the tests fail instead of being skipped."""
    path = os.environ.get("EDGE_SESSION_BIN")
    if not path or not Path(path).exists():
        pytest.fail(
            "EDGE_SESSION_BIN has to be the program edge-session, target/debug/edge-session after "
            f"`cargo build -p edge-session-server`: it is {path!r}"
        )
    return Path(path)


@contextmanager
def gateway(application: str, log: Path, identity: str | None) -> Iterator[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("EDGE_SESSION_")}
    environment |= {
        "EDGE_SESSION_COMPONENT": str(component_path()),
        "EDGE_SESSION_SECRET": SECRET,
        "EDGE_SESSION_STORE": f"file:{log.parent}/sessions.redb",
        "EDGE_SESSION_UPSTREAM": application,
    }
    if identity:
        environment["EDGE_SESSION_GATEWAY_IDENTITY"] = identity
    program = binary()
    # Requests wait in the socket until the gateway accepts them.
    with free_socket() as listener, log.open("w") as output:
        url = url_of(listener)
        process = subprocess.Popen(
            ["sh", "-c", HAND_OVER, program, "serve", "--listen", url.removeprefix("http://")],
            cwd=log.parent,
            env=environment,
            stdin=listener,
            stdout=output,
            stderr=output,
        )
    try:
        yield url
    finally:
        process.terminate()
        process.wait(20)


class World:
    """One application, alone and behind the gateway."""

    def __init__(self, application: str, url: str, name: str) -> None:
        self.application = application
        self.url = url
        self.name = name
        #: What the gateway's log may contain.
        self.warning = "nothing"
        self._clients = ExitStack()

    def visitor(self, cookie: str | None = None, **headers: str) -> httpx.Client:
        client = httpx.Client(base_url=self.url, headers=headers, timeout=30)
        if cookie:
            client.cookies.set(COOKIE, cookie, domain="127.0.0.1")
        return self._clients.enter_context(client)

    def close(self) -> None:
        self._clients.close()


Serving = Callable[[Any], Any]
APPLICATIONS: dict[str, tuple[Serving, Callable[[], Any], str | None]] = {
    # Flask does not change identifiers, so the gateway is configured with the path of the user.
    "Flask": (serving_wsgi, behind_gateway.stock_flask, "/user"),
    "Flask-Login": (serving_wsgi, behind_gateway.flask_with_login, "/_user_id"),
    "Django": (serving_wsgi, lambda: django_project.application, None),
    "Django, with identity": (serving_wsgi, lambda: django_project.application, "/_auth_user_id"),
    "FastAPI": (serving_asgi, behind_gateway.fast_api, None),
}


@pytest.fixture(params=APPLICATIONS)
def world(request: Any, tmp_path: Path) -> Iterator[World]:
    serving, make, identity = APPLICATIONS[request.param]
    log = tmp_path / "log"
    with serving(make()) as application, gateway(application, log, identity) as url:
        one = World(application, url, request.param)
        yield one
        one.close()
    for line in log.read_text().splitlines():
        assert " INFO " in line or one.warning in line


def ask(visitor: httpx.Client, method: str, path: str, **settings: Any) -> httpx.Response:
    response = visitor.request(method, path, **settings)
    names = [name for name in response.headers if name.startswith("edge-session")]
    assert not names, "what the gateway and the application say to each other stays there"
    cookies = response.headers.get_list("set-cookie")
    assert all(cookie.startswith(f"{COOKIE}=") for cookie in cookies) and len(cookies) < 2
    return response


def put(visitor: httpx.Client, key: str, value: str, query: str = "") -> None:
    assert ask(visitor, "GET", f"/put/{key}/{value}{query}").status_code == 200


def log_in(visitor: httpx.Client) -> None:
    form = {"username": "ada", "password": "a password of hers"}
    form["csrfmiddlewaretoken"] = ask(visitor, "GET", "/login").text
    response = ask(visitor, "POST", "/login", data=form)
    assert response.status_code == 200, response.text


def account(visitor: httpx.Client) -> Any:
    """Returns what the visitor sees there; None if not logged in."""
    response = ask(visitor, "GET", "/account")
    if response.status_code == 401:
        return None
    assert response.status_code == 200, response.text
    return response.json()


def test_somebody_logs_in_and_out(world: World) -> None:
    visitor = world.visitor()
    assert account(visitor) is None
    assert COOKIE not in visitor.cookies, "nothing was stored: there is nothing to remember"
    put(visitor, "kept", "from before")
    planted = visitor.cookies[COOKIE]

    log_in(visitor)
    cookie = visitor.cookies[COOKIE]
    assert cookie != planted
    before = {"kept": "from before"}
    assert account(visitor) == {"user": "ada", "said": ["Welcome"], "kept": before}
    assert account(visitor) == {"user": "ada", "said": [], "kept": before}
    assert visitor.cookies[COOKIE] == cookie
    assert account(world.visitor(planted)) is None, "who planted the identifier has nothing of it"

    assert ask(visitor, "POST", "/logout").status_code == 200
    assert account(visitor) is None
    assert account(world.visitor(cookie)) is None, "the old cookie works no more"


def test_parallel_changes_are_all_kept(world: World) -> None:
    visitor = world.visitor()
    log_in(visitor)
    account(visitor)
    with ThreadPoolExecutor() as pool:
        for number in range(5):
            both = [
                pool.submit(put, world.visitor(visitor.cookies[COOKIE]), key, "x", "?meet=1")
                for key in (f"k{number}", f"kk{number}")
            ]
            for one in both:
                one.result()
    expected = {f"{key}{number}": "x" for key in ("k", "kk") for number in range(5)}
    assert account(visitor) == {"user": "ada", "said": [], "kept": expected}


def test_a_change_beside_a_login_is_never_lost_in_silence(world: World) -> None:
    visitor = world.visitor()
    put(visitor, "kept", "from before")
    beside = world.visitor(visitor.cookies[COOKIE])
    world.warning = "a change was not stored"
    with ThreadPoolExecutor() as pool:
        change = pool.submit(ask, beside, "GET", "/put/kk/beside?meet=2")
        behind_gateway.meeting.wait()
        log_in(visitor)
        behind_gateway.meeting.wait()
        status = change.result().status_code
    kept = account(visitor)["kept"]
    assert (status, kept.get("kk")) in ((200, "beside"), (503, None))
    # The change follows a session renewed by the gateway, but not one regenerated by the
    # application.
    is_renewed_by_gateway = world.name.startswith("Flask")
    assert status == (200 if is_renewed_by_gateway else 503)
    assert account(world.visitor(beside.cookies[COOKIE])) is None


def test_headers_that_a_visitor_forges_do_nothing(world: World) -> None:
    data = (
        '{"user":"eve","_user_id":"eve","_fresh":true,"_auth_user_id":"1",'
        '"_auth_user_backend":"django.contrib.auth.backends.ModelBackend"}'
    )
    visitor = world.visitor()
    log_in(visitor)
    cookie = visitor.cookies[COOKIE]
    for mark in "-_.!~":
        forged = {
            f"Edge{mark}Session": data,
            f"Edge{mark}Session{mark}Id": "an-identifier-of-eves",
            f"Edge{mark}Session{mark}Action": "destroy",
            f"Edge{mark}Session{mark}Merge": data,
        }
        assert account(world.visitor(**forged)) is None, mark
        seen = account(world.visitor(cookie, **forged))
        assert seen["user"] == "ada", mark
    assert account(visitor)["user"] == "ada"


def test_a_key_that_django_was_told_is_the_one_of_the_next_request(tmp_path: Path) -> None:
    def key(request: Any) -> str:
        if not request.session.session_key:
            request.session.create()
        return str(request.session.session_key)

    django_project.acts["act"] = key
    with (
        serving_wsgi(django_project.application) as upstream,
        gateway(upstream, tmp_path / "log", None) as url,
        httpx.Client(base_url=url, timeout=30) as visitor,
    ):
        keys = {ask(visitor, "GET", "/act").text for _ in range(3)}
    assert len(keys) == 1 and len(keys.pop()) == 32


def test_past_the_gateway_nobody_is_served(world: World) -> None:
    for headers in ({}, {"Edge-Session": "{}"}, {"Edge-Session-Id": "an-identifier-of-eves"}):
        assert httpx.get(f"{world.application}/account", headers=headers).status_code == 500
