"""`request.session`, compatible with Starlette's own middleware and the libraries that use it."""

import copy
import json
import pickle
import re
from collections.abc import Callable, MutableMapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from authlib.integrations.starlette_client import OAuth
from conftest import SECRET, Visitor, asgi
from sqladmin import Admin
from sqladmin.authentication import AuthenticationBackend
from sqlalchemy import StaticPool, create_engine
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware as SignedCookie
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient
from starlette_wtf import CSRFProtectMiddleware, StarletteForm
from test_session import edits, session

from edge_session import MemoryStore, SessionError, SessionMiddleware

pytestmark = pytest.mark.anyio

New = Callable[..., Visitor]


# ------------------------------------------------------------------ it is a dictionary ----


def test_a_session_is_a_dictionary_of_pythons() -> None:
    one = session('{"a":1,"b":[2]}')
    assert isinstance(one, dict) and isinstance(one, MutableMapping)
    assert json.dumps(one) == '{"a": 1, "b": [2]}'
    assert one == {"a": 1, "b": [2]} and one != {} and {**one} == dict(one)
    assert list(one) == ["a", "b"] and list(reversed(one)) == ["b", "a"]
    match one:
        case {"a": 1, **rest}:
            assert rest == {"b": [2]}
        case _:
            raise AssertionError
    assert edits(one) == ("nothing", None)


def test_copies_of_a_session_are_plain_dictionaries() -> None:
    one = session('{"a":1,"b":[2]}')
    one._close("too late")
    for other in (
        one.copy(),
        copy.copy(one),
        copy.deepcopy(one),
        pickle.loads(pickle.dumps(one)),
        one | {},
        {} | one,
    ):
        assert type(other) is dict and other == {"a": 1, "b": [2]}
        other["a"] = 2
    assert one["a"] == 1


def test_all_that_changes_a_dictionary_changes_the_session() -> None:
    def joined(one: Any) -> None:
        one |= {"c": 3}

    for change, data in (
        (joined, [("c", "3")]),
        (lambda one: one.update([("c", 3)], d=4), [("c", "3"), ("d", "4")]),
        (lambda one: one.update({"a": 1}), []),
        (lambda one: one.setdefault("a", 5), []),
        (lambda one: one.setdefault("b", []).append(1), [("b", "[2,1]")]),
        (lambda one: one.setdefault("c"), [("c", "null")]),
        (lambda one: one.popitem(), [("b", None)]),
        (lambda one: one.pop("x", None), []),
    ):
        one = session('{"a":1,"b":[2]}')
        change(one)
        assert edits(one) == (("edits", data) if data else ("nothing", None))
    for change in (joined, lambda one: one.update({1: 2}), lambda one: one.setdefault(1)):
        one = session()
        one._close("too late")
        with pytest.raises((SessionError, TypeError)):
            change(one)
        assert dict(one) == {}


def test_whatever_looks_at_a_session_is_noticed() -> None:
    # `fromkeys` creates a new dictionary, and methods of `object` do not read keys.
    other = {"fromkeys"} | set(dir(object)) - {"__eq__", "__ne__", "__reduce__"}
    names = {name for name in dir(dict) if name not in other} | {"__reduce__"}
    arguments: dict[str, tuple[Any, ...]] = {
        "__class_getitem__": (str,),
        "__contains__": ("a",),
        "__delitem__": ("a",),
        "__eq__": ({},),
        "__getitem__": ("a",),
        "__ior__": ({},),
        "__ne__": ({},),
        "__or__": ({},),
        "__ror__": ({},),
        "__setitem__": ("a", 1),
        "get": ("a",),
        "pop": ("a",),
        "setdefault": ("a",),
    }
    unnoticed = set()
    for name in sorted(names):
        one = session('{"a":1}')
        getattr(one, name)(*arguments.get(name, ()))
        if not one._is_used:
            unnoticed.add(name)
    assert unnoticed == {"__class_getitem__"}


def test_what_is_stored_in_too_many_levels_harms_only_who_looks_at_it() -> None:
    text = '{"a":' + "[" * 100_000 + "]" * 100_000 + "}"
    one = session(text)
    assert one._change() == ("keep", ("nothing", None), [])
    for act in (lambda: one["a"], lambda: len(one), lambda: one.update(b=1), one.renew):
        with pytest.raises(SessionError, match="nested too deeply"):
            act()
    one.regenerate()
    one["b"] = 1
    assert one._change() == ("regenerate", ("whole", '{"b":1}'), [])


# ------------------------------------------------------------------- `request.session` ----


async def test_it_is_the_session_of_the_state(visitor: New) -> None:
    store = MemoryStore()

    async def endpoint(request: Request) -> Response:
        assert request.session is request.state.session
        request.session["viewCount"] = request.session.get("viewCount", 0) + 1
        return JSONResponse(request.session)

    one = visitor(asgi(endpoint, store=store))
    assert [(await one.http.get("/")).json() for _ in range(2)] == [
        {"viewCount": 1},
        {"viewCount": 2},
    ]


async def test_it_does_what_starlettes_own_does(visitor: New) -> None:
    async def endpoint(request: Request) -> Response:
        match request.url.path:
            case "/update":
                request.session.update(await request.json())
            case "/join":
                current = request.session
                current |= await request.json()
            case "/popitem":
                request.session.popitem()
            case "/clear":
                request.session.clear()
        return JSONResponse({"session": request.session})

    http = visitor(asgi(endpoint)).http
    assert (await http.get("/")).json() == {"session": {}}
    response = await http.post("/update", json={"a": "1", "b": "2"})
    assert response.json() == {"session": {"a": "1", "b": "2"}}
    assert "set-cookie" in response.headers
    response = await http.get("/")
    assert response.json() == {"session": {"a": "1", "b": "2"}}
    assert "set-cookie" not in response.headers
    await http.post("/join", json={"c": "3"})
    assert (await http.get("/")).json() == {"session": {"a": "1", "b": "2", "c": "3"}}
    await http.post("/popitem")
    assert (await http.get("/")).json() == {"session": {"a": "1", "b": "2"}}
    assert (await http.post("/clear")).json() == {"session": {}}
    assert (await http.get("/")).json() == {"session": {}}


async def test_another_middlewares_session_stays_its_own(visitor: New) -> None:
    async def endpoint(request: Request) -> Response:
        request.session[request.url.path] = request.session.get(request.url.path, 0) + 1
        return JSONResponse(request.session)

    ours = asgi(endpoint, options={"cookie": {"path": "/ours"}})
    http = visitor(SignedCookie(ours, "a secret of its own", session_cookie="its")).http
    for count in (1, 2):
        response = await http.get("/its")
        assert response.json() == {"/its": count}
        assert [cookie[:4] for cookie in response.headers.get_list("set-cookie")] == ["its="]
        response = await http.get("/ours")
        assert response.json() == {"/ours": count}
        assert "its=" not in response.headers.get("set-cookie", "")


async def test_authlib_keeps_its_state_there(visitor: New) -> None:
    async def provider(request: httpx.Request) -> httpx.Response:
        sent = parse_qs(request.content.decode())
        assert sent["code"] == ["the-code"] and sent["redirect_uri"] == ["http://test/back"]
        return httpx.Response(200, json={"access_token": "token", "token_type": "Bearer"})

    oauth = OAuth()
    oauth.register(
        "provider",
        client_id="us",
        client_secret="secret",
        authorize_url="http://provider/authorize",
        access_token_url="http://provider/token",
        client_kwargs={"transport": httpx.MockTransport(provider)},
    )

    async def login(request: Request) -> Response:
        answer: Response = await oauth.provider.authorize_redirect(request, "http://test/back")
        return answer

    async def back(request: Request) -> Response:
        token = await oauth.provider.authorize_access_token(request)
        request.state.session.renew()
        request.session["token"] = token["access_token"]
        return JSONResponse(request.session)

    application = Starlette(
        routes=[Route("/login", login), Route("/back", back)],
        middleware=[Middleware(SessionMiddleware, secret=SECRET, store=MemoryStore())],
    )
    http = visitor(application).http
    target = urlsplit((await http.get("/login")).headers["location"])
    (state,) = parse_qs(target.query)["state"]
    response = await http.get("/back", params={"code": "the-code", "state": state})
    assert response.json() == {"token": "token"}


async def test_sqladmin_logs_in_and_out_there(visitor: New) -> None:
    class Backend(AuthenticationBackend):
        def __init__(self) -> None:
            self.middlewares = []  # Its own sessions, in a signed cookie.

        async def login(self, request: Request) -> bool:
            request.state.session.renew()
            request.session.update(user_id=(await request.form())["username"])
            return True

        async def logout(self, request: Request) -> bool:
            request.session.clear()
            return True

        async def authenticate(self, request: Request) -> bool:
            return "user_id" in request.session

    store = MemoryStore()
    application = Starlette(middleware=[Middleware(SessionMiddleware, secret=SECRET, store=store)])
    engine = create_engine("sqlite://", poolclass=StaticPool)
    Admin(application, engine, authentication_backend=Backend())
    http = visitor(application).http
    response = await http.get("/admin/")
    assert response.headers["location"] == "http://test/admin/login"
    response = await http.post("/admin/login", data={"username": "ada", "password": "x"})
    assert response.status_code == 302 and "connect.sid=" in response.headers["set-cookie"]
    assert (await http.get("/admin/")).status_code == 200
    await http.get("/admin/logout")
    assert (await http.get("/admin/")).headers["location"] == "http://test/admin/login"


async def test_the_tokens_of_starlette_wtf_are_kept_there(visitor: New) -> None:
    class Form(StarletteForm):
        pass

    async def endpoint(request: Request) -> Response:
        form = await Form.from_formdata(request)
        if await form.validate_on_submit():
            return JSONResponse("accepted")
        return JSONResponse([form.csrf_token.current_token, form.errors])

    application = Starlette(
        routes=[Route("/", endpoint, methods=["GET", "POST"])],
        middleware=[
            Middleware(SessionMiddleware, secret=SECRET, store=MemoryStore()),
            Middleware(CSRFProtectMiddleware, csrf_secret="a secret of its own"),
        ],
    )
    one, other = visitor(application).http, visitor(application).http
    token, _ = (await one.get("/")).json()
    await other.get("/")
    assert (await one.post("/", data={"csrf_token": token})).json() == "accepted"
    _, errors = (await other.post("/", data={"csrf_token": token})).json()
    assert errors == {"csrf_token": ["The CSRF tokens do not match."]}


def test_the_application_in_the_readme_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", SECRET)
    readme = Path(__file__).parents[1] / "README.md"
    code = re.search("```python\n(.*?)```", readme.read_text(), re.DOTALL)
    counter: dict[str, Any] = {}
    exec(code[1] if code else "", counter)
    client = TestClient(counter["app"])
    assert [client.get("/").json() for _ in range(2)] == [
        "you have visited this page 1 times",
        "you have visited this page 2 times",
    ]
