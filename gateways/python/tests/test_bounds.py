"""Input from clients costs no more than the component can use of it."""

import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from test_storms import Visits

from edge_session import Content, MemoryStore, SessionMiddleware

pytestmark = pytest.mark.anyio

SECRET = "an unguessable secret of more than 32 bytes"
MANY = 16 << 20
LATER = 4_102_444_800_000  # the year 2100
SMALL: Any = {"max_session_bytes": 1000}
COOKIE = '{"originalMaxAge":null,"expires":null,"httpOnly":true,"path":"/"}'


@contextmanager
def costs_at_most(most: int) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak <= most


class Recorded:
    """An engine that records its arguments."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self.given: list[Any] = []

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._engine, name)
        if name not in ("begin", "loaded", "finish", "resume"):
            return found

        def call(*values: Any) -> Any:
            self.given.append((name, *values))
            return found(*values)

        return call


class Server:
    """An application that acts on its session, called as a server without limits calls it."""

    def __init__(self, act: Any = lambda session: None, **options: Any) -> None:
        self.store = MemoryStore()
        self.act = act
        self.session: Any = None
        self.application = SessionMiddleware(
            self.endpoint, SECRET, store=self.store, options=options
        )
        self.engine = Recorded(self.application._sessions._engine)
        self.application._sessions._engine = self.engine  # type: ignore[assignment]

    async def endpoint(self, scope: Any, receive: Any, send: Any) -> None:
        self.session = scope["state"]["session"]
        self.act(self.session)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def visit(self, headers: Any = (), **scope: Any) -> int:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        facts = {"type": "http", "path": "/", "headers": list(headers), **scope}
        await self.application(facts, None, send)  # type: ignore[arg-type]
        status: int = sent[0]["status"]
        return status

    def request(self) -> Any:
        """The request that the component received."""
        ((_, request),) = [call for call in self.engine.given if call[0] == "begin"]
        return request


def count(session: Any) -> None:
    session["n"] = session.get("n", 0) + 1


@pytest.mark.parametrize(
    "headers",
    [
        [(b"cookie", b"x" * MANY)],
        [(b"cookie", b"x" * (MANY >> 2))] * 4,
        [(b"cookie", b"x")] * 100_000,
        [(b"cookie", b"")] * 100_000,
        [(b"cookie", b"a=b; " * (MANY // 5))],
    ],
    ids=["one", "four", "short", "empty", "pairs"],
)
async def test_cookies_of_any_size_cost_what_the_largest_that_are_read_cost(headers: Any) -> None:
    server = Server()
    await server.visit()
    server.engine.given.clear()
    with costs_at_most(4 << 20):
        assert await server.visit(headers) == 200
    assert server.session.origin == "oversized"
    assert len(server.request().cookies) == (16 << 10) + 1


@pytest.mark.parametrize("crumbs", [1, 4, 5, 300])
async def test_cookies_may_come_in_any_number_of_headers(crumbs: int) -> None:
    visits = Visits(MemoryStore())
    _, _, cookie = await visits.visit("key")
    server = Server()
    server.store._sessions = visits.sessions._store._sessions  # type: ignore[attr-defined]
    others = [b"c%d=%s" % (number, b"x" * 30) for number in range(crumbs - 1)]
    await server.visit([(b"cookie", value) for value in (*others, cookie)])
    assert server.session.origin == "loaded"


@pytest.mark.parametrize(("size", "origin"), [(16 << 10, "loaded"), ((16 << 10) + 1, "oversized")])
async def test_where_the_limit_is_the_component_says(size: int, origin: str) -> None:
    visits = Visits(MemoryStore())
    _, _, cookie = await visits.visit("key")
    server = Server()
    server.store._sessions = visits.sessions._store._sessions  # type: ignore[attr-defined]
    await server.visit([(b"cookie", cookie + b"; " + b"x" * (size - len(cookie) - 2))])
    assert server.session.origin == origin


@pytest.mark.parametrize(
    "scope",
    [{"path": "/app/" + "é" * (MANY >> 1)}, {"raw_path": b"/app/" + b"%ff\xff" * (MANY >> 2)}],
    ids=["path", "raw"],
)
async def test_of_a_path_its_beginning_is_enough(scope: Any) -> None:
    inside, outside = (Server(cookie={"path": path}) for path in ("/app/", "/other"))
    for server, has_session in [(inside, True), (outside, False)]:
        await server.visit(path="/")
        server.engine.given.clear()
        with costs_at_most(1 << 20):
            await server.visit(**scope)
        assert (server.session is not None) == has_session
        assert len(server.request().path) <= 1025


async def test_the_longest_path_of_a_cookie_is_compared_in_full_and_with_what_follows() -> None:
    path = "/" + "a" * 1023
    for asked, has_session in [(path, True), (path + "/b", True), (path[:-1] + "b", False)]:
        server = Server(cookie={"path": path})
        await server.visit(path=asked)
        assert (server.session is not None) == has_session
        # A path with a different continuation is a different path.
        assert server.request().path == asked[:1025]


@pytest.mark.parametrize(
    ("proxy", "value", "told"),
    [
        (True, b"https", b"https"),
        (True, b"x" * MANY, None),
        (False, b"https", None),
        (None, b"https", None),
    ],
)
async def test_the_forwarded_protocol_is_told_where_it_is_believed(
    proxy: Any, value: bytes, told: Any
) -> None:
    server = Server(**({} if proxy is None else {"proxy": proxy}))
    with costs_at_most(1 << 20):
        await server.visit([(b"x-forwarded-proto", value)])
    assert server.request().forwarded_proto == told


async def test_a_change_above_the_largest_session_is_not_handed_over() -> None:
    def fill(session: Any) -> None:
        session["text"] = "x" * (100 << 20)

    server = Server(fill)
    assert await server.visit() == 500
    assert [name for name, *_ in server.engine.given] == ["begin"]

    def clear(session: Any) -> None:
        session.clear()
        session["text"] = "x" * (2 << 20)

    server = Server(clear)
    assert await server.visit() == 500
    assert [name for name, *_ in server.engine.given] == ["begin"]


async def test_a_change_up_to_the_largest_session_is_the_components_matter() -> None:
    stored = []
    for size in range(880, 920):
        server = Server(lambda session, size=size: session.update(t="x" * size), **SMALL)
        if await server.visit() == 200:
            (session,) = server.store._sessions.values()
            stored.append(len(session.data))
    assert 880 < len(stored) + 880 < 920 and max(stored) == 1000


async def test_a_session_that_ends_may_have_been_of_any_size() -> None:
    def end(session: Any) -> None:
        session["text"] = "x" * (2 << 20)
        session.unset()

    assert await Server(end).visit() == 200


@pytest.mark.parametrize("is_ascii", [True, False])
async def test_a_stored_session_above_the_largest_is_damaged_and_not_handed_over(
    is_ascii: bool,
) -> None:
    visits = Visits(MemoryStore())
    _, _, cookie = await visits.visit("key")
    server = Server(count)
    server.store = server.application._sessions._store = visits.sessions._store  # type: ignore
    (id,) = server.store._sessions
    text = ("x" if is_ascii else "\u20ac") * (15 << 20)
    document = f'{{"cookie":{COOKIE},"text":"{text}"}}'
    await server.store.replace(id, Content(document, LATER), None)
    with costs_at_most(2 << 20):
        assert await server.visit([(b"cookie", cookie)]) == 200
    assert server.session.origin == "damaged"
    assert server.store._sessions[id].data is document


async def test_thousands_of_keys_are_set_at_once() -> None:
    keys = {f"k{n}é": n for n in range(9_000)}

    def fill(session: Any) -> None:
        session["n"] = session.get("n", 0) + 1
        session.update(keys)
        del session["k7é"]

    server = Server(fill)
    with costs_at_most(12 << 20):
        assert await server.visit() == 200
    (stored,) = server.store._sessions.values()
    assert '"n":1,"k0é":0,"k1é":1,' in stored.data and '"k8999é":8999}' in stored.data
    assert "k7é" not in stored.data
