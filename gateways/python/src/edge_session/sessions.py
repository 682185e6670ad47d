"""The loop of every gateway: calls the component, and performs its store requests."""

import asyncio
import logging
import random
from collections.abc import Coroutine, Mapping
from typing import Any, NamedTuple

import anyio

from . import _bounds
from ._contract import (
    Change,
    Content,
    Exchange,
    Failure,
    Known,
    Origin,
    Outcome,
    Pending,
    Ready,
    Replacement,
    Request,
    Step,
    Stored,
    StoreReply,
    StoreRequest,
)
from ._loops import asyncio_loop
from ._turns import NoTurn, Turn, Turns
from .component import CallFailed, SessionEngine
from .session import InvalidChange, Session
from .store import MemoryStore, Store, StoreError

_log = logging.getLogger("edge_session")

_NOTHING_KNOWN = Known(None, None)

_CONFLICT: StoreReply = ("conflict", None)

#: The maximum pause after a request's second conflict with other processes, in seconds. It doubles
#: with each further conflict.
_PAUSE = 0.004

#: The maximum pause after many conflicts.
_LONGEST_PAUSE = 0.256

#: The log level and message for a new session's origin. Other origins are not logged.
_TOLD: Mapping[Origin, tuple[int, str]] = {
    "malformed": (logging.INFO, "a new session begins: the cookie is malformed"),
    "forged": (logging.INFO, "a new session begins: the cookie's signature is wrong"),
    "oversized": (logging.INFO, "a new session begins: the cookies are too large"),
    "unknown": (logging.INFO, "a new session begins: the store does not have the old one"),
    "damaged": (logging.WARNING, "a stored session cannot be read and is left unchanged"),
    "detached": (logging.ERROR, "a request continues without its session"),
}


class Begun(NamedTuple):
    """The state at the beginning of a request, which `finish` needs."""

    ready: Ready
    known: Known


class SessionFailed(Exception):
    """The request fails."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure[0])
        self.failure = failure


class Sessions:
    """Combines the component and a store."""

    def __init__(self, engine: SessionEngine, store: Store, deadline: float) -> None:
        self._engine = engine
        self._store = store
        # A memory store completes without waiting, and needs no timer.
        self._deadline = None if type(store) is MemoryStore else deadline
        # The event loop keeps only weak references to tasks.
        self._at_work: set[asyncio.Task[Outcome]] = set()
        self._turns = Turns()
        #: Whether caches are told about every response that depends on a session.
        self.is_safe = engine.is_safe

    async def begin(self, request: Request) -> Begun | None:
        """Begins a request's exchange. Returns None if the path has no session."""
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
        excess = _bounds.excess(change, self._engine.max_session_bytes)
        if excess is not None and session.origin != "detached":
            raise _failed(("too-large", excess))
        try:
            outcome = await self._lasting(self._finish(begun.ready.exchange, begun.known, change))
        except CallFailed as error:
            raise _failed(_trapped(error)) from error
        if outcome.failure is not None:
            raise _failed(outcome.failure)
        return outcome

    async def _lasting(self, work: Coroutine[Any, Any, Outcome]) -> Outcome:
        """Runs to completion even if the client disconnects and the server cancels the request, so
        that a logout takes effect and a renewal is not left half-done."""
        if self._deadline is None:
            return await work
        if asyncio_loop() is None:
            with anyio.CancelScope(shield=True):
                return await work
        # A task cancelled through asyncio is not protected by an anyio scope.
        task = asyncio.create_task(work)
        self._at_work.add(task)
        task.add_done_callback(self._at_work.discard)
        return await asyncio.shield(task)

    async def _finish(self, exchange: Exchange, known: Known, change: Change) -> Outcome:
        turn: Turn | None = None
        conflicts = 0
        step = self._engine.finish(exchange, known, change)
        try:
            while isinstance(step, Pending):
                if turn is None and _is_conditional(step.request):
                    turn = await self._turns.enter(step.exchange.id)
                    if turn.left and turn.left.data != _last(known):
                        # Another request has changed the session: the store's reply is already
                        # known.
                        known = known._replace(current=turn.left)
                        step = self._engine.resume(step.exchange, known, change, _CONFLICT)
                        continue
                known, reply = await self._perform(step.exchange.id, step.request, known)
                if turn and _is_conditional(step.request):
                    turn.left = _left(step.request, reply)
                if reply == _CONFLICT:
                    conflicts += 1
                    known, reply = await self._make_way(conflicts, step.exchange.id, known)
                if reply[0] == "done" and step.on_done is not None:
                    return step.on_done
                step = self._engine.resume(step.exchange, known, change, reply)
        except NoTurn:
            return Outcome("none", None, None, False, 0, ("contention", None))
        finally:
            if turn:
                turn.end()
        return _ended(step)

    async def _make_way(self, conflicts: int, id: str, known: Known) -> tuple[Known, StoreReply]:
        """Handles a conflict with another process. From the second one on, waits for a random time,
        so that requests do not retry together, and loads the session again."""
        if conflicts < 2:
            return known, _CONFLICT
        longest = min(_PAUSE * 2 ** min(conflicts - 2, 16), _LONGEST_PAUSE)
        await anyio.sleep(random.uniform(0, longest))
        found, reply = await self._perform(id, ("load", None), _NOTHING_KNOWN)
        if reply[0] != "found":
            return known, reply
        return known._replace(current=found.loaded), _CONFLICT

    async def _perform(
        self, id: str, request: StoreRequest, known: Known
    ) -> tuple[Known, StoreReply]:
        """Performs a store request within the deadline, and records the result."""
        operation = request[0]
        try:
            if self._deadline is None:
                return await self._ask(id, request, known)
            with anyio.fail_after(self._deadline):
                return await self._ask(id, request, known)
        except StoreError as error:
            why = str(error)
            if error.refused:
                return known, ("refused", why)
        except TimeoutError:
            why = f"no response within {self._deadline} s"
        except Exception as error:
            # The message may contain an identifier or a password.
            why = type(error).__name__
            _log.debug("the store failed", exc_info=True)
        # The component may continue the request: then this is the only report of the failure.
        _log.warning("the store failed: %s: %s", operation, why)
        return known, ("unavailable", f"{operation}: {why}")

    async def _ask(self, id: str, request: StoreRequest, known: Known) -> tuple[Known, StoreReply]:
        store = self._store
        changed: Any
        match request:
            case ("load", _):
                stored = await store.load(id)
                reply = ("found" if stored else "missing", None)
                return Known(self._bounded(stored), known.current), reply
            case ("create", content):
                changed = await store.create(id, content)
            case ("replace", (content, only_known)):
                changed = await store.replace(id, content, _last(known) if only_known else None)
            case ("touch", expires):
                changed = await store.touch(id, expires)
            case ("delete", only_known):
                changed = await store.delete(id, _last(known) if only_known else None)
        if isinstance(changed, str):
            return known, (changed, None)
        return Known(known.loaded, self._bounded(changed)), _CONFLICT

    def _bounded(self, stored: Stored | None) -> Stored | None:
        return stored and _bounds.stored(stored, self._engine.max_session_bytes)


def _last(known: Known) -> str | None:
    """Returns the stored text, if known."""
    last = known.current or known.loaded
    return last.data if last else None


def _is_conditional(request: StoreRequest) -> bool:
    match request:
        case ("replace", Replacement(only_known=only_known)) | ("delete", bool(only_known)):
            return only_known
    return False


def _left(request: StoreRequest, reply: StoreReply) -> Stored | None:
    """Returns what a conditional request leaves in the store, if known."""
    match request, reply:
        case ("replace", Replacement(content=Content(data, expires))), ("done", _):
            return Stored(data, expires)
    return None


def _ended(step: Step) -> Outcome:
    if isinstance(step, Outcome):
        return step
    raise CallFailed("it returned `ready` from `finish`")


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
            _log.error(
                "a change was not stored: too many requests changed the session at once, or its "
                "identifier has changed"
            )
    return SessionFailed(failure)
