"""Requests of one event loop that change the same session take turns.

A change is stored only if the stored text is still the one that it was based on. Without turns,
concurrent changes of one session would keep causing each other to fail: a storm of writes that
store nothing. So one request has the turn, and the others wait in order. The next one receives what
its predecessor stored together with the turn, so it meets no conflict.

This affects only speed: conditional writes ensure that no change is lost.
"""

from collections import OrderedDict
from typing import TypeAlias

import anyio
from anyio.lowlevel import current_token

from .store import Stored

#: The maximum number of requests that wait for one session; more are refused.
MAX_WAITING = 2000

#: The maximum time that a request waits for its turn, in seconds.
PATIENCE = 10.0


class NoTurn(Exception):
    """Too many requests are waiting, or those before this one take too long."""


class _Waiting:
    def __init__(self) -> None:
        self.has_turn = anyio.Event()
        self.left: Stored | None = None


#: Event loops of different threads do not share turns, just as processes do not.
_Key: TypeAlias = tuple[object, str]
_Line: TypeAlias = "OrderedDict[_Waiting, None]"


class Turns:
    """Manages the turns of all sessions."""

    def __init__(self) -> None:
        #: A queue exists only while a request is changing the session.
        self._lines: dict[_Key, _Line] = {}

    async def enter(self, id: str) -> "Turn":
        """Waits until no other request is changing the session. Raises `NoTurn`."""
        key = (current_token(), id)
        line = self._lines.get(key)
        if line is None:
            self._lines[key] = OrderedDict()
            return Turn(self._lines, key, None)
        if len(line) >= MAX_WAITING:
            raise NoTurn
        mine = _Waiting()
        line[mine] = None
        try:
            with anyio.fail_after(PATIENCE):
                await mine.has_turn.wait()
        except BaseException as error:
            line.pop(mine, None)
            if mine.has_turn.is_set():
                # The turn was passed to this request just as it gave up.
                Turn(self._lines, key, mine.left).end()
            if isinstance(error, TimeoutError):
                raise NoTurn from error
            raise
        return Turn(self._lines, key, mine.left)

    def __len__(self) -> int:
        """Returns the number of sessions that are being changed."""
        return len(self._lines)


class Turn:
    """The right to change a session until `end` is called."""

    def __init__(self, lines: dict[_Key, _Line], key: _Key, left: Stored | None) -> None:
        self._lines = lines
        self._key = key
        #: The session's identifier.
        self.id = key[1]
        #: What is stored now, if known.
        self.left = left

    def end(self) -> None:
        """Passes the turn on."""
        line = self._lines[self._key]
        if not line:
            del self._lines[self._key]
            return
        following, _ = line.popitem(last=False)
        following.left = self.left
        following.has_turn.set()
