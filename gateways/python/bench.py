"""CPU time of a request to a view counter, in this process.

    python bench.py [--json] [ROUNDS] [REQUESTS]

The same Starlette application bare, with Starlette's own signed cookie (itsdangerous), and with
edge-session. The rounds alternate, so that other load on the machine affects all equally.
"""

import asyncio
import json
import platform
import statistics
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent / "src"))

from starlette.applications import Starlette
from starlette.middleware.sessions import SessionMiddleware as SignedCookie
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from edge_session import MemoryStore, SessionMiddleware

SECRET = "an unguessable secret of more than 32 bytes"


async def bare(request: Request) -> Response:
    return PlainTextResponse("you have visited this page 1 times")


def counter(session: Any) -> Response:
    session["viewCount"] = session.get("viewCount", 0) + 1
    return PlainTextResponse(f"you have visited this page {session['viewCount']} times")


async def signed_cookie(request: Request) -> Response:
    return counter(request.session)


async def ours(request: Request) -> Response:
    return counter(request.session)


async def only_read(request: Request) -> Response:
    return PlainTextResponse(f"{request.session.setdefault('viewCount', 1)}")


def application(endpoint: Any, middleware: Any = None, **settings: Any) -> Starlette:
    app = Starlette(routes=[Route("/", endpoint)])
    if middleware:
        app.add_middleware(middleware, **settings)
    return app


def setting(endpoint: Any) -> Starlette:
    return application(endpoint, SessionMiddleware, secret=SECRET, store=MemoryStore())


APPLICATIONS = {
    "bare Starlette": application(bare),
    "Starlette's SessionMiddleware": application(signed_cookie, SignedCookie, secret_key=SECRET),
    "edge-session, MemoryStore": setting(ours),
    "edge-session, session only read": setting(only_read),
}


class Visitor:
    """Sends back the last cookie."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.cookie = b""

    async def visit(self) -> None:
        headers = [(b"host", b"test")]
        if self.cookie:
            headers.append((b"cookie", self.cookie))
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
            "headers": headers,
            "server": ("test", 80),
            "client": ("127.0.0.1", 1),
        }
        await self.app(scope, self.receive, self.send)

    async def receive(self) -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(self, message: Any) -> None:
        for name, value in message.get("headers", ()):
            if name == b"set-cookie":
                self.cookie = value.partition(b";")[0]


async def main(is_json: bool, rounds: int = 15, requests: int = 500) -> None:
    visitors = {name: Visitor(app) for name, app in APPLICATIONS.items()}
    times: dict[str, list[float]] = {name: [] for name in visitors}
    for number in range(rounds + 1):
        for name, visitor in visitors.items():
            start = time.process_time()
            for _ in range(requests):
                await visitor.visit()
            if number:  # the first one warms up
                times[name].append((time.process_time() - start) / requests * 1e6)
    medians = {name: statistics.median(measured) for name, measured in times.items()}
    bare, peer, ours, _ = medians.values()
    if is_json:
        # For bench/, in microseconds.
        versions = [f"{name} {version(name)}" for name in ("starlette", "itsdangerous", "wasmtime")]
        used = ", ".join([f"Python {platform.python_version()}", *versions])
        print(json.dumps({"bare": bare, "peer": peer, "ours": ours, "with": used}))
        return
    print(f"{f'median of {rounds} rounds':34}{'µs CPU':>8}{'of it the session':>20}")
    for name, median in medians.items():
        print(f"{name:34}{median:8.1f}{median - bare:20.1f}")


if __name__ == "__main__":
    numbers = [int(argument) for argument in sys.argv[1:] if argument != "--json"]
    asyncio.run(main("--json" in sys.argv, *numbers))
