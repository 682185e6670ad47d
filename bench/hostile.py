"""The cost of a Cookie header of 16 MiB in the ASGI middleware: memory and time, in this process.

    python hostile.py
"""

import asyncio
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent / "../gateways/python/src"))

from edge_session import MemoryStore, SessionMiddleware

SECRET = "an unguessable secret of more than 32 bytes"


async def page(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"a page"})


async def visit(app: Any, cookie: bytes) -> tuple[int, float]:
    """Returns the status and the duration in milliseconds."""
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/",
        "raw_path": b"/",
        "query_string": b"",
        "root_path": "",
        "headers": [(b"host", b"test"), (b"cookie", cookie)],
        "server": ("test", 80),
        "client": ("127.0.0.1", 1),
        "state": {},
    }
    status = 0

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        nonlocal status
        status = message.get("status", status)

    began = time.perf_counter()
    await app(scope, receive, send)
    return status, (time.perf_counter() - began) * 1000


def peak() -> float:
    """MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


async def main() -> None:
    app = SessionMiddleware(page, secret=SECRET, store=MemoryStore())
    large = b"a=" + b"c" * (16 << 20)
    for _ in range(100):
        await visit(app, b"a=c")
    small = [(await visit(app, b"a=c"))[1] for _ in range(100)]
    before = peak()
    status, milliseconds = await visit(app, large)
    figures = {
        "small": sorted(small)[50],
        "milliseconds": milliseconds,
        "mib": peak() - before,
        "status": status,
    }
    print(json.dumps(figures))


asyncio.run(main())
