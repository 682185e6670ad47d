"""The gateway's headers: how they are parsed, and the responses, with ASGI and WSGI."""

import copy
import json
import pickle
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware.sessions import SessionMiddleware as SignedCookie
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket

from edge_session.headers import HeadersError, Session, SessionError, asgi, read, wsgi

pytestmark = pytest.mark.anyio

ID = "an-identifier-of-the-gateways"
Act = Callable[[Any], Any]
Headers = list[tuple[str, str]]


def told(data: str = "{}", id: str = ID) -> Headers:
    return [("Edge-Session-Id", id), ("Edge-Session", data)]


def session(data: str = "{}", id: str = ID) -> Session:
    return Session(read([id], [data]))


def answer(act: Act, data: str = "{}") -> list[tuple[str, str]]:
    """Returns the headers sent to the gateway."""
    one = session(data)
    act(one)
    return [header for header in one._answer() if header[0] != "Vary"]


def whole(act: Act, data: str = "{}") -> str | None:
    """Returns the new data in the response, which must contain nothing else."""
    headers = answer(act, data)
    if not headers:
        return None
    ((name, value),) = headers
    assert name == "Edge-Session"
    return value


# ------------------------------------------------------------------------- the rules ----


def test_a_session_is_a_dictionary_of_what_the_gateway_tells() -> None:
    one = session('{"a": 1, "b" : [true, null, {"c":"\\u00e9"}]}')
    assert one._answer() == []
    assert isinstance(one, dict)
    assert one == {"a": 1, "b": [True, None, {"c": "é"}]}
    assert one.id == ID


def test_what_changed_is_answered_as_the_whole_new_data_in_ascii() -> None:
    def joined(one: Any) -> None:
        one |= {"c": 3}

    data = '{"a":1,"b":[2]}'
    for act, expected in (
        (lambda one: one.update(c="Zoë \U0001f600\x7f\n"), None),
        (joined, '{"a":1,"b":[2],"c":3}'),
        (lambda one: one.setdefault("c", {}).update(d=1.5), '{"a":1,"b":[2],"c":{"d":1.5}}'),
        (lambda one: one["b"].append({"x": None}), '{"a":1,"b":[2,{"x":null}]}'),
        (lambda one: one.pop("a"), '{"b":[2]}'),
        (lambda one: one.popitem(), '{"a":1}'),
        (lambda one: (one.pop("a"), one.pop("b")), "{}"),
        (lambda one: one.__setitem__("a", True), '{"a":true,"b":[2]}'),
        (lambda one: one.__delitem__("b"), '{"a":1}'),
    ):
        header = whole(act, data)
        assert header is not None and all(" " <= char <= "~" for char in header)
        if expected is not None:
            assert header == expected
    text = whole(lambda one: one.update(c="Zoë \U0001f600\x7f\n"))
    assert json.loads(text or "") == {"c": "Zoë \U0001f600\x7f\n"}


def test_what_did_not_change_is_not_answered() -> None:
    data = '{"a":1.0,"b":{"c":[1e2,"\\u00e9"]},"d":"\\ud800"}'
    for act in (
        lambda one: None,
        lambda one: one.update(a=1.0, b={"c": [100.0, "é"]}),
        lambda one: one.pop("x", None),
        lambda one: one.get("b")["c"].reverse() or one["b"]["c"].reverse(),
    ):
        assert answer(act, data) == []


def test_a_value_that_did_not_change_keeps_its_text() -> None:
    data = '{ "a": 1e999, "b" : [1e2, "\\ud800"], "n":' + "9" * 5000 + "}"
    text = whole(lambda one: one.update(new=1), data)
    assert text == '{"a":1e999,"b":[1e2, "\\ud800"],"n":' + "9" * 5000 + ',"new":1}'


def test_a_session_ends_and_another_begins() -> None:
    new = ("Edge-Session-Action", "regenerate")
    data = '{"cart":[1]}'

    def tutorial(one: Any) -> None:
        one.clear()
        one["user"] = "ada"

    for act, expected in (
        (lambda one: one.destroy(), [("Edge-Session-Action", "destroy")]),
        (lambda one: one.clear(), [("Edge-Session-Action", "destroy")]),
        (tutorial, [new, ("Edge-Session", '{"user":"ada"}')]),
        (lambda one: one.renew(), [new, ("Edge-Session", data)]),
        (
            lambda one: (one.renew(), one.update(user="ada")),
            [new, ("Edge-Session", '{"cart":[1],"user":"ada"}')],
        ),
        (lambda one: one.regenerate(), [new]),
        (
            lambda one: (one.regenerate(), one.renew(), one.update(a=1)),
            [new, ("Edge-Session", '{"a":1}')],
        ),
    ):
        assert answer(act, data) == expected
    # There is no session that could end.
    assert answer(lambda one: one.clear()) == []
    assert answer(tutorial) == [new, ("Edge-Session", '{"user":"ada"}')]
    one = session(data)
    one.destroy()
    with pytest.raises(SessionError, match="destroyed"):
        one["user"] = "ada"


def test_a_value_that_json_does_not_have_names_its_key_alone() -> None:
    loop: list[Any] = ["hunter2"]
    loop.append(loop)
    deep: Any = "hunter2"
    for _ in range(100_000):
        deep = [deep]
    for value, why in (
        ({"hunter2"}, "Object of type set is not JSON serializable"),
        ({("hunter2",): 1}, "not tuple"),
        (float("nan"), "JSON has no such value"),
        ([float("inf")], "JSON has no such value"),
        (loop, "JSON has no such value"),
        (deep, "nested too deeply"),
    ):
        one = session('{"a":1}')
        one["card"] = value
        with pytest.raises(SessionError, match=f"'card' cannot be stored: .*{why}") as raised:
            one._answer()
        assert "hunter2" not in str(raised.value)
        assert raised.value.__context__ is None and raised.value.__cause__ is None
        assert one._answer() == []  # the page that reports this changes nothing
    for change in (
        lambda one: one.update({1: 2}),
        lambda one: one.setdefault(1),
        lambda one: one.__setitem__(1, 2),
    ):
        with pytest.raises(TypeError, match="keys must be strings, not int"):
            change(session())


def test_headers_that_are_not_the_gateways_are_refused() -> None:
    for ids, sessions, what in (
        ([], [], "no header Edge-Session-Id"),
        ([], ["{}"], "no header Edge-Session-Id"),
        ([ID], [], "no header Edge-Session:"),
        ([ID, ID], ["{}"], "several headers Edge-Session-Id"),
        ([ID], ["{}", "{}"], "several headers Edge-Session:"),
        ([ID], [""], "not a JSON object"),
        ([ID], ["null"], "not a JSON object"),
        ([ID], ['["hunter2"]'], "not a JSON object"),
        ([ID], ['{"a":hunter2}'], "not a JSON object"),
        ([ID], ['{"a":"hunter2"} x'], "not a JSON object"),
        ([ID], ["{},{}"], "not a JSON object"),
        ([ID], ['{"hunter2":NaN}'], "not a JSON object"),
        ([ID], ['{"a":"hunter2é"}'], "not a JSON object in ASCII"),
        ([ID], ['{"a":' + "[" * 100_000 + "]" * 100_000 + "}"], "nested too deeply"),
    ):
        with pytest.raises(HeadersError, match=what) as raised:
            read(ids, sessions)
        assert "hunter2" not in str(raised.value)
        assert raised.value.__context__ is None
    with pytest.raises(HeadersError, match="listen only where the gateway alone can reach it"):
        read([], [])


def test_where_the_gateway_has_no_session_nothing_can_be_kept() -> None:
    one = session(id="")
    assert one == {} and one.get("a") is None and one.pop("a", None) is None
    for change in (lambda: one.update(a=1), one.renew, one.clear, lambda: one.setdefault("a")):
        with pytest.raises(SessionError, match=r"outside cookie\.path"):
            change()
    assert one._answer() == [("Vary", "Cookie, Edge-Session")]


def test_a_page_depends_on_the_session_that_it_was_made_of() -> None:
    for act, data, expected in (
        (lambda one: None, '{"a":1}', None),
        # All visitors with empty sessions may share a page.
        (lambda one: one.get("a"), "{}", "Cookie, Edge-Session"),
        (lambda one: one.get("a"), '{"a":1}', "Cookie, Edge-Session, Edge-Session-Id"),
        (lambda one: one.update(a=1), "{}", "Cookie, Edge-Session, Edge-Session-Id"),
        (lambda one: one.destroy(), '{"a":1}', "Cookie, Edge-Session, Edge-Session-Id"),
    ):
        one = session(data)
        act(one)
        assert dict(one._answer()).get("Vary") == expected


def test_a_session_shows_no_secrets_and_its_copies_are_dictionaries() -> None:
    one = session('{"a":1,"b":[2]}')
    assert repr(one) == "<Session>" and ID not in repr(one._told)
    for other in (one.copy(), copy.copy(one), copy.deepcopy(one), pickle.loads(pickle.dumps(one))):
        assert type(other) is dict and other == {"a": 1, "b": [2]}


def test_the_code_in_the_readme_runs() -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    made: dict[str, Any] = {"__name__": "__main__"}
    for code in re.findall("```python\n(.*?)```", readme.partition("## Behind")[2], re.DOTALL):
        exec(code, made)
    assert made["MIDDLEWARE"][0] == "edge_session.headers.django.SessionMiddleware"
    answered: list[Any] = []
    body = made["application"](environ('{"viewCount":1}'), lambda *all: answered.append(all))
    assert body == [b"you have visited this page 2 times"]
    assert ("Edge-Session", '{"viewCount":2}') in answered[0][1]
    assert type(made["app"].session_interface).__module__ == "edge_session.headers.flask"


def test_it_needs_no_other_package() -> None:
    program = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("wasmtime", "anyio", "pymongo", "flask", "django", "starlette"):
            raise ImportError(name)
sys.meta_path.insert(0, Missing())
import edge_session.headers, edge_session.headers.asgi, edge_session.headers.wsgi
"""
    source = str(Path(__file__).parents[1] / "src")
    subprocess.run([sys.executable, "-c", program], env={"PYTHONPATH": source}, check=True)


# ------------------------------------------------------------------------------ ASGI ----


def starlette(endpoint: Any, *more: Any) -> Any:
    app = Starlette(routes=[Route("/", endpoint, methods=["GET", "POST"]), *more])
    app.add_middleware(asgi.SessionMiddleware)
    return app


async def ask(app: Any, headers: Headers, **settings: Any) -> httpx.Response:
    transport = httpx.ASGITransport(app, **settings)
    async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
        return await client.get("/", headers=headers)


async def test_asgi_has_it_as_request_session() -> None:
    async def count(request: Request) -> Response:
        assert request.session is request.state.session
        request.session["count"] = request.session.get("count", 0) + 1
        return JSONResponse(request.session, headers={"x-own": "1"})

    response = await ask(starlette(count), told('{"count":2}'))
    assert response.json() == {"count": 3}
    assert response.headers["edge-session"] == '{"count":3}'
    assert response.headers["x-own"] == "1"
    assert response.headers["vary"] == "Cookie, Edge-Session, Edge-Session-Id"
    assert "set-cookie" not in response.headers


async def test_asgi_answers_what_was_changed_inside_values_and_nothing_unasked() -> None:
    async def act(request: Request) -> Response:
        if request.session["cart"]["apples"] < 3:
            request.session["cart"]["apples"] += 1
        return PlainTextResponse("ok")

    response = await ask(starlette(act), told('{"cart":{"apples":2}}'))
    assert response.headers["edge-session"] == '{"cart":{"apples":3}}'
    response = await ask(starlette(act), told('{"cart":{"apples":3}}'))
    assert not [name for name in response.headers if name.startswith("edge-session")]


async def test_asgi_another_middlewares_session_stays_its_own() -> None:
    async def count(request: Request) -> Response:
        request.session["count"] = 1
        return PlainTextResponse("ok")

    response = await ask(SignedCookie(starlette(count), "a secret of its own"), told())
    assert response.headers["edge-session"] == '{"count":1}'
    assert "set-cookie" not in response.headers


async def test_asgi_refuses_what_did_not_come_through_the_gateway() -> None:
    async def never(request: Request) -> Response:
        raise AssertionError("the application is not asked")

    for headers in ([], told()[1:], told() * 2, told("[]"), [("Edge_Session", "{}")]):
        with pytest.raises(HeadersError):
            await ask(starlette(never), headers)
        response = await ask(starlette(never), headers, raise_app_exceptions=False)
        assert response.status_code == 500


async def test_asgi_fails_a_request_whose_change_is_none() -> None:
    async def act(request: Request) -> Response:
        request.session["card"] = {"hunter2"}
        return PlainTextResponse("ok")

    with pytest.raises(SessionError, match="'card'"):
        await ask(starlette(act), told())
    response = await ask(starlette(act), told(), raise_app_exceptions=False)
    assert response.status_code == 500 and "edge-session" not in response.headers


async def test_asgi_a_change_after_the_headers_is_an_error() -> None:
    late: list[str] = []

    async def stream(request: Request) -> Response:
        async def body() -> AsyncIterator[bytes]:
            yield b"x"
            try:
                request.session["late"] = 1
            except SessionError as error:
                late.append(str(error))

        return StreamingResponse(body())

    await ask(starlette(stream), told())
    assert late == ["the response's headers were sent: the session can no longer be changed"]


def test_a_websocket_can_read_it() -> None:
    async def chat(websocket: WebSocket) -> None:
        await websocket.accept()
        try:
            websocket.session["a"] = 2
        except SessionError as error:
            await websocket.send_text(str(error))
        await websocket.send_json(websocket.session)
        await websocket.close()

    app = starlette(lambda request: None, WebSocketRoute("/chat", chat))
    client = TestClient(app)
    with client.websocket_connect("/chat", headers=dict(told('{"a":1}'))) as websocket:
        assert websocket.receive_text() == "a WebSocket's session is read-only"
        assert websocket.receive_json() == {"a": 1}
    with pytest.raises(HeadersError), client.websocket_connect("/chat"):
        pass


# ------------------------------------------------------------------------------ WSGI ----


def visit(act: Act, environ: dict[str, Any], **settings: Any) -> tuple[str, Headers]:
    answered: list[Any] = []

    def app(environ: Any, start_response: Any) -> list[bytes]:
        act(environ["edge_session.session"])
        start_response("200 OK", [("X-Own", "1")])
        return [b"ok"]

    def start_response(status: str, headers: Headers, exc_info: Any = None) -> Any:
        answered.append((status, headers))

    assert list(wsgi.SessionMiddleware(app)(environ, start_response)) == [b"ok"]  # type: ignore[arg-type]
    (one,) = answered
    return one


def environ(data: str = "{}", id: str = ID) -> dict[str, Any]:
    return {"HTTP_EDGE_SESSION_ID": id, "HTTP_EDGE_SESSION": data}


def test_wsgi_has_it_in_the_environment() -> None:
    status, headers = visit(lambda one: one["list"].append(2), environ('{"list":[1]}'))
    assert status == "200 OK"
    assert headers[:2] == [("X-Own", "1"), ("Edge-Session", '{"list":[1,2]}')]
    assert headers[2:] == [("Vary", "Cookie, Edge-Session, Edge-Session-Id")]
    assert visit(lambda one: None, environ('{"list":[1]}'))[1] == [("X-Own", "1")]


def test_wsgi_refuses_what_did_not_come_through_the_gateway() -> None:
    # Servers join repeated headers.
    for wrong in (
        {},
        {"HTTP_EDGE_SESSION": "{}"},
        environ("{},{}"),
        environ(id=f"{ID},{ID}"),
        environ("[]"),
    ):
        with pytest.raises(HeadersError):
            visit(lambda one: None, wrong)


def test_wsgi_an_application_that_fails_changes_nothing() -> None:
    answered: list[Any] = []

    def app(environ: Any, start_response: Any) -> list[bytes]:
        environ["edge_session.session"]["card"] = {"hunter2"}
        try:
            start_response("200 OK", [])
        except SessionError:
            start_response("500 Failed", [("X-Own", "1")], sys.exc_info())
        return []

    def start_response(status: str, headers: Headers, exc_info: Any = None) -> Any:
        answered.append((status, headers))

    wsgi.SessionMiddleware(app)(environ(), start_response)  # type: ignore[arg-type]
    assert answered == [("500 Failed", [("X-Own", "1")])]
