"""The requirements for every store, and MongoDB's documents."""

import asyncio
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from conftest import Visitor, deeds
from psycopg_pool import AsyncConnectionPool
from pymongo import AsyncMongoClient
from pymongo.errors import OperationFailure
from redis import RedisCluster
from redis.asyncio import RedisCluster as AsyncRedisCluster
from redis.asyncio import Sentinel

from edge_session import (
    Content,
    MemoryStore,
    OptionsError,
    Store,
    Stored,
    StoreError,
    conformance,
    mongodb,
)
from edge_session.mongodb import MongoStore
from edge_session.postgres import PostgresStore
from edge_session.redis import RedisStore

pytestmark = pytest.mark.anyio

LATER = 4_102_444_800_000  # the year 2100


@pytest.fixture
async def database() -> AsyncIterator[Any]:
    if not (uri := os.environ.get("MONGODB_URI")):
        pytest.skip("needs a MongoDB: set MONGODB_URI")
    async with AsyncMongoClient[Any](uri) as client:
        name = f"edge-session-python-{secrets.token_hex(6)}"
        yield client[name]
        await client.drop_database(name)


@pytest.fixture(params=["memory", "mongodb", "redis", "postgres"])
def store(request: pytest.FixtureRequest) -> Store:
    match request.param:
        case "memory":
            return MemoryStore()
        case "mongodb":
            database = request.getfixturevalue("database")
            return MongoStore(database.client, db_name=database.name)
        case "redis":
            return RedisStore(server("REDIS_URL"), prefix=f"python-{secrets.token_hex(6)}:")
        case _:
            table = f"python %s-{secrets.token_hex(6)}"
            return PostgresStore(server("POSTGRES_URL"), table=table, create_table=True)


def server(variable: str) -> str:
    if not (url := os.environ.get(variable)):
        pytest.skip(f"needs a server: set {variable}")
    return url


async def test_a_store_keeps_every_promise(store: Store) -> None:
    await conformance.check(store)


class FoldsCase(MemoryStore):
    def _live(self, id: str) -> Stored | None:
        return super()._live(id.lower())

    def _put(self, id: str, content: Content) -> None:
        super()._put(id.lower(), content)


class TrimsSpaces(MemoryStore):
    def _live(self, id: str) -> Stored | None:
        return super()._live(id.strip())

    def _put(self, id: str, content: Content) -> None:
        super()._put(id.strip(), content)


class KeepsExpiry(MemoryStore):
    async def replace(self, id: str, content: Content, expected: str | None) -> Any:
        old = await self.load(id)
        expires = old.expires if old and old.expires else content.expires
        return await super().replace(id, Content(content.data, expires), expected)


class CreatesInTwoSteps(MemoryStore):
    async def create(self, id: str, content: Content) -> Any:
        if await self.load(id):
            return "taken"
        await asyncio.sleep(0)
        return await self.replace(id, content, None)


class ReplacesInTwoSteps(MemoryStore):
    async def replace(self, id: str, content: Content, expected: str | None) -> Any:
        old = await self.load(id)
        await asyncio.sleep(0)
        if expected is None or (old and old.data == expected):
            return await super().replace(id, content, None)
        return old or "missing"


class DeletesInTwoSteps(MemoryStore):
    async def delete(self, id: str, expected: str | None) -> Any:
        old = await self.load(id)
        if expected is None or old is None or old.data != expected:
            return await super().delete(id, expected)
        await asyncio.sleep(0)
        await super().delete(id, None)
        return "done"


class TouchesInTwoSteps(MemoryStore):
    async def touch(self, id: str, expires: int) -> Any:
        old = await self.load(id)
        await asyncio.sleep(0)
        return await self.replace(id, Content(old.data, expires), None) if old else "missing"


class DeletesWhatHasExpired(MemoryStore):
    async def delete(self, id: str, expected: str | None) -> Any:
        deleted = await super().delete(id, expected)
        return "done" if expected is None else deleted


@pytest.mark.parametrize(
    "store",
    [
        FoldsCase,
        TrimsSpaces,
        KeepsExpiry,
        CreatesInTwoSteps,
        ReplacesInTwoSteps,
        DeletesInTwoSteps,
        TouchesInTwoSteps,
        DeletesWhatHasExpired,
    ],
)
async def test_a_flawed_store_breaks_a_promise(store: Callable[[], Store]) -> None:
    with pytest.raises(AssertionError):
        await conformance.check(store())


@pytest.mark.parametrize("store", ["redis", "postgres"], indirect=True)
@pytest.mark.parametrize("anyio_backend", ["trio"])
async def test_a_store_keeps_every_promise_on_trio(store: Any, anyio_backend: str) -> None:
    await conformance.check(store)
    await store.close()


@pytest.mark.parametrize(
    ("store", "message"),
    [
        (lambda: RedisStore("redis://:hunter2@127.0.0.1:1"), "Redis cannot be reached"),
        (
            lambda: PostgresStore("postgres://a:hunter2@127.0.0.1:1/b"),
            "PostgreSQL cannot be reached",
        ),
    ],
)
async def test_a_server_that_is_not_there_is_told_without_the_password(
    store: Callable[[], Store], message: str
) -> None:
    with pytest.raises(StoreError, match=message) as raised:
        await store().load("a")
    assert "hunter2" not in str(raised.value)


async def test_an_identifier_that_postgresql_cannot_have_is_unknown() -> None:
    table = f"python-{secrets.token_hex(6)}"
    store = PostgresStore(server("POSTGRES_URL"), table=table, create_table=True)
    assert await store.load("a\0b") is None
    await store.close()


@pytest.fixture
def redis_servers() -> Iterator[Callable[[str], list[str]]]:
    """Returns a function that starts servers by scripts/redis and returns their addresses."""
    server("REDIS_URL")
    script = Path(__file__).parents[3] / "scripts/redis"
    with TemporaryDirectory(
        prefix="python-redis-",
        dir=os.environ.get("EDGE_SESSION_TEST_DIR"),
        ignore_cleanup_errors=True,
    ) as folder:

        def start(what: str) -> list[str]:
            command = [script, what, folder]
            url = subprocess.check_output(command, stdin=subprocess.DEVNULL, text=True).strip()
            return url.partition("://")[2].partition("/")[0].split(",")

        try:
            yield start
        finally:
            for pid in Path(folder).glob("*/pid"):
                os.kill(int(pid.read_text()), signal.SIGKILL)


async def test_the_redis_store_keeps_every_promise_in_a_cluster(redis_servers: Any) -> None:
    host, port = redis_servers("start-cluster")[0].split(":")
    async with AsyncRedisCluster(host=host, port=int(port)) as client:
        await conformance.check(RedisStore(client))
    with RedisCluster(host=host, port=int(port)) as in_threads:
        await conformance.check(RedisStore(in_threads, prefix="in-threads:"))


async def test_the_redis_store_keeps_every_promise_with_sentinels(redis_servers: Any) -> None:
    servers = [address.split(":") for address in redis_servers("start-sentinels")]
    sentinel = Sentinel([(host, int(port)) for host, port in servers])
    async with sentinel.master_for("edge") as client:
        await conformance.check(RedisStore(client))


@pytest.mark.parametrize("url", ["redis//a", "http://a", "redis://a:port", "redis://:hunter2/b@a"])
def test_what_is_no_address_of_redis_is_refused(url: str) -> None:
    with pytest.raises(OptionsError, match=r"client: is no redis:// URL") as raised:
        RedisStore(url)
    assert "hunter2" not in str(raised.value)


async def test_a_change_whose_reply_is_lost_is_not_made_twice() -> None:
    asked = []

    async def serve(reader: Any, writer: Any) -> None:
        while line := await reader.readline():
            words = [await reader.readline() for _ in range(2 * int(line[1:]))][1::2]
            asked.append(words[0])
            if words[0].strip() in (b"SET", b"DEL", b"EVAL"):
                return writer.close()  # type: ignore[no-any-return]
            writer.write(b"+OK\r\n")

    redis = await asyncio.start_server(serve, "127.0.0.1", 0)
    store = RedisStore(f"redis://127.0.0.1:{redis.sockets[0].getsockname()[1]}?protocol=2")
    content = Content("{}", LATER)
    for change in (
        store.create("a", content),
        store.replace("a", content, None),
        store.replace("a", content, "{}"),
        store.delete("a", None),
    ):
        asked.clear()
        with pytest.raises(StoreError, match="Redis cannot be reached, or closed the connection"):
            await change
        changes = [word for word in asked if word.strip() in (b"SET", b"DEL", b"EVAL")]
        assert len(changes) == 1
    await store.close()
    redis.close()


@pytest.mark.parametrize(
    "store",
    [
        "edge_session.postgres.PostgresStore('postgres://a:b@127.0.0.1:{}/c')",
        "edge_session.redis.RedisStore('redis://127.0.0.1:{}')",
        "edge_session.mongodb.MongoStore('mongodb://127.0.0.1:{}/')",
    ],
)
async def test_a_program_ends_while_a_connection_is_being_opened(store: str) -> None:
    silent = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    program = f"""
import asyncio, contextlib
import edge_session.mongodb, edge_session.postgres, edge_session.redis

async def main():
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(store.load("a"), 0.2)

store = {store.format(silent.sockets[0].getsockname()[1])}
asyncio.run(main())
"""
    running = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    )
    try:
        assert await asyncio.wait_for(running.wait(), 20) == 0
    finally:
        with suppress(ProcessLookupError):
            running.kill()
        silent.close()


async def run(sql: str) -> None:
    pool: Any = AsyncConnectionPool(server("POSTGRES_URL"), open=False)
    async with pool, pool.connection() as connection:
        await connection.execute(sql)


async def test_several_requests_create_one_table() -> None:
    table = f"python-{secrets.token_hex(6)}"
    stores = [
        PostgresStore(server("POSTGRES_URL"), table=table, create_table=True) for _ in range(4)
    ]
    loads = (store.load("a") for store in stores for _ in range(4))
    assert set(await asyncio.gather(*loads)) == {None}


async def test_a_user_who_may_not_create_tables_uses_the_one_that_is_there() -> None:
    name = f"python_{secrets.token_hex(6)}"
    first = PostgresStore(server("POSTGRES_URL"), table=name, create_table=True)
    await first.create("a", Content("{}", LATER))
    await run(f"CREATE USER {name} PASSWORD 'app'")
    await run(f"GRANT SELECT, INSERT, UPDATE, DELETE ON {name} TO {name}")
    url = server("POSTGRES_URL").replace("edge:edge@", f"{name}:app@")
    store = PostgresStore(url, table=name, create_table=True)
    assert await store.load("a") == Stored("{}", LATER)
    # What never expires.
    await run(f"UPDATE {name} SET expire = 'infinity'")
    assert await store.load("a") == Stored("{}", None)


async def test_pruning_spares_a_session_that_is_touched_meanwhile() -> None:
    table = f"python_{secrets.token_hex(6)}"
    url = server("POSTGRES_URL")
    first = PostgresStore(url, table=table, create_table=True)
    await first.create("a", Content("{}", 1000))
    pool: Any = AsyncConnectionPool(url, open=False)
    async with pool, pool.connection() as connection:
        await connection.execute(f"UPDATE {table} SET expire = '2100-01-01'")
        pruning = asyncio.create_task(PostgresStore(url, table=table, prune_interval=0)._prune())
        waiting = (
            f"SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'DELETE FROM \"{table}%' "
        )
        for _ in range(500):
            # Within a transaction, the activity does not change.
            async with pool.connection() as other:
                cursor = await other.execute(waiting + "AND wait_event_type = 'Lock'")
                count = (await cursor.fetchone())[0]
            if count:
                break
            await asyncio.sleep(0.01)
        else:
            pytest.fail("it does not wait")
        await connection.commit()
        await pruning
    assert await first.load("a") is not None


def test_what_is_no_address_of_postgresql_is_refused() -> None:
    with pytest.raises(OptionsError, match=r"client: is no postgres:// URL"):
        PostgresStore("postgres://a:hunter2@b/c?frobnicate=1")


async def test_what_jsonb_does_not_have_is_refused(store: Store) -> None:
    if not isinstance(store, PostgresStore):
        return
    pool: Any = AsyncConnectionPool(server("POSTGRES_URL"), open=False)
    async with pool, pool.connection() as connection:
        await connection.execute("CREATE TABLE IF NOT EXISTS jsonb (sid varchar PRIMARY KEY)")
        await connection.execute("ALTER TABLE jsonb ADD COLUMN IF NOT EXISTS sess jsonb")
        await connection.execute("ALTER TABLE jsonb ADD COLUMN IF NOT EXISTS expire timestamp(6)")
    other = PostgresStore(server("POSTGRES_URL"), table="jsonb")
    with pytest.raises(StoreError) as raised:
        await other.replace("a", Content('{"a":"\\u0000"}', LATER), None)
    assert raised.value.refused


async def test_parallel_requests_merge(store: Store, visitor: Callable[..., Visitor]) -> None:
    one = visitor(deeds(store=store, timeout=30))
    await one(set={"start": 1})
    await asyncio.gather(*(one(set={f"k{n}": n}) for n in range(64)))
    assert (await one())["data"] == {"start": 1, **{f"k{n}": n for n in range(64)}}


async def test_a_logout_beside_changes_stays_a_logout(
    store: Store, visitor: Callable[..., Visitor]
) -> None:
    one = visitor(deeds(store=store, timeout=30))
    id = (await one(set={"start": 1}))["id"]
    cookie = one.http.cookies["connect.sid"]
    changes = [one(set={f"k{n}": n}) for n in range(16)]
    await asyncio.gather(*changes, one(do="destroy"), *(one(set={"late": n}) for n in range(16)))
    assert await store.load(id) is None
    one.http.cookies.clear()
    one.http.cookies.set("connect.sid", cookie)
    assert (await one())["data"] == {}


async def test_the_memory_store_is_bounded() -> None:
    store = MemoryStore(max_bytes=100_000)
    for number in range(1000):
        await store.create(str(number), Content("x" * 1000, LATER))
        await store.load("0")
    assert 50 < len(store) < 100 and store._bytes <= 100_000
    assert await store.load("0") and await store.load("999")
    assert await store.load("1") is None
    with pytest.raises(StoreError):
        await store.create("large", Content("x" * 100_000, LATER))
    while store._sessions:
        await store.delete(next(iter(store._sessions)), None)
    assert store._bytes == 0


async def test_expired_sessions_leave_memory() -> None:
    store = MemoryStore()
    for number in range(100):
        await store.create(str(number), Content("x", 1))
    await store.create("a", Content("x", LATER))
    for _ in range(100):
        await store.replace("a", Content("y", LATER), None)
    assert len(store) == 1


# ---------------------------------------------------------------------- MongoDB ----


async def test_documents_are_connect_mongos(database: Any, visitor: Callable[..., Visitor]) -> None:
    sessions = database["sessions"]
    store = MongoStore(database.client, db_name=database.name)
    one = visitor(deeds(store=store))
    id = (await one(set={"viewCount": 1}))["id"]
    cookie = (
        '{"originalMaxAge":null,"expires":null,"secure":false,"httpOnly":true,'
        '"path":"/","sameSite":"lax"}'
    )
    (document,) = await sessions.find().to_list()
    expires = document.pop("expires")
    assert document == {"_id": id, "session": f'{{"cookie":{cookie},"viewCount":1}}'}
    assert isinstance(expires, datetime)
    two_weeks = datetime.now(UTC).replace(tzinfo=None) + timedelta(days=14)
    assert abs(expires - two_weeks) < timedelta(seconds=10)

    indexes = await sessions.index_information()
    assert indexes["expires_1"]["key"] == [("expires", 1)]
    assert indexes["expires_1"]["expireAfterSeconds"] == 0

    assert (await one(set={"viewCount": 2}))["data"] == {"viewCount": 1}
    (document,) = await sessions.find().to_list()
    assert list(document) == ["_id", "expires", "session"]
    assert document["session"] == f'{{"cookie":{cookie},"viewCount":2}}'
    await one(do="destroy")
    assert await sessions.count_documents({}) == 0


async def test_documents_of_connect_mongos_are_read(
    database: Any, visitor: Callable[..., Visitor]
) -> None:
    from test_lifecycle import signed

    text = '{"cookie":{"originalMaxAge":null,"expires":null,"httpOnly":true,"path":"/"},"n":1.50}'
    # connect-mongo's upsert, and a document that never expires.
    update = {"$set": {"_id": "node", "session": text, "expires": datetime(2100, 1, 1)}}
    await database["sessions"].update_one({"_id": "node"}, update, upsert=True)
    await database["sessions"].insert_one({"_id": "endless", "session": text})
    await database["sessions"].insert_one({"_id": "other", "session": {"n": 1}})
    far = {"_id": "far", "session": text, "expires": 8_640_000_000_000_000}
    from bson.datetime_ms import DatetimeMS

    await database["sessions"].insert_one({**far, "expires": DatetimeMS(far["expires"])})
    application = deeds(store=MongoStore(database.client, db_name=database.name))
    for id, origin in {
        "node": "loaded", "endless": "loaded", "far": "loaded", "other": "damaged",
    }.items():  # fmt: skip
        one = visitor(application)
        one.http.cookies.set("connect.sid", signed(id))
        assert (await one())["origin"] == origin
    document = await database["sessions"].find_one({"_id": "node"})
    assert document["session"] == text


async def test_a_server_that_is_gone_is_503(visitor: Callable[..., Visitor], caplog: Any) -> None:
    uri = "mongodb://visitor:password@127.0.0.1:9/app?serverSelectionTimeoutMS=200"
    store = MongoStore(uri)
    one = visitor(deeds(store=store))
    response = await one.http.post("/", json={"set": {"a": 1}})
    assert response.status_code == 503
    assert "create: no MongoDB server can be reached" in caplog.text
    assert "password" not in caplog.text
    await store.close()


async def test_a_server_that_hangs_is_503(visitor: Callable[..., Visitor], caplog: Any) -> None:
    async def silent(reader: Any, writer: Any) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    store = MongoStore(f"mongodb://127.0.0.1:{port}/app")
    one = visitor(deeds(store=store, timeout=0.2))
    response = await one.http.post("/", json={"set": {"a": 1}})
    assert response.status_code == 503
    assert "create: no response within 0.2 s" in caplog.text
    await store.close()
    server.close()


async def test_what_is_too_large_for_mongodb_is_refused(database: Any) -> None:
    store = MongoStore(database.client, db_name=database.name)
    large = Content("x" * (16 << 20), LATER)
    await store.create("b", Content("small", LATER))
    for write in (store.create("a", large), store.replace("b", large, "small")):
        with pytest.raises(StoreError) as raised:
            await write
        assert raised.value.refused


# --------------------------------------------------------- what MongoDB does not allow ----


async def created(database: Any, caplog: Any, **settings: Any) -> str:
    """Returns the log while the first session is stored, and while the second one is."""
    caplog.clear()
    store = MongoStore(database.client, db_name=database.name, **settings)
    for id in ("a", "b"):
        assert await store.create(id, Content("{}", LATER)) == "done"
        assert await store.load(id) == Stored("{}", LATER)
    assert caplog.text.count("auto_remove") <= 1
    text: str = caplog.text
    return text


async def test_an_equal_index_of_another_name_will_do(database: Any, caplog: Any) -> None:
    await database["sessions"].create_index([("expires", 1)], expireAfterSeconds=0, name="other")
    assert await created(database, caplog) == ""


@pytest.mark.parametrize(
    ("options", "effect"),
    [
        ({"expireAfterSeconds": 3600}, "removes sessions 3600 s after they have expired"),
        ({}, "does not remove expired sessions"),
    ],
)
async def test_an_index_with_other_options_is_told_of(
    database: Any, caplog: Any, options: Any, effect: str
) -> None:
    await database["sessions"].create_index([("expires", 1)], name="its", **options)
    text = await created(database, caplog)
    assert f"collection sessions: its index its {effect}. Drop the index" in text
    assert "set auto_remove to 'disabled'" in text


async def test_a_capped_collection_is_told_of(database: Any, caplog: Any) -> None:
    await database.create_collection("few", capped=True, size=100_000)
    text = await created(database, caplog, collection="few")
    assert "collection few: the index that removes expired sessions was not created" in text
    assert "The collection is capped and also drops live sessions" in text


async def test_a_session_that_is_removed_while_its_identifier_is_taken_again_leaves_it_free(
    database: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = MongoStore(database.client, db_name=database.name)
    await store.replace("a", Content("{}", 1), None)
    sessions = type(database["sessions"])
    replace_one = sessions.replace_one

    async def after_a_removal(self: Any, *args: Any, **how: Any) -> Any:
        await self.delete_one({"_id": "a"})
        return await replace_one(self, *args, **how)

    monkeypatch.setattr(sessions, "replace_one", after_a_removal)
    assert await store.create("a", Content("{}", LATER)) == "done"
    monkeypatch.undo()
    assert await store.create("a", Content("{}", LATER)) == "taken"


@pytest.fixture
async def failing(database: Any) -> AsyncIterator[Any]:
    """Returns a client whose commands fail on request, and a function that requests it."""
    name = database.name

    async def fail(*commands: str, **how: Any) -> None:
        data = {"failCommands": commands, "appName": name, **how}
        point = {"configureFailPoint": "failCommand", "mode": "alwaysOn" if how else "off"}
        await database.client.admin.command({**point, "data": data})

    try:
        await fail()
    except OperationFailure:
        pytest.skip("needs a mongod with enableTestCommands")
    async with AsyncMongoClient[Any](os.environ["MONGODB_URI"], appName=name) as client:
        yield client[name], fail
        await fail()


async def test_a_user_who_may_not_make_the_index_is_told_of(failing: Any, caplog: Any) -> None:
    database, fail = failing
    await fail("createIndexes", "listIndexes", "listCollections", errorCode=13)
    text = await created(database, caplog)
    assert "was not created: Unauthorized, code 13. Grant the user createIndex" in text


async def test_nobody_waits_until_an_index_of_many_sessions_is_made(
    failing: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    database, fail = failing
    store = MongoStore(database.client, db_name=database.name)
    await fail("createIndexes", blockConnection=True, blockTimeMS=2000)
    monkeypatch.setattr(mongodb, "_INDEX_PATIENCE", 0.05)
    async with asyncio.timeout(1.8):
        assert await store.create("a", Content("{}", LATER)) == "done"
    await fail()
    monkeypatch.undo()
    assert await store.create("b", Content("{}", LATER)) == "done"
    assert "expires_1" in await database["sessions"].index_information()


async def test_no_index_is_made_where_nobody_shall_remove(database: Any, caplog: Any) -> None:
    assert await created(database, caplog, auto_remove="disabled") == ""
    assert list(await database["sessions"].index_information()) == ["_id_"]
    with pytest.raises(OptionsError, match="auto_remove: is 'interval', not one of"):
        MongoStore("mongodb://127.0.0.1", auto_remove="interval")  # type: ignore[arg-type]


async def test_a_document_that_the_collection_never_takes_is_500(
    database: Any, visitor: Callable[..., Visitor], caplog: Any
) -> None:
    await database.create_collection("sessions", validator={"user": {"$exists": True}})
    store = MongoStore(database.client, db_name=database.name)
    for preset in ("safe", "express"):
        one = visitor(deeds(store=store, options={"preset": preset}))
        response = await one.http.post("/", json={"set": {"a": 1}})
        assert response.status_code == 500
        assert "not valid to the collection's validator" in caplog.text
        caplog.clear()


# ---------------------------------------------------------------------- its options ----


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("maxPoolSize=many", "maxPoolSize is 'many': "),
        ("retryWrites=1&tls", "retryWrites is '1': |tls has no value"),
        ("w=0", "w is 0: failed writes would go unnoticed"),
        ("readPreference=near", "readPreference is 'near': "),
        ("minPoolSize=5;maxPoolSize=4", "together: minPoolSize must be smaller"),
        ("tlsCAFile=/none.pem", "tlsCAFile is '/none.pem': "),
        ("authMechanismProperties=hidden", "authMechanismProperties has an invalid value"),
    ],
)
async def test_options_of_a_uri_that_are_wrong_are_refused_by_name(
    query: str, problem: str
) -> None:
    with pytest.raises(OptionsError) as raised:
        MongoStore(f"mongodb://visitor:password@127.0.0.1/app?{query}")
    for part in problem.split("|"):
        assert part in str(raised.value)
    assert len(raised.value.problems) == len(problem.split("|"))
    assert "password" not in str(raised.value) and "hidden" not in str(raised.value)


async def test_options_of_a_uri_without_effect_are_told_by_name(
    caplog: Any, recwarn: pytest.WarningsRecorder
) -> None:
    MongoStore("mongodb://127.0.0.1/app?retryWrite=true&w=1&readPreference=nearest&appName=x")
    assert [record.getMessage() for record in caplog.records] == [
        "the MongoDB URI's option retryWrite has no effect: the driver does not know it",
        "the MongoDB URI's option readPreference has no effect: sessions are read from the primary",
    ]
    assert not recwarn.list


@pytest.mark.parametrize(
    "uri",
    [
        "http://127.0.0.1",
        "mongodb://visitor:x/711@127.0.0.1",
        "mongodb://visitor:4711@127.0.0.1:port",
        "mongodb://visitor:4?711@127.0.0.1",
        "mongodb://127.0.0.1/4 711",
    ],
)
async def test_a_uri_that_is_none_is_not_shown(uri: str) -> None:
    with pytest.raises(OptionsError, match="client: is not a valid MongoDB URI") as raised:
        MongoStore(uri)
    assert "711" not in str(raised.value) and raised.value.__context__ is None


async def test_a_client_that_does_not_hear_of_its_writes_is_refused() -> None:
    with pytest.raises(OptionsError, match="client: has the write concern w=0"):
        MongoStore(AsyncMongoClient[Any]("mongodb://127.0.0.1", w=0))
