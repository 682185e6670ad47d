"""Two workers that are forked after the set-up, as with gunicorn's `--preload`.

`forked_workers.py SET-UP VISITS` prints the identifier of every session. Each worker visits this
many times, without a cookie. SET-UP is the state before the fork: a `component`; a `middleware`;
one that was `visited`; or one that a thread is `at-work` in.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from conftest import SECRET

from edge_session import MemoryStore, SessionMiddleware, component_path
from edge_session.component import Component


async def application(scope: Any, receive: Any, send: Any) -> None:
    session = scope["state"]["session"]
    session["a"] = 1
    await send({"type": "http.response.start", "status": 200, "headers": []})
    os.write(1, f"{session.id}\n".encode())  # in one write: the other worker writes there too


async def visit(middleware: Any, times: int) -> None:
    async def send(message: Any) -> None:
        assert message["status"] == 200

    for _ in range(times):
        await middleware({"type": "http", "path": "/", "headers": []}, None, send)


def new() -> SessionMiddleware:
    return SessionMiddleware(application, SECRET, store=MemoryStore())


def set_up(what: str) -> Callable[[], SessionMiddleware]:
    """Returns a function that gives a worker its middleware."""
    if what == "component":
        # Without `load`, which caches: the worker compiles it again.
        Component(component_path().read_bytes()).instantiate()
        return new
    middleware = new()
    if what == "visited":
        asyncio.run(visit(middleware, 1))
    if what == "at-work":
        sessions = middleware._sessions
        sessions._engine._lock.__enter__()
        sessions._store._lock.__enter__()  # type: ignore[attr-defined]
    return lambda: middleware


def main(what: str, times: int) -> None:
    made = set_up(what)
    workers = []
    for _ in range(2):
        worker = os.fork()
        if not worker:
            signal.alarm(60)  # ends a worker that waits forever
            asyncio.run(visit(made(), times))
            os._exit(0)
        workers.append(worker)
    for worker in workers:
        assert os.waitpid(worker, 0)[1] == 0


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
