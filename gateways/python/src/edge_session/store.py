"""Where sessions are kept.

A store is five operations on texts. It knows nothing of cookies, signatures or the rules of
sessions: these are the component's.
"""

import time
from collections import OrderedDict
from typing import Literal, Protocol, TypeAlias

from ._contract import Content, Stored
from ._forks import Lock

__all__ = ["Changed", "Content", "MemoryStore", "Store", "StoreError", "Stored", "now"]

#: What became of a change. A `Stored`: the stored text is not the expected one, but this;
#: nothing was changed.
Changed: TypeAlias = Literal["done", "missing"] | Stored


class StoreError(Exception):
    """The store failed, or cannot be reached.

    The message is for the log: it must hold no session identifier and no password.
    """

    def __init__(self, message: str, *, refused: bool = False) -> None:
        super().__init__(message)
        #: The store works, and can never keep such a session.
        self.refused = refused


class Store(Protocol):
    """Five operations. Times are milliseconds since the Unix epoch.

    To every operation an expired session is a missing one. The middleware puts a deadline
    around every call and cancels it then: what was cancelled may have been done or not, but
    never by half.
    """

    async def load(self, id: str) -> Stored | None:
        """The session, or None."""

    async def create(self, id: str, content: Content) -> Literal["done", "taken"]:
        """Store a session whose identifier is new. Never overwrites: `taken`."""

    async def replace(self, id: str, content: Content, expected: str | None) -> Changed:
        """Store `content` in place of what is there.

        Without `expected` in any case, created when it is missing. With it only while the
        stored text equals it: comparing and writing are one atomic operation.
        """

    async def touch(self, id: str, expires: int) -> Changed:
        """Move the expiry. Never creates, never changes the text, never conflicts."""

    async def delete(self, id: str, expected: str | None) -> Changed:
        """Delete the session; with `expected` only while the stored text equals it."""


def now() -> int:
    """Milliseconds since the Unix epoch."""
    return time.time_ns() // 1_000_000


#: What an entry costs beside its texts, about: objects and their places in the dictionary.
_OVERHEAD = 480


class MemoryStore:
    """Sessions in this process, gone with it.

    Bounded: when it is full, those that were not used for longest make room.
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
        """How many sessions there are; expired ones may be among them."""
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
        # Every write looks at the two that were not used for longest, so that expired ones
        # leave without anybody asking for them.
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
    # Python's texts have one, two or four bytes a character.
    width = 1 if data.isascii() else 4
    return _OVERHEAD + len(id) + width * len(data)
