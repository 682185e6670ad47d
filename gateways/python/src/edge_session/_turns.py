"""Requests of one event loop that change one session at once take turns.

A change is stored only while the stored text is the one that it was made for. All at once, many
changes of one session would make one another fail, each time anew: a storm of writes that store
nothing. So the first request has the turn, and those that come meanwhile wait, in their order.
The next one gets the turn together with what its predecessor has stored, so that it meets no
conflict.

This is for speed only: that no change is lost, the conditional writes see to.
"""

import asyncio
from collections import OrderedDict
from typing import TypeAlias

from .store import Stored

#: So many requests wait for one session; more are refused.
MAX_WAITING = 2000

#: No request waits longer for its turn, in seconds.
PATIENCE = 10.0

#: Event loops of several threads are as strange to one another as processes.
_Key: TypeAlias = tuple[asyncio.AbstractEventLoop, str]
_Line: TypeAlias = "OrderedDict[asyncio.Future[Stored | None], None]"


class NoTurn(Exception):
    """Too many requests are waiting, or those before this one take too long."""


class Turns:
    """Lends out the turns."""

    def __init__(self) -> None:
        #: A line exists only while a request is at work on the session.
        self._lines: dict[_Key, _Line] = {}

    async def enter(self, id: str) -> "Turn":
        """Wait until no other request is changing the session. Raises `NoTurn`."""
        loop = asyncio.get_running_loop()
        key = (loop, id)
        line = self._lines.get(key)
        if line is None:
            self._lines[key] = OrderedDict()
            return Turn(self._lines, key, None)
        if len(line) >= MAX_WAITING:
            raise NoTurn
        mine: asyncio.Future[Stored | None] = loop.create_future()
        line[mine] = None
        try:
            async with asyncio.timeout(PATIENCE):
                return Turn(self._lines, key, await mine)
        except BaseException as error:
            line.pop(mine, None)
            if mine.done() and not mine.cancelled():
                # It was given the turn just when it left.
                Turn(self._lines, key, mine.result()).end()
            if isinstance(error, TimeoutError):
                raise NoTurn from error
            raise

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
        while line:
            following, _ = line.popitem(last=False)
            if not following.done():  # it has not left
                following.set_result(self.left)
                return
        del self._lines[self._key]
