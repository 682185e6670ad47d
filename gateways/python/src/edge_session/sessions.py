"""The loop that every gateway runs: ask the component, do what it says to the store."""

import asyncio
import logging
from collections.abc import Coroutine, Mapping
from typing import Any, NamedTuple

from ._contract import (
    Change,
    Exchange,
    Failure,
    Known,
    Origin,
    Outcome,
    Pending,
    Ready,
    Request,
    StoreReply,
    StoreRequest,
)
from .component import CallFailed, SessionEngine
from .session import InvalidChange, Session
from .store import MemoryStore, Store, StoreError

_log = logging.getLogger("edge_session")

_NOTHING_KNOWN = Known(None, None)

#: How much a beginning is worth being told. The others are everyday.
_TOLD: Mapping[Origin, tuple[int, str]] = {
    "malformed": (logging.INFO, "a new session begins: the cookie is malformed"),
    "forged": (logging.INFO, "a new session begins: the cookie's signature is none of ours"),
    "oversized": (logging.INFO, "a new session begins: the cookies are oversized"),
    "unknown": (logging.INFO, "a new session begins: the store does not know the old one"),
    "damaged": (logging.WARNING, "a stored session cannot be read and is left alone"),
    "detached": (logging.ERROR, "a request goes on without its session"),
}


class Begun(NamedTuple):
    """What a request begins with, and what `finish` wants of it."""

    ready: Ready
    known: Known


class SessionFailed(Exception):
    """The request cannot be answered."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure[0])
        self.failure = failure


class Sessions:
    """The component and a store, joined."""

    def __init__(self, engine: SessionEngine, store: Store, deadline: float) -> None:
        self._engine = engine
        self._store = store
        # A store in memory is done at once, and needs no timer.
        self._deadline = None if type(store) is MemoryStore else deadline
        # The event loop itself would forget them.
        self._at_work: set[asyncio.Task[Outcome]] = set()

    async def begin(self, request: Request) -> Begun | None:
        """None: the path has no session."""
        known = _NOTHING_KNOWN
        try:
            step = self._engine.begin(request)
            while isinstance(step, Pending):
                known, reply = await self._perform(step.exchange.id, step.request, known)
                step = self._engine.resume(step.exchange, known, None, reply)
        except CallFailed as error:
            raise _failed(_trapped(error)) from error
        if isinstance(step, Ready):
            if told := _TOLD.get(step.exchange.origin):
                _log.log(*told)
            return Begun(step, known)
        if step.failure is not None:
            raise _failed(step.failure)
        return None

    async def finish(self, begun: Begun, session: Session) -> Outcome:
        try:
            change = session._change()
        except InvalidChange as error:
            raise _failed(("invalid-change", str(error))) from error
        try:
            outcome = await self._lasting(self._finish(begun.ready.exchange, begun.known, change))
        except CallFailed as error:
            raise _failed(_trapped(error)) from error
        if outcome.failure is not None:
            raise _failed(outcome.failure)
        return outcome

    async def _lasting(self, work: Coroutine[Any, Any, Outcome]) -> Outcome:
        """To its end, though the visitor leaves and the server cancels the request: a logout is
        done, a renewal not left half-way."""
        if self._deadline is None:
            return await work
        task = asyncio.create_task(work)
        self._at_work.add(task)
        task.add_done_callback(self._at_work.discard)
        return await asyncio.shield(task)

    async def _finish(self, exchange: Exchange, known: Known, change: Change) -> Outcome:
        step = self._engine.finish(exchange, known, change)
        while isinstance(step, Pending):
            known, reply = await self._perform(step.exchange.id, step.request, known)
            if reply[0] == "done" and step.on_done is not None:
                return step.on_done
            step = self._engine.resume(step.exchange, known, change, reply)
        if isinstance(step, Ready):
            raise CallFailed("it answered `ready` to a finish")
        return step

    async def _perform(
        self, id: str, request: StoreRequest, known: Known
    ) -> tuple[Known, StoreReply]:
        """Do what the component asks of the store, within the deadline, and keep what it says."""
        operation = request[0]
        try:
            if self._deadline is None:
                return await _perform(self._store, id, request, known)
            async with asyncio.timeout(self._deadline):
                return await _perform(self._store, id, request, known)
        except StoreError as error:
            why = str(error)
            if error.refused:
                return known, ("refused", why)
        except TimeoutError:
            why = f"no answer within {self._deadline} s"
        except Exception as error:
            # Its text may hold an identifier or a password.
            why = type(error).__name__
            _log.debug("the store failed", exc_info=True)
        # The component may let the request go on: then this is all that is heard of it.
        _log.warning("the store failed: %s: %s", operation, why)
        return known, ("unavailable", f"{operation}: {why}")


async def _perform(
    store: Store, id: str, request: StoreRequest, known: Known
) -> tuple[Known, StoreReply]:
    last = known.current or known.loaded
    changed: Any
    match request:
        case ("load", _):
            stored = await store.load(id)
            return Known(stored, known.current), ("found" if stored else "missing", None)
        case ("create", content):
            changed = await store.create(id, content)
        case ("replace", (content, only_known)):
            expected = last.data if only_known and last else None
            changed = await store.replace(id, content, expected)
        case ("touch", expires):
            changed = await store.touch(id, expires)
        case ("delete", only_known):
            changed = await store.delete(id, last.data if only_known and last else None)
    if isinstance(changed, str):
        return known, (changed, None)
    return Known(known.loaded, changed), ("conflict", None)


def _trapped(error: CallFailed) -> Failure:
    return ("unavailable", f"the component failed: {error}")


def _failed(failure: Failure) -> SessionFailed:
    match failure:
        case ("unavailable", why):
            _log.error("sessions are unavailable: %s", why)
        case ("invalid-change", why):
            _log.error("the application's change to the session was refused: %s", why)
        case ("too-large", size):
            _log.error("the session has %d bytes, more than max_session_bytes", size)
        case ("contention", _):
            _log.error("too many requests changed one session at once: this one gave up")
    return SessionFailed(failure)
