"""The loop of every gateway: calls the component, and performs its store operations."""

import asyncio
import logging
import random
from collections.abc import Coroutine, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import anyio

from . import _bounds
from ._contract import (
    Change,
    Failure,
    Loaded,
    Obstacle,
    Origin,
    Outcome,
    Ready,
    Request,
    Stored,
    Visit,
    Write,
)
from ._loops import asyncio_loop
from ._turns import NoTurn, Turn, Turns
from .component import CallFailed, SessionEngine, SessionFailed
from .session import InvalidChange, Session
from .store import MemoryStore, Store, StoreError

_log = logging.getLogger("edge_session")

#: Why a request has no turn, for the log.
_BUSY = "too many requests are changing this session at once"

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
    #: What the last load returned.
    stored: Stored | None


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
        self.is_safe = engine.options["preset"] == "safe"
        self._max_session_bytes: int = engine.options["max_session_bytes"]

    async def begin(self, request: Request) -> Begun | None:
        """Begins a request. Returns None if the path has no session."""
        with _failures():
            stored: Stored | None = None
            begun = self._engine.begin(request)
            while isinstance(begun, Visit):
                loaded = await self._load(begun.id)
                stored = loaded[1] if loaded[0] == "ok" else None
                begun = self._engine.loaded(begun, loaded)
        if begun is None:
            return None
        if told := _TOLD.get(begun.origin):
            _log.log(*told)
        return Begun(begun, stored)

    async def finish(self, begun: Begun, session: Session) -> Outcome:
        with _failures():
            change = session._change()
            if begun.ready.origin != "detached":
                _bounds.check(change, self._max_session_bytes)
            return await self._lasting(self._finish(begun.ready.visit, begun.stored, change))

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

    async def _finish(self, visit: Visit, stored: Stored | None, change: Change) -> Outcome:
        turn: Turn | None = None
        conflicts = 0
        seen = stored
        plan = self._engine.finish(visit, stored, change)
        at = 0
        try:
            while at < len(plan.writes):
                write = plan.writes[at]
                obstacle: Obstacle | None = None
                if write.if_unchanged and not (turn and turn.id == write.id):
                    if turn:
                        turn.end()
                        turn = None
                    turn, obstacle = await self._turn(write.id, seen)
                if obstacle is None:
                    obstacle = await self._perform(write, seen)
                    if turn and write.if_unchanged:
                        turn.left = _left(write, obstacle)
                        if obstacle and obstacle[0] == "conflict":
                            conflicts += 1
                            obstacle = await self._make_way(conflicts, write.id, obstacle)
                if obstacle is None:
                    at += 1
                    continue
                if obstacle[0] == "conflict":
                    seen = obstacle[1]
                plan = self._engine.resume(plan.visit, stored, change, at, obstacle)
                at = 0
        finally:
            if turn:
                turn.end()
        return plan.outcome

    async def _turn(self, id: str, seen: Stored | None) -> tuple[Turn | None, Obstacle | None]:
        """Waits for the turn to change a session. Returns an obstacle if it is already known that
        the write would meet one."""
        try:
            turn = await self._turns.enter(id)
        except NoTurn:
            return None, ("unavailable", _BUSY)
        if turn.left and not (seen and turn.left.data == seen.data):
            # Another request has changed the session.
            return turn, ("conflict", turn.left)
        return turn, None

    async def _make_way(self, conflicts: int, id: str, conflict: Obstacle) -> Obstacle | None:
        """Handles a conflict with another process. From the second one on, waits for a random time,
        so that requests do not retry together, and loads the session again."""
        if conflicts < 2:
            return conflict
        longest = min(_PAUSE * 2 ** min(conflicts - 2, 16), _LONGEST_PAUSE)
        await anyio.sleep(random.uniform(0, longest))
        return await self._perform(Write(id, ("load", None), False), None)

    async def _load(self, id: str) -> Loaded:
        match await self._perform(Write(id, ("load", None), False), None):
            case ("conflict", Stored() as stored):
                return ("ok", stored)
            case ("unavailable" | "refused", str(why)):
                return ("err", why)
        return ("ok", None)

    async def _perform(self, write: Write, seen: Stored | None) -> Obstacle | None:
        """Performs a write within the deadline. Returns the obstacle that it met; None if it is
        done."""
        operation = write.operation[0]
        try:
            if self._deadline is None:
                return await self._ask(write, seen)
            with anyio.fail_after(self._deadline):
                return await self._ask(write, seen)
        except StoreError as error:
            why = str(error)
            if error.refused:
                return ("refused", why)
        except TimeoutError:
            why = f"no response within {self._deadline} s"
        except Exception as error:
            # The message may contain an identifier or a password.
            why = type(error).__name__
            _log.debug("the store failed", exc_info=True)
        # The component may continue the request: then this is the only report of the failure.
        _log.warning("the store failed: %s: %s", operation, why)
        return ("unavailable", f"{operation}: {why}")

    async def _ask(self, write: Write, seen: Stored | None) -> Obstacle | None:
        store, id = self._store, write.id
        # Without a text that was seen, one that no session has.
        expected = (seen.data if seen else "") if write.if_unchanged else None
        answer: str | Stored | None
        match write.operation:
            case ("load", _):
                answer = await store.load(id) or "missing"
            case ("create", content):
                answer = await store.create(id, content)
            case ("replace", content):
                answer = await store.replace(id, content, expected)
            case ("touch", expires):
                answer = await store.touch(id, expires)
            case ("delete", _):
                answer = await store.delete(id, expected)
        match answer:
            case "done":
                return None
            case "missing" | "taken":
                return (answer, None)
            case Stored(str(), None | int(), None | int()):
                return ("conflict", _bounds.stored(answer, self._max_session_bytes))
            case Stored():
                raise StoreError("it returned a session whose data is no string, or a time no int")
        raise StoreError(f"it returned {type(answer).__name__}")


def _left(write: Write, obstacle: Obstacle | None) -> Stored | None:
    """Returns what a conditional write leaves in the store, if known."""
    match write.operation, obstacle:
        case ("replace", content), None:
            return Stored(content.data, content.expires)
    return None


@contextmanager
def _failures() -> Iterator[None]:
    """Logs why a request fails, and raises `SessionFailed`."""
    try:
        yield
    except SessionFailed as failed:
        failure = failed.failure
    except InvalidChange as error:
        failure = Failure("invalid-change", 500, "The session could not be saved.", str(error))
    except CallFailed as error:
        why = f"the component failed: {error}"
        failure = Failure("unavailable", 503, "Sessions are unavailable. Please try again.", why)
    else:
        return
    _log.error("the session failed: %s: %s", failure.kind, failure.reason)
    raise SessionFailed(failure)
