"""Locks that are free in a newly forked process.

A lock that another thread holds during a fork would stay locked in the child process forever,
because that thread does not exist there.
"""

import os
import threading
import weakref


class Lock:
    """A `threading.Lock` that is released in a forked process."""

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


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_free_all)
