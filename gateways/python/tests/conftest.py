"""A visitor, and applications for tests."""

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from edge_session import MemoryStore, SessionMiddleware

SECRET = "an unguessable secret of more than 32 bytes"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def asgi(endpoint: Any, **settings: Any) -> Any:
    """Returns an application with one endpoint for every path, behind the middleware."""
    settings = {"secret": SECRET, "store": MemoryStore(), **settings}
    path = "/{path:path}"
    methods = ["GET", "POST"]
    app = Starlette(routes=[Route(path, endpoint, methods=methods)])
    return SessionMiddleware(app, **settings)


def app(act: Callable[[Any], Any], **settings: Any) -> Any:
    """Returns an application that acts on the session and responds with the data before that."""

    async def endpoint(request: Request) -> Response:
        session = request.state.session
        before = None if session is None else dict(session)
        answer = act(session)
        return answer if isinstance(answer, Response) else JSONResponse(before)

    return asgi(endpoint, **settings)


def deeds(**settings: Any) -> Any:
    """Returns an application that performs what requests ask for:
    `{"set": {…}, "remove": […], "do": …}`."""

    async def endpoint(request: Request) -> Response:
        session = request.state.session
        before = dict(session)
        wanted = json.loads(await request.body() or b"{}")
        match wanted.get("do"):
            case None:
                pass
            case ["set_max_age", seconds]:
                session.set_max_age(seconds)
            case method:
                getattr(session, method)()
        for key in wanted.get("remove", []):
            del session[key]
        session.update(wanted.get("set", {}))
        return JSONResponse({"data": before, "origin": session.origin, "id": session.id})

    return asgi(endpoint, **settings)


class Visitor:
    """A client that keeps its cookies, for an application in this process."""

    def __init__(self, app: Any, url: str = "http://test", **transport: Any) -> None:
        transport = {"raise_app_exceptions": True, **transport}
        self.http = httpx.AsyncClient(transport=httpx.ASGITransport(app, **transport), base_url=url)

    async def __call__(self, **wanted: Any) -> Any:
        response = await self.http.post("/", json=wanted)
        assert response.status_code == 200, response.text
        return response.json()

    @property
    def cookie(self) -> str | None:
        return self.http.cookies.get("connect.sid")


@pytest.fixture
async def visitor() -> AsyncIterator[Callable[..., Visitor]]:
    visitors: list[Visitor] = []

    def new(*args: Any, **settings: Any) -> Visitor:
        visitors.append(Visitor(*args, **settings))
        return visitors[-1]

    yield new
    for one in visitors:
        await one.http.aclose()
