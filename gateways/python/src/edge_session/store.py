"""Session storage.

A store performs five operations on texts. It does not deal with cookies, signatures or the rules of
sessions, which belong to the component.
"""

import time
from collections import OrderedDict
from typing import Literal, Protocol, TypeAlias

from ._contract import Content, Stored
from ._forks import Lock

__all__ = ["Changed", "Content", "MemoryStore", "Store", "StoreError", "Stored", "now"]

#: The result of a change. A `Stored` is the current session, whose text is not the expected one;
#: nothing was changed.
Changed: TypeAlias = Literal["done", "missing"] | Stored


class StoreError(Exception):
    """The store failed, or cannot be reached.

    The message is logged: it must not contain a session identifier or a password.
    """

    def __init__(self, message: str, *, refused: bool = False) -> None:
        super().__init__(message)
        #: Whether the store works, but can never store such a session.
        self.refused = refused


class Store(Protocol):
    """Five operations. Times are milliseconds since the Unix epoch.

    Every operation treats an expired session as missing. The middleware sets a deadline for every
    call and cancels it when it passes: a cancelled operation may have been performed or not, but
    never partially.
    """

    async def load(self, id: str) -> Stored | None:
        """Returns the session, or None."""

    async def create(self, id: str, content: Content) -> Literal["done", "taken"]:
        """Stores a session under a new identifier. Never overwrites: returns `taken`."""

    async def replace(self, id: str, content: Content, expected: str | None) -> Changed:
        """Replaces the stored session.

        Without `expected`, the write is unconditional (an upsert). With `expected`, it happens only
        if the stored text equals it; comparing and writing must be one atomic operation.
        """

    async def touch(self, id: str, expires: int) -> Changed:
        """Sets a new expiry. Never creates a session, changes its text or conflicts."""

    async def delete(self, id: str, expected: str | None) -> Changed:
        """Deletes the session; with `expected`, only if the stored text equals it."""


def now() -> int:
    """Returns the current time in milliseconds since the Unix epoch."""
    return time.time_ns() // 1_000_000


#: The approximate cost of an entry beside its texts: objects and their places in the dictionary.
_OVERHEAD = 480


class MemoryStore:
    """Sessions in this process's memory; they are lost when it ends.

    Memory is bounded: when it is full, the least recently used sessions are removed.
    """

    def __init__(self, max_bytes: int = 512 << 20) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._sessions: OrderedDict[str, Stored] = OrderedDict()
        self._lock = Lock()

    async def load(self, id: str) -> Stored | None:
        with self._lock:
            return self._live(id)

    async def create(self, id: str, content: Content) -> Literal["done", "taken"]:
        with self._lock:
            if self._live(id):
                return "taken"
            self._put(id, content)
            return "done"

    async def replace(self, id: str, content: Content, expected: str | None) -> Changed:
        with self._lock:
            if expected is not None:
                stored = self._live(id)
                if stored is None:
                    return "missing"
                if stored.data != expected:
                    return stored
            self._put(id, content)
            return "done"

    async def touch(self, id: str, expires: int) -> Changed:
        with self._lock:
            stored = self._live(id)
            if stored is None:
                return "missing"
            self._sessions[id] = stored._replace(expires=expires)
            return "done"

    async def delete(self, id: str, expected: str | None) -> Changed:
        with self._lock:
            stored = self._live(id)
            if stored is None:
                return "missing"
            if expected is not None and stored.data != expected:
                return stored
            self._remove(id)
            return "done"

    def __len__(self) -> int:
        """Returns the number of sessions, which may include expired ones."""
        return len(self._sessions)

    def _live(self, id: str) -> Stored | None:
        stored = self._sessions.get(id)
        if stored is None or (stored.expires is not None and stored.expires <= now()):
            return None
        self._sessions.move_to_end(id)
        return stored

    def _put(self, id: str, content: Content) -> None:
        cost = _cost(id, content.data)
        if cost > self._max_bytes:
            raise StoreError("a session does not fit into the memory store")
        self._remove(id)
        self._sessions[id] = Stored(content.data, content.expires)
        self._bytes += cost
        # Every write checks the two least recently used sessions, so that expired ones are removed
        # without being requested.
        for _ in range(2):
            oldest = next(iter(self._sessions))
            expires = self._sessions[oldest].expires
            if expires is None or expires > now():
                break
            self._remove(oldest)
            if not self._sessions:
                break
        while self._bytes > self._max_bytes:
            self._remove(next(iter(self._sessions)))

    def _remove(self, id: str) -> None:
        if old := self._sessions.pop(id, None):
            self._bytes -= _cost(id, old.data)


def _cost(id: str, data: str) -> int:
    # Python's strings use one, two or four bytes per character.
    width = 1 if data.isascii() else 4
    return _OVERHEAD + len(id) + width * len(data)
