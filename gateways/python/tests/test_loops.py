"""Event loops: asyncio and trio, and several at once."""

import asyncio
import os
import secrets
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import pytest
from conftest import Visitor, deeds
from pymongo import AsyncMongoClient, MongoClient
from starlette.testclient import TestClient

from edge_session import MemoryStore, Store
from edge_session._turns import Turns
from edge_session.mongodb import MongoStore

New = Callable[..., Visitor]


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return request.param


class Database:
    """A MongoDB database, and the clients connected to it."""

    def __init__(self, client: MongoClient[Any], name: str) -> None:
        self.client = client
        self.name = name
        separator = "&" if "?" in os.environ["MONGODB_URI"] else "?"
        self.uri = f"{os.environ['MONGODB_URI']}{separator}appName={name}"

    def store(self) -> MongoStore:
        return MongoStore(self.uri, db_name=self.name)

    @property
    def connections(self) -> int:
        of_all = {"$currentOp": {"allUsers": True, "idleConnections": True}}
        ours = {"$match": {"appName": self.name}}
        return len(list(self.client["admin"].aggregate([of_all, ours])))

    async def are_closed(self) -> None:
        """The server has noticed it."""
        with anyio.fail_after(10):
            while self.connections:
                await anyio.lowlevel.checkpoint()


@pytest.fixture
def database() -> Iterator[Database]:
    if not (uri := os.environ.get("MONGODB_URI")):
        pytest.skip("needs a MongoDB: set MONGODB_URI")
    with MongoClient[Any](uri) as client:
        name = f"edge-session-python-{secrets.token_hex(6)}"
        yield Database(client, name)
        client.drop_database(name)


class Elsewhere:
    """A store other than the memory store: it yields to the event loop, and has a deadline."""

    def __init__(self, held: str = "") -> None:
        self.store = MemoryStore()
        #: This operation waits for `go`.
        self.held = held
        self.is_held, self.go = anyio.Event(), anyio.Event()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        async def ask(*args: Any) -> Any:
            await anyio.lowlevel.checkpoint()
            if name == self.held:
                self.is_held.set()
                await self.go.wait()
            return await getattr(self.store, name)(*args)

        return ask


async def a_life(one: Visitor) -> None:
    first = await one(set={"a": 1})
    assert (await one(set={"b": 2}))["data"] == {"a": 1}
    await one(do="renew")
    renewed = await one(remove=["a"])
    assert renewed["data"] == {"a": 1, "b": 2} and renewed["id"] != first["id"]
    assert (await one(do="destroy"))["data"] == {"b": 2}
    assert (await one())["data"] == {}


@pytest.mark.anyio
@pytest.mark.parametrize("store", [MemoryStore, Elsewhere])
async def test_a_session_lives_in_any_event_loop(store: Callable[[], Store], visitor: New) -> None:
    await a_life(visitor(deeds(store=store())))


@pytest.mark.anyio
async def test_mongodb_keeps_sessions_of_any_event_loop(database: Database, visitor: New) -> None:
    store = database.store()
    await a_life(visitor(deeds(store=store, timeout=30)))
    assert database.connections
    await store.close()
    await database.are_closed()


@pytest.mark.anyio
async def test_a_client_of_threads_is_asked_in_any_event_loop(
    database: Database, visitor: New
) -> None:
    store = MongoStore(database.client, db_name=database.name)
    await a_life(visitor(deeds(store=store, timeout=30)))


@pytest.mark.anyio
async def test_requests_at_once_lose_nothing_in_any_event_loop(visitor: New) -> None:
    store = Elsewhere()
    one = visitor(deeds(store=store))
    await one(set={"first": 0})
    async with anyio.create_task_group() as tasks:
        for number in range(50):
            tasks.start_soon(lambda number=number: one(set={f"k{number}": number}))
    assert len((await one())["data"]) == 51


@pytest.mark.anyio
async def test_a_deadline_ends_waiting_in_any_event_loop(visitor: New, caplog: Any) -> None:
    store = Elsewhere("create")
    response = await visitor(deeds(store=store, timeout=0.01)).http.post(
        "/", json={"set": {"a": 1}}
    )
    assert response.status_code == 503
    assert "create: no response within 0.01 s" in caplog.text


@pytest.mark.anyio
async def test_a_logout_happens_though_a_scope_is_cancelled(visitor: New) -> None:
    store = Elsewhere("delete")
    one = visitor(deeds(store=store))
    await one(set={"a": 1})
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lambda: one(do="destroy"))
        await store.is_held.wait()
        tasks.cancel_scope.cancel()
        store.go.set()
    with anyio.fail_after(5):
        while len(store.store):
            await anyio.lowlevel.checkpoint()


@pytest.mark.anyio
@pytest.mark.parametrize("is_given", [False, True])
async def test_a_turn_goes_past_one_whose_scope_was_cancelled(is_given: bool) -> None:
    turns = Turns()
    first = await turns.enter("a")

    async def follow() -> None:
        (await turns.enter("a")).end()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(follow)
        await anyio.wait_all_tasks_blocked()
        if is_given:
            first.end()  # and it has not noticed yet
        tasks.cancel_scope.cancel()
    if not is_given:
        first.end()
    assert len(turns) == 0


# -------------------------------------------------------------------- several of them ----


def test_every_test_client_has_an_event_loop_of_its_own(
    database: Database, anyio_backend: Any
) -> None:
    application = deeds(store=database.store(), timeout=30)
    for _ in range(2):
        # The second one during the first one's life, the third after it: each has a separate loop.
        with TestClient(application, backend=anyio_backend) as one:
            assert one.post("/", json={"set": {"a": 1}}).status_code == 200
            with TestClient(application, backend=anyio_backend, cookies=one.cookies) as other:
                assert other.post("/").json()["data"] == {"a": 1}
    # Without `with`, each request has a separate loop.
    single = TestClient(application, backend=anyio_backend)
    for number in range(3):
        data = single.post("/", json={"set": {"n": number}}).json()["data"]
        assert data == ({"n": number - 1} if number else {})


def test_a_client_is_closed_when_its_event_loop_ends(database: Database) -> None:
    store = database.store()
    application = deeds(store=store, timeout=30)
    for _ in range(3):
        assert TestClient(application).post("/", json={"set": {"a": 1}}).status_code == 200
        asyncio.run(database.are_closed())
    assert store._clients._own._own == {}  # type: ignore[union-attr]


def test_a_client_of_a_loop_that_was_only_closed_is_forgotten() -> None:
    clients = MongoStore("mongodb://127.0.0.1:9")._clients
    for _ in range(3):
        loop = asyncio.new_event_loop()
        loop.run_until_complete(clients.sessions())
        loop.close()
        assert len(clients._own._own) == 1  # type: ignore[union-attr]


def test_a_client_in_another_event_loop_is_told_of(database: Database, caplog: Any) -> None:
    client = AsyncMongoClient[Any](database.uri)
    application = deeds(store=MongoStore(client, db_name=database.name), timeout=30)

    async def first() -> None:
        one = Visitor(application)
        await one(set={"a": 1})
        await one.http.aclose()

    asyncio.run(first())
    assert TestClient(application).post("/", json={"set": {"a": 1}}).status_code == 503
    assert "belongs to another event loop: give the store the URI" in caplog.text
    caplog.clear()
    other = TestClient(application, backend="trio")
    assert other.post("/", json={"set": {"a": 1}}).status_code == 503
    assert "an AsyncMongoClient needs asyncio: give the store the URI" in caplog.text
