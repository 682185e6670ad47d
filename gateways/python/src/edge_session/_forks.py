"""Locks that are free in a process that was just forked.

A lock that another thread holds while a process forks is held in the new process, too, where that
thread does not exist: for ever.
"""

import os
import threading
import weakref


class Lock:
    """`threading.Lock`, but for that."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        _all.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


_all: "weakref.WeakSet[Lock]" = weakref.WeakSet()


def _free_all() -> None:
    for one in _all:
        one._lock = threading.Lock()


if hasattr(os, "register_at_fork"):  # Windows has no forks
    os.register_at_fork(after_in_child=_free_all)
