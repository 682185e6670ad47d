"""Sessions in Redis or Valkey, in the keys and values of connect-redis.

A key is the prefix and the identifier, its value is the session's JSON text; Node applications can
share them. The server expires them, in whole seconds. Needs the extra `edge-session[redis]`.
"""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeAlias, cast

from redis import Redis, RedisCluster
from redis.asyncio import Redis as AsyncRedis
from redis.asyncio import RedisCluster as AsyncRedisCluster
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    ConnectionError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    TimeoutError,
)
from redis.retry import Retry

from ._clients import OwnClients, in_thread
from ._loops import asyncio_loop
from .options import OptionsError, Problem
from .store import Changed, Content, Stored, StoreError, now

_Client: TypeAlias = "AsyncRedis | AsyncRedisCluster | Redis | RedisCluster"

#: Clients that are called in threads.
_IN_THREADS = (Redis, RedisCluster)

#: What `PTTL` returns for a key without an expiry.
_PERMANENT = -1

#: Runs a command on a key if its value is the expected one, and returns the value otherwise. ARGV:
#: expected, the command, what follows the key in it.
_IF_UNCHANGED = """
local found = redis.call('GET', KEYS[1])
if not found then return false end
if found ~= ARGV[1] then return { redis.call('PTTL', KEYS[1]), found } end
redis.call(ARGV[2], KEYS[1], unpack(ARGV, 3))
return { 0, false }"""


class RedisStore:
    """Sessions in Redis. Acknowledged writes are as durable as the server's configuration makes
    them: by default, Redis loses some of them with the server or in a fail-over.

    - `client`: a `redis://` URL (`rediss://` with TLS, `unix://PATH`), or a client of the
      application: a `redis.asyncio.Redis` or `RedisCluster`, in the event loop that it belongs to,
      or a `redis.Redis` or `RedisCluster`, which is called in threads. `Sentinel.master_for` makes
      such a client.
    - `prefix`, `disable_ttl`, `disable_touch`: connect-redis's options.

    With a URL, each asyncio event loop has its own client, which is closed when the loop ends; on
    trio, there is one that is called in threads.
    """

    def __init__(
        self,
        client: "str | AsyncRedis | AsyncRedisCluster | Redis | RedisCluster",
        *,
        prefix: str = "sess:",
        disable_ttl: bool = False,
        disable_touch: bool = False,
    ) -> None:
        self._given: _Client | None = None
        if isinstance(client, str):
            url = client
            try:
                # A wrong address is refused here, and not by the first request.
                _connect(Redis, url, Retry(NoBackoff(), 0))
            except ValueError:
                # Its text may quote a part of the password.
                message = "is no redis:// URL: redis://USER:PASSWORD@HOST:PORT/DATABASE"
                raise OptionsError([Problem("client", message)]) from None
            self._own: OwnClients[_Client] = OwnClients(
                lambda: cast(_Client, _connect(AsyncRedis, url, AsyncRetry(NoBackoff(), 0))),
                lambda: cast(_Client, _connect(Redis, url, Retry(NoBackoff(), 0))),
                _close,
            )
        else:
            self._given = client
        self._prefix = prefix
        self._disable_ttl = disable_ttl
        self._disable_touch = disable_touch

    async def close(self) -> None:
        """Closes the client's connections; with a URL, those of the running event loop."""
        if self._given is None:
            await self._own.close()
        else:
            await _close(self._given)

    async def load(self, id: str) -> Stored | None:
        client = await self._client()
        commands = client.pipeline(transaction=False)
        commands.get(self._prefix + id)
        commands.pttl(self._prefix + id)

        async def execute() -> Any:
            if isinstance(client, _IN_THREADS):
                return await in_thread(commands.execute)
            return await cast(Awaitable[Any], commands.execute())

        with _store_errors():
            try:
                data, left = await execute()
            except ConnectionError:
                # The server may have been restarted since the last request. Only reading is
                # repeated: a change may have been made.
                commands.get(self._prefix + id)
                commands.pttl(self._prefix + id)
                data, left = await execute()
        return None if data is None else _stored(data, left)

    async def create(self, id: str, content: Content) -> Literal["done", "taken"]:
        command, *rest = self._set(content)
        if command == "DEL":
            is_new = not await self._run("EXISTS", self._prefix + id)
        else:
            is_new = await self._run(command, self._prefix + id, *rest, "NX") is not None
        return "done" if is_new else "taken"

    async def replace(self, id: str, content: Content, expected: str | None) -> Changed:
        command, *rest = self._set(content)
        if expected is not None:
            return await self._if_unchanged(id, expected, command, *rest)
        await self._run(command, self._prefix + id, *rest)
        return "done"

    async def touch(self, id: str, expires: int) -> Changed:
        key = self._prefix + id
        if self._disable_touch:
            return "done"
        if self._disable_ttl:
            exists = await self._run("EXISTS", key)
        else:
            exists = await self._run("EXPIRE", key, str(max(_seconds(expires), 0)))
        return "done" if exists else "missing"

    async def delete(self, id: str, expected: str | None) -> Changed:
        if expected is not None:
            return await self._if_unchanged(id, expected, "DEL")
        return "done" if await self._run("DEL", self._prefix + id) else "missing"

    def _set(self, content: Content) -> list[str]:
        """Returns the command that stores a session, without the key. A session that is over is
        deleted."""
        left = _seconds(content.expires)
        if left <= 0:
            return ["DEL"]
        command = ["SET", content.data]
        return command if self._disable_ttl else [*command, "EX", str(left)]

    async def _if_unchanged(self, id: str, expected: str, *command: str) -> Changed:
        found = await self._run("EVAL", _IF_UNCHANGED, "1", self._prefix + id, expected, *command)
        if found is None:
            return "missing"
        left, data = found
        return "done" if data is None else _stored(data, left)

    async def _client(self) -> _Client:
        client = self._given or await self._own.get()
        if not isinstance(client, _IN_THREADS) and asyncio_loop() is None:
            raise StoreError(
                "a redis.asyncio.Redis needs asyncio: give the store the URL, or a redis.Redis"
            )
        return client

    async def _run(self, *command: str) -> Any:
        client = await self._client()
        with _store_errors():
            if isinstance(client, _IN_THREADS):
                return await in_thread(client.execute_command, *command)
            run: Callable[..., Awaitable[Any]] = client.execute_command
            return await run(*command)


def _connect(kind: Any, url: str, retry: Any) -> Any:
    # What the URL says comes first.
    return kind.from_url(
        url, socket_connect_timeout=2, socket_timeout=10, retry=retry, client_name="edge-session"
    )


async def _close(client: _Client) -> None:
    if isinstance(client, _IN_THREADS):
        await in_thread(client.close)
    else:
        await client.aclose()


def _seconds(expires: int) -> int:
    """Returns how long a session lives, as connect-redis computes it."""
    return -(-(expires - now()) // 1000)


def _stored(data: bytes | str, left: int) -> Stored:
    text = data if isinstance(data, str) else data.decode(errors="replace")
    return Stored(text, None if left == _PERMANENT else now() + left)


@contextmanager
def _store_errors() -> Iterator[None]:
    """Replaces the client's and the server's messages, which may contain a key."""
    try:
        yield
    except AuthenticationError as error:
        raise StoreError("Redis refuses the user or the password") from error
    except NoPermissionError as error:
        raise StoreError(
            "the Redis user may not do this: allow it the commands GET, SET, PTTL, EXPIRE, EXISTS, "
            "DEL and EVAL, and the keys with the prefix"
        ) from error
    except ReadOnlyError as error:
        raise StoreError(
            "this Redis server is a read-only replica: the address must name the master"
        ) from error
    except OutOfMemoryError as error:
        raise StoreError(
            "Redis is full (OOM): raise its maxmemory, or let it evict keys (maxmemory-policy)"
        ) from error
    except TimeoutError as error:
        raise StoreError("Redis did not reply in time") from error
    except ConnectionError as error:
        raise StoreError("Redis cannot be reached, or closed the connection") from error
    except RedisError as error:
        code = str(error).split(" ", 1)[0]
        if "can't run" in str(error) and "script" in str(error):
            code = "NOPERM"
        shown = code if code.isupper() and code.isalpha() else type(error).__name__
        raise StoreError(f"Redis failed: {shown}") from error
    except RuntimeError as error:
        if "event loop" not in str(error):
            raise
        raise StoreError(
            "the redis.asyncio.Redis belongs to another event loop: give the store the URL"
        ) from error
