"""CPU time of a request to a view counter, in this process: `python bench.py [REQUESTS]`.

The same Starlette application bare, with Starlette's own signed cookie (itsdangerous), and with
ours. The rounds take turns, so that what else the machine does hits all alike.
"""

import asyncio
import statistics
import sys
import time
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
ROUNDS = 15


async def bare(request: Request) -> Response:
    return PlainTextResponse("you have visited this page 1 times")


def counter(session: Any) -> Response:
    session["viewCount"] = session.get("viewCount", 0) + 1
    return PlainTextResponse(f"you have visited this page {session['viewCount']} times")


async def signed_cookie(request: Request) -> Response:
    return counter(request.session)


async def ours(request: Request) -> Response:
    return counter(request.state.session)


async def only_read(request: Request) -> Response:
    return PlainTextResponse(f"{request.state.session.setdefault('viewCount', 1)}")


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
    """Sends back the cookie that came last."""

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


async def main(requests: int) -> None:
    visitors = {name: Visitor(app) for name, app in APPLICATIONS.items()}
    times: dict[str, list[float]] = {name: [] for name in visitors}
    for number in range(ROUNDS + 1):
        for name, visitor in visitors.items():
            start = time.process_time()
            for _ in range(requests):
                await visitor.visit()
            if number:  # the first one warms up
                times[name].append((time.process_time() - start) / requests * 1e6)
    base = statistics.median(times["bare Starlette"])
    print(f"{'median of ' + str(ROUNDS) + ' rounds':34}{'µs CPU':>8}{'of it the session':>20}")
    for name, measured in times.items():
        median = statistics.median(measured)
        print(f"{name:34}{median:8.1f}{median - base:20.1f}")


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 500))
