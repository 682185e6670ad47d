"""Sessions in PostgreSQL, in the table of connect-pg-simple.

A row is `(sid, sess json, expire timestamp)`; Node applications can share them. Needs the extra
`edge-session[postgres]`.
"""

import asyncio
import random
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from types import SimpleNamespace
from typing import Any, Literal, NamedTuple, TypeAlias, cast

from psycopg import Error, InterfaceError, OperationalError
from psycopg.conninfo import conninfo_to_dict
from psycopg.errors import DuplicateObject, DuplicateTable, UniqueViolation
from psycopg.rows import tuple_row
from psycopg.sql import SQL, Composed, Identifier
from psycopg.sql import Literal as Constant
from psycopg_pool import AsyncConnectionPool, ConnectionPool, PoolTimeout

from ._clients import OwnClients, in_thread
from ._loops import asyncio_loop
from .options import OptionsError, Problem
from .store import Changed, Content, Stored, StoreError, now

_Pool: TypeAlias = "AsyncConnectionPool[Any] | ConnectionPool[Any]"
_Rows: TypeAlias = Sequence[tuple[Any, ...]]
_Values: TypeAlias = Sequence[Any] | Mapping[str, Any]

#: Another process has created the same at the same time.
_CREATED_MEANWHILE = (UniqueViolation, DuplicateTable, DuplicateObject)

#: The most expired sessions that are deleted at once: a request waits for it.
_PRUNED = 1000

#: What to say of the server's codes (appendix A of PostgreSQL's documentation).
_FAILURES = {
    "28P01": "PostgreSQL refuses the user or the password",
    "28000": "PostgreSQL refuses the user or the password",
    "3D000": "PostgreSQL does not have the database in the address",
    "42P01": "PostgreSQL has no such table: create it, or set create_table to True",
    "42501": "the PostgreSQL user may not do this: grant it SELECT, INSERT, UPDATE and DELETE on "
    "the table of sessions",
    # Columns, their types, a missing primary key (`ON CONFLICT` needs it), further columns.
    **dict.fromkeys(
        ("42703", "42804", "42846", "42883", "42P10", "23502"),
        "PostgreSQL's table of sessions has other columns than connect-pg-simple's",
    ),
    "25006": "this PostgreSQL server is read-only: the address must name the primary",
    "53100": "PostgreSQL's disk is full",
    "53300": "PostgreSQL has no connection left",
    "57P01": "PostgreSQL is shutting down",
    "57P03": "PostgreSQL is starting up, or recovers",
}

#: The server's codes for texts that it can never store.
_REFUSALS = {"22P02", "22P05", "22021", "22001", "54000"}


class _LoopPool(AsyncConnectionPool[Any]):
    """A pool whose workers end when the event loop does.

    psycopg_pool's take the cancellation of an attempt to connect for its failure, and continue: the
    loop would wait for them for ever.
    """

    @classmethod
    async def worker(cls, q: Any) -> None:
        task = asyncio.current_task()

        async def get() -> Any:
            if task and task.cancelling():
                raise asyncio.CancelledError
            return await q.get()

        await super().worker(cast(Any, SimpleNamespace(get=get)))


class _Statements(NamedTuple):
    load: Composed
    create: Composed
    upsert: Composed
    replace: Composed
    touch: Composed
    delete: Composed
    delete_if: Composed
    prune: Composed
    exists: Composed
    table: Composed
    table_index: Composed


class PostgresStore:
    """Sessions in PostgreSQL. Acknowledged writes are on the server's disk, unless its
    `synchronous_commit` is off.

    - `client`: a `postgres://` URL, or an open pool of the application in autocommit mode: a
      `psycopg_pool.AsyncConnectionPool`, in the event loop that it belongs to, or a
      `psycopg_pool.ConnectionPool`, which is called in threads.
    - `schema`, `table`, `create_table`, `disable_touch`: connect-pg-simple's options.
    - `prune_interval`: how often expired sessions are deleted, in seconds, give or take a half;
      None: never. A request that creates a session does it, at most a thousand at once.
    - `connections`: the most connections to the server, with a URL.

    With a URL, each asyncio event loop has its own pool, which is closed when the loop ends; on
    trio, there is one that is called in threads.
    """

    def __init__(
        self,
        client: "str | AsyncConnectionPool[Any] | ConnectionPool[Any]",
        *,
        schema: str | None = None,
        table: str = "session",
        create_table: bool = False,
        prune_interval: float | None = 900,
        disable_touch: bool = False,
        connections: int = 10,
    ) -> None:
        self._given: _Pool | None = None
        if isinstance(client, str):
            url = client
            settings = _settings(url)
            self._own: OwnClients[_Pool] = OwnClients(
                lambda: _open(_LoopPool, url, settings, connections),
                lambda: _open(ConnectionPool, url, settings, connections),
                _close,
            )
        else:
            self._given = client
        self._sql = _statements([*filter(None, (schema, table))], f"IDX_{table}_expire")
        self._needs_table = create_table
        self._disable_touch = disable_touch
        self._prune_interval = prune_interval
        self._next_prune = self._later()

    async def close(self) -> None:
        """Closes the connections; with a URL, those of the running event loop."""
        if self._given is None:
            await self._own.close()
        else:
            await _close(self._given)

    async def load(self, id: str) -> Stored | None:
        # No text of PostgreSQL has this character.
        if "\0" in id:
            return None
        values = (id, now() / 1000)
        try:
            rows = await self._run(self._sql.load, values)
        except _Closed:
            # The server may have been restarted since the last request.
            rows = await self._run(self._sql.load, values)
        if not rows:
            return None
        data, expires = rows[0]
        return Stored(data, None if expires is None else int(expires))

    async def create(self, id: str, content: Content) -> Literal["done", "taken"]:
        await self._prune()
        values = (id, content.data, _expiry(content.expires), now() / 1000)
        return "done" if await self._run(self._sql.create, values) else "taken"

    async def replace(self, id: str, content: Content, expected: str | None) -> Changed:
        expires = _expiry(content.expires)
        if expected is None:
            await self._run(self._sql.upsert, (id, content.data, expires))
            return "done"
        values = (content.data, expires, id, now() / 1000, expected)
        if await self._run(self._sql.replace, values):
            return "done"
        return await self.load(id) or "missing"

    async def touch(self, id: str, expires: int) -> Changed:
        if self._disable_touch:
            return "done"
        values = (_expiry(expires), id, now() / 1000)
        return "done" if await self._run(self._sql.touch, values) else "missing"

    async def delete(self, id: str, expected: str | None) -> Changed:
        if expected is None:
            rows = await self._run(self._sql.delete, (id, now() / 1000))
            return "done" if rows and rows[0][0] else "missing"
        if await self._run(self._sql.delete_if, (id, now() / 1000, expected)):
            return "done"
        return await self.load(id) or "missing"

    def _later(self) -> float:
        """Returns when to prune next: many processes should not do it at once."""
        interval = self._prune_interval
        return (
            float("inf") if interval is None else now() + interval * 1000 * random.uniform(0.5, 1.5)
        )

    async def _prune(self) -> None:
        if now() < self._next_prune:
            return
        self._next_prune = self._later()
        limits = {"now": now() / 1000, "most": _PRUNED}
        if len(await self._run(self._sql.prune, limits)) == _PRUNED:
            # There are more: the next request continues.
            self._next_prune = 0

    async def _run(self, statement: Composed, values: _Values) -> _Rows:
        """Runs a statement and returns its rows. Each changed row is one."""
        pool = self._given or await self._own.get()
        with _store_errors():
            if isinstance(pool, ConnectionPool):
                return cast(_Rows, await in_thread(_in_thread, pool, self, statement, values))
            if asyncio_loop() is None:
                raise StoreError(
                    "an AsyncConnectionPool needs asyncio: give the store the URL, or a "
                    "ConnectionPool"
                )
            async with _connection(pool) as connection:
                cursor = connection.cursor(row_factory=tuple_row)
                if self._needs_table:
                    await cursor.execute(self._sql.exists)
                    if await cursor.fetchone() == (None,):
                        for create in (self._sql.table, self._sql.table_index):
                            with suppress(*_CREATED_MEANWHILE):
                                await cursor.execute(create)
                    self._needs_table = False
                await cursor.execute(statement, values)
                return cast(_Rows, await cursor.fetchall())


def _in_thread(pool: Any, store: PostgresStore, statement: Composed, values: _Values) -> _Rows:
    pool.open()
    with pool.connection() as connection:
        cursor = connection.cursor(row_factory=tuple_row)
        if store._needs_table:
            if cursor.execute(store._sql.exists).fetchone() == (None,):
                for create in (store._sql.table, store._sql.table_index):
                    with suppress(*_CREATED_MEANWHILE):
                        cursor.execute(create)
            store._needs_table = False
        return cast(_Rows, cursor.execute(statement, values).fetchall())


@asynccontextmanager
async def _connection(pool: AsyncConnectionPool[Any]) -> AsyncIterator[Any]:
    if pool.closed:
        # One of the store's own, which is opened in the event loop.
        await pool.open()
    async with pool.connection() as connection:
        yield connection


def _settings(url: str) -> dict[str, Any]:
    """Checks a URL and returns defaults for the settings that it does not have."""
    try:
        given = conninfo_to_dict(url)
    except Error as error:
        message = "is no postgres:// URL: postgres://USER:PASSWORD@HOST:PORT/DATABASE"
        # The library's text may quote a part of the URL.
        raise OptionsError([Problem("client", message)]) from error
    ours = {
        "connect_timeout": 2,
        "application_name": "edge-session",
        "client_encoding": "utf8",
        # A server that has vanished is noticed in seconds, also by a thread that waits for it.
        "tcp_user_timeout": 5000,
        "keepalives_idle": 5,
        "keepalives_interval": 1,
        "keepalives_count": 3,
    }
    return {name: value for name, value in ours.items() if name not in given}


def _open(kind: Any, url: str, settings: dict[str, Any], connections: int) -> Any:
    # Without prepared statements, PgBouncer may be in its transaction mode.
    settings = {**settings, "autocommit": True, "prepare_threshold": None}
    return kind(
        url,
        kwargs=settings,
        min_size=0,
        max_size=connections,
        timeout=2.0,
        # The next request tries again, however long the server was away.
        reconnect_timeout=0.0,
        open=False,
        num_workers=1,
    )


async def _close(pool: _Pool) -> None:
    if isinstance(pool, ConnectionPool):
        await in_thread(pool.close)
    else:
        await pool.close()


def _statements(names: Sequence[str], index: str) -> _Statements:
    """The column `expire` has no time zone: the server's `TimeZone` decides, as in
    connect-pg-simple."""
    texts = {
        # `infinity` is no number.
        "load": "SELECT sess::text, CASE WHEN isfinite(expire) "
        "THEN extract(epoch FROM expire::timestamptz) * 1000 END FROM {} "
        "WHERE sid = %s AND expire > to_timestamp(%s)",
        # An expired session may not have been pruned yet.
        "create": "INSERT INTO {} AS it (sid, sess, expire) VALUES (%s, %s, to_timestamp(%s)) "
        "ON CONFLICT (sid) DO UPDATE SET sess = excluded.sess, expire = excluded.expire "
        "WHERE it.expire <= to_timestamp(%s) RETURNING 1",
        "upsert": "INSERT INTO {} (sid, sess, expire) VALUES (%s, %s, to_timestamp(%s)) "
        "ON CONFLICT (sid) DO UPDATE SET sess = excluded.sess, expire = excluded.expire "
        "RETURNING 1",
        "replace": "UPDATE {} SET sess = %s, expire = to_timestamp(%s) "
        "WHERE sid = %s AND expire > to_timestamp(%s) AND sess::text = %s RETURNING 1",
        "touch": "UPDATE {} SET expire = to_timestamp(%s) "
        "WHERE sid = %s AND expire > to_timestamp(%s) RETURNING 1",
        "delete": "DELETE FROM {} WHERE sid = %s RETURNING expire > to_timestamp(%s)",
        "delete_if": "DELETE FROM {} WHERE sid = %s AND expire > to_timestamp(%s) "
        "AND sess::text = %s RETURNING 1",
        # The time is compared again after waiting for a row: it may have been touched.
        "prune": "DELETE FROM {0} WHERE sid IN (SELECT sid FROM {0} "
        "WHERE expire < to_timestamp(%(now)s) LIMIT %(most)s) "
        "AND expire < to_timestamp(%(now)s) RETURNING 1",
    }
    # Where a statement has parameters, psycopg looks for them in the table's name, too.
    escaped = Identifier(*(part.replace("%", "%%") for part in names))
    composed = {name: SQL(cast(Any, text)).format(escaped) for name, text in texts.items()}
    table = Identifier(*names)
    composed["exists"] = SQL("SELECT to_regclass({})").format(Constant(table.as_string()))
    composed["table"] = SQL(
        'CREATE TABLE IF NOT EXISTS {} (sid varchar NOT NULL COLLATE "default" PRIMARY KEY, '
        "sess json NOT NULL, expire timestamp(6) NOT NULL)"
    ).format(table)
    composed["table_index"] = SQL("CREATE INDEX IF NOT EXISTS {} ON {} (expire)").format(
        Identifier(index), table
    )
    return _Statements(**composed)


def _expiry(expires: int) -> float:
    """Returns the whole second in which a session expires, as connect-pg-simple rounds it."""
    return float(-(-expires // 1000))


class _Closed(StoreError):
    """The server has closed the connection."""


@contextmanager
def _store_errors() -> Iterator[None]:
    """Replaces the client's and the server's messages, which may contain a password or a key."""
    try:
        yield
    except PoolTimeout as error:
        raise StoreError("PostgreSQL cannot be reached, or all connections are in use") from error
    except Error as error:
        code = error.sqlstate
        if code in _REFUSALS:
            raise StoreError(
                "PostgreSQL cannot store this session: a column of the type jsonb, or the "
                "database's encoding, does not have all of its characters, or it is too large",
                refused=True,
            ) from error
        if code in _FAILURES:
            raise StoreError(_FAILURES[code]) from error
        if code is None and isinstance(error, OperationalError | InterfaceError):
            raise _Closed("PostgreSQL cannot be reached, or closed the connection") from error
        raise StoreError(f"PostgreSQL failed: {code or type(error).__name__}") from error
