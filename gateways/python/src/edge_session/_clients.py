"""Clients of databases, whose connections belong to an event loop or to a thread."""

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any, Generic, NamedTuple, TypeVar

from anyio import CapacityLimiter, to_thread
from anyio.lowlevel import RunVar

from ._loops import asyncio_loop

Client = TypeVar("Client")

#: The maximum time for closing a client when its event loop ends, in seconds.
_FAREWELL = 2.0

#: The maximum number of threads that call clients at once.
_THREADS = 40

_limiter: RunVar[CapacityLimiter] = RunVar("edge_session_store_threads")


async def in_thread(operation: Callable[..., Any], *args: Any, **settings: Any) -> Any:
    """Calls a function that waits, in a thread. If the caller is cancelled, the thread goes on."""
    try:
        limiter = _limiter.get()
    except LookupError:
        # Not the default limiter, because the application may use all of its threads.
        limiter = CapacityLimiter(_THREADS)
        _limiter.set(limiter)
    return await to_thread.run_sync(
        partial(operation, *args, **settings), abandon_on_cancel=True, limiter=limiter
    )


class _Own(NamedTuple):
    client: Any
    #: Only for clients of an asyncio event loop.
    lifetime: AsyncGenerator[None, None] | None


class OwnClients(Generic[Client]):
    """A client for each asyncio event loop, because connections belong to a loop, and one for all
    trio event loops."""

    def __init__(
        self,
        in_loop: Callable[[], Client],
        in_threads: Callable[[], Client],
        close: Callable[[Client], Awaitable[None]],
    ) -> None:
        self._in_loop = in_loop
        self._in_threads = in_threads
        self._close = close
        #: Keyed by event loop, or by process for clients used in threads, which do not survive a
        #: fork.
        self._own: dict[asyncio.AbstractEventLoop | int, _Own] = {}

    async def get(self) -> Client:
        loop = asyncio_loop()
        client: Client
        if own := self._own.get(loop or os.getpid()):
            client = own.client
            return client
        if loop is None:
            client = self._in_threads()
            self._own[os.getpid()] = _Own(client, None)
            return client
        self._forget_closed_loops()
        client = self._in_loop()
        lifetime = self._lifetime(loop, client)
        self._own[loop] = _Own(client, lifetime)
        await anext(lifetime)
        return client

    async def close(self) -> None:
        own = self._own.pop(asyncio_loop() or os.getpid(), None)
        if own and own.lifetime:
            await own.lifetime.aclose()
        elif own:
            await self._close(own.client)

    async def _lifetime(
        self, loop: asyncio.AbstractEventLoop, client: Client
    ) -> AsyncGenerator[None, None]:
        """Closes the client when the event loop closes its generators, before it ends."""
        try:
            yield
        finally:
            self._own.pop(loop, None)
            with suppress(TimeoutError):
                async with asyncio.timeout(_FAREWELL):
                    await self._close(client)

    def _forget_closed_loops(self) -> None:
        """Removes loops that were closed without ending their generators."""
        for loop in list(self._own):
            if not isinstance(loop, int) and loop.is_closed():
                self._own.pop(loop, None)
