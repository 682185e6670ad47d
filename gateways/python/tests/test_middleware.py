"""Behaviour on the wire: streams, failures, websockets, and misbehaving applications."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from conftest import SECRET, Visitor, app, asgi, deeds
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

from edge_session import MemoryStore, SessionError, SessionMiddleware, StoreError

pytestmark = pytest.mark.anyio

New = Callable[..., Visitor]

UNAVAILABLE = "Sessions are unavailable. Please try again.\n"
NOT_SAVED = "The session could not be saved.\n"


class Failing(MemoryStore):
    """A store in which some operations fail, in different ways."""

    def __init__(self) -> None:
        super().__init__()
        self.failing: set[str] = set()
        self.error: BaseException | float = StoreError("out of order")

    def __getattribute__(self, name: str) -> Any:
        operation = super().__getattribute__(name)
        if name not in ("load", "create", "replace", "touch", "delete"):
            return operation

        async def perform(*args: Any) -> Any:
            if name in self.failing:
                if isinstance(self.error, float):
                    await asyncio.sleep(self.error)
                else:
                    raise self.error
            return await operation(*args)

        return perform


class Slow:
    """A store other than the memory store: it has a deadline."""

    def __init__(self, store: MemoryStore) -> None:
        self.store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)


async def refused(one: Visitor, status: int, text: str, **wanted: Any) -> None:
    response = await one.http.post("/", json=wanted)
    assert (response.status_code, response.text) == (status, text)
    assert "set-cookie" not in response.headers
    assert response.headers["cache-control"] == "no-store"


async def test_a_store_that_fails_is_503(visitor: New, caplog: Any) -> None:
    store = Failing()
    one = visitor(deeds(store=store, options={"touch_after": 0}))
    await one(set={"a": 1})
    for operation in ("load", "replace", "delete"):
        store.failing = {operation}
        wanted = {"replace": {"set": {"a": 2}}, "delete": {"do": "destroy"}}.get(operation, {})
        await refused(one, 503, UNAVAILABLE, **wanted)
        assert f"{operation}: out of order" in caplog.text
    # The loaded data is valid, whether or not its expiry was extended.
    store.failing = {"touch"}
    assert (await one())["data"] == {"a": 1}
    assert "touch: out of order" in caplog.text
    store.failing = {"create"}
    await refused(visitor(deeds(store=store)), 503, UNAVAILABLE, set={"a": 1})
    store.failing = set()
    assert (await one())["data"] == {"a": 1}


async def test_anonymous_goes_on_where_nothing_is_lost(visitor: New, caplog: Any) -> None:
    store = Failing()
    application = deeds(store=store, options={"on_store_error": "anonymous", "touch_after": 0})
    one = visitor(application)
    await one(set={"a": 1})
    store.failing = {"load"}
    answer = await one(set={"a": 2})
    assert (answer["origin"], answer["data"]) == ("detached", {})
    store.failing = {"touch", "create"}
    await one()
    assert (await visitor(application)(set={"b": 1}))["origin"] == "absent"
    store.failing = {"replace"}
    await refused(one, 503, UNAVAILABLE, set={"a": 2})
    store.failing = set()
    assert (await one())["data"] == {"a": 1}
    assert {"load", "touch", "create"} <= set(caplog.text.replace(":", " ").split())


async def test_a_store_has_a_deadline(visitor: New) -> None:
    store = Failing()
    one = visitor(deeds(store=Slow(store), timeout=0.02))
    await one(set={"a": 1})
    store.failing, store.error = {"load"}, 5.0
    start = asyncio.get_running_loop().time()
    await refused(one, 503, UNAVAILABLE)
    assert asyncio.get_running_loop().time() - start < 2


async def test_a_store_with_a_bug_shows_no_secrets(visitor: New, caplog: Any) -> None:
    store = Failing()
    store.failing, store.error = {"create"}, RuntimeError("password")
    await refused(visitor(deeds(store=store)), 503, UNAVAILABLE, set={"a": 1})
    assert "create: RuntimeError" in caplog.text
    assert "password" not in caplog.text


async def test_what_the_store_can_never_keep_is_500(visitor: New) -> None:
    store = Failing()
    store.failing, store.error = {"create"}, StoreError("too much", refused=True)
    for policy in ("deny", "anonymous"):
        one = visitor(deeds(store=store, options={"on_store_error": policy}))
        await refused(one, 500, NOT_SAVED, set={"a": 1})


async def test_changes_that_are_not_valid_are_500(visitor: New, caplog: Any) -> None:
    store = MemoryStore()
    for value in (float("nan"), {1, 2}):
        one = visitor(app(lambda session, value=value: session.update(a=value), store=store))
        await refused(one, 500, NOT_SAVED)
    for key in ("cookie", "toString"):
        await refused(visitor(deeds(store=store)), 500, NOT_SAVED, set={key: 1})
    large = deeds(store=store, options={"max_session_bytes": 1000})
    await refused(visitor(large), 500, NOT_SAVED, set={"a": "x" * 1000})
    assert "more than max_session_bytes" in caplog.text
    assert len(store) == 0


async def test_headers_of_the_application_stay(visitor: New) -> None:
    def act(session: Any) -> Response:
        session["a"] = 1
        response = PlainTextResponse("ok", headers={"cache-control": "max-age=5"})
        response.set_cookie("its", "own")
        return response

    response = await visitor(app(act)).http.get("/")
    assert response.headers["cache-control"] == "private, max-age=5"
    first, second = response.headers.get_list("set-cookie")
    assert first.startswith("its=own") and second.startswith("connect.sid=s%3A")


def test_an_application_that_fails_changes_nothing() -> None:
    store = MemoryStore()

    async def endpoint(request: Request) -> Response:
        request.state.session["a"] = 1
        raise RuntimeError("a bug")

    application = Starlette(routes=[Route("/", endpoint)])
    application.add_middleware(SessionMiddleware, secret=SECRET, store=store)
    response = TestClient(application, raise_server_exceptions=False).get("/")
    assert response.status_code == 500 and "set-cookie" not in response.headers
    assert len(store) == 0


async def test_the_session_is_stored_before_the_headers_leave() -> None:
    store = MemoryStore()
    application = deeds(store=store)
    seen = []

    async def send(message: Any) -> None:
        seen.append((message["type"], len(store)))

    async def receive() -> Any:
        return {"type": "http.request", "body": b'{"set":{"a":1}}', "more_body": False}

    scope = {"type": "http", "method": "POST", "path": "/", "headers": [], "query_string": b""}
    await application(scope, receive, send)
    assert seen == [("http.response.start", 1), ("http.response.body", 1)]


async def test_streams_pass_as_they_come() -> None:
    arrived: list[bytes] = []

    async def endpoint(request: Request) -> Response:
        request.state.session["a"] = 1

        async def body() -> AsyncIterator[bytes]:
            for number in range(3):
                assert len(arrived) == number  # the previous one has already been sent
                yield str(number).encode()

        return StreamingResponse(body())

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            assert any(name == b"set-cookie" for name, _ in message["headers"])
        elif message["body"]:
            arrived.append(message["body"])

    async def receive() -> Any:
        await asyncio.sleep(3600)

    scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "query_string": b""}
    await asgi(endpoint)(scope, receive, send)
    assert arrived == [b"0", b"1", b"2"]


async def test_a_change_after_the_headers_is_an_error(visitor: New) -> None:
    late: list[str] = []

    async def endpoint(request: Request) -> Response:
        session = request.state.session

        async def body() -> AsyncIterator[bytes]:
            yield b"x"
            try:
                session["late"] = 1
            except SessionError as error:
                late.append(str(error))

        return StreamingResponse(body())

    await visitor(asgi(endpoint)).http.get("/")
    assert late == ["the response's headers were sent: the session can no longer be changed"]


async def test_an_endless_stream_ends_when_its_session_fails() -> None:
    store = Failing()
    store.failing = {"create"}

    async def endpoint(request: Request) -> Response:
        request.state.session["a"] = 1

        async def body() -> AsyncIterator[bytes]:
            while True:
                yield b"x"
                await asyncio.sleep(0)

        return StreamingResponse(body())

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        await asyncio.sleep(3600)

    for version in ("2.3", "2.4"):
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": version},
            "method": "GET",
            "path": "/",
            "headers": [],
            "query_string": b"",
        }
        await asyncio.wait_for(asgi(endpoint, store=store)(scope, receive, send), 5)
        start, body = sent
        assert (start["status"], body["body"]) == (503, UNAVAILABLE.encode())
        sent.clear()


async def test_a_visitor_who_leaves_harms_nobody(visitor: New) -> None:
    store = Failing()
    application = deeds(store=Slow(store), timeout=10)
    one = visitor(application)
    await one(set={"a": 1})
    for operation in ("load", "replace"):
        store.failing, store.error = {operation}, 5.0
        task = asyncio.create_task(one(set={"a": 2}))
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    store.failing = set()
    assert (await one(set={"a": 3}))["data"] == {"a": 1}
    assert (await one())["data"] == {"a": 3}


def test_it_is_a_starlette_middleware() -> None:
    async def count(request: Request) -> Response:
        session = request.state.session
        session["viewCount"] = session.get("viewCount", 0) + 1
        return PlainTextResponse(f"{session['viewCount']} {request.state.started}")

    async def chat(websocket: WebSocket) -> None:
        await websocket.accept()
        session = websocket.state.session
        try:
            session["viewCount"] = 0
        except SessionError as error:
            await websocket.send_text(str(error))
        await websocket.send_json({"origin": session.origin, **session})
        await websocket.close()

    from contextlib import asynccontextmanager

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[Any]:
        yield {"started": "yes"}

    application = Starlette(
        routes=[Route("/", count), WebSocketRoute("/chat", chat)], lifespan=lifespan
    )
    store = Failing()
    application.add_middleware(SessionMiddleware, secret=SECRET, store=store)
    with TestClient(application) as client:
        assert [client.get("/").text for _ in range(2)] == ["1 yes", "2 yes"]
        with client.websocket_connect("/chat") as websocket:
            assert websocket.receive_text() == "a WebSocket's session is read-only"
            assert websocket.receive_json() == {"origin": "loaded", "viewCount": 2}
        store.failing = {"load"}
        with pytest.raises(Exception) as raised, client.websocket_connect("/chat"):
            pass
        # With or without ASGI's extension for responses: the handshake is refused.
        answer = raised.value
        if isinstance(answer, httpx.Response) or hasattr(answer, "status_code"):
            assert answer.status_code == 503  # type: ignore[attr-defined]
        else:
            assert isinstance(answer, WebSocketDisconnect) and answer.code == 1013


def test_it_works_with_fastapi() -> None:
    from fastapi import FastAPI

    application = FastAPI(
        middleware=[Middleware(SessionMiddleware, secret=SECRET, store=MemoryStore())]
    )

    @application.get("/")
    def count(request: Request) -> dict[str, int]:  # in a thread of a pool
        session = request.state.session
        session["viewCount"] = session.get("viewCount", 0) + 1
        return dict(session)

    client = TestClient(application)
    assert [client.get("/").json() for _ in range(3)] == [{"viewCount": n} for n in (1, 2, 3)]


async def test_logs_never_name_a_session(visitor: New, caplog: Any) -> None:
    caplog.set_level(logging.DEBUG, "edge_session")
    store = Failing()
    one = visitor(deeds(store=store))
    id = (await one(set={"a": 1}))["id"]
    store.failing = {"load"}
    await refused(one, 503, UNAVAILABLE)
    assert caplog.text and id not in caplog.text
