"""Requests of one event loop that change one session at once take turns.

A change is stored only while the stored text is the one that it was made for. All at once, many
changes of one session would make one another fail, each time anew: a storm of writes that store
nothing. So the first request has the turn, and those that come meanwhile wait, in their order.
The next one gets the turn together with what its predecessor has stored, so that it meets no
conflict.

This is for speed only: that no change is lost, the conditional writes see to.
"""

from collections import OrderedDict
from typing import TypeAlias

import anyio
from anyio.lowlevel import current_token

from .store import Stored

#: So many requests wait for one session; more are refused.
MAX_WAITING = 2000

#: No request waits longer for its turn, in seconds.
PATIENCE = 10.0


class NoTurn(Exception):
    """Too many requests are waiting, or those before this one take too long."""


class _Waiting:
    def __init__(self) -> None:
        self.has_turn = anyio.Event()
        self.left: Stored | None = None


#: Event loops of several threads are as strange to one another as processes.
_Key: TypeAlias = tuple[object, str]
_Line: TypeAlias = "OrderedDict[_Waiting, None]"


class Turns:
    """Lends out the turns."""

    def __init__(self) -> None:
        #: A line exists only while a request is at work on the session.
        self._lines: dict[_Key, _Line] = {}

    async def enter(self, id: str) -> "Turn":
        """Wait until no other request is changing the session. Raises `NoTurn`."""
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
                # It was given the turn just when it left.
                Turn(self._lines, key, mine.left).end()
            if isinstance(error, TimeoutError):
                raise NoTurn from error
            raise
        return Turn(self._lines, key, mine.left)

    def __len__(self) -> int:
        """How many sessions are being changed."""
        return len(self._lines)


class Turn:
    """The right to change a session, until its `end`."""

    def __init__(self, lines: dict[_Key, _Line], key: _Key, left: Stored | None) -> None:
        self._lines = lines
        self._key = key
        #: What is stored now, where that is known.
        self.left = left

    def end(self) -> None:
        """Pass the turn on."""
        line = self._lines[self._key]
        if not line:
            del self._lines[self._key]
            return
        following, _ = line.popitem(last=False)
        following.left = self.left
        following.has_turn.set()
