"""A server whose sessions a test drives from outside: `conformance_server.py PORT`.

EDGE_SESSION_SECRET (several, newest first, separated by commas), EDGE_SESSION_STORE (`memory:` or
`mongodb://…/db`), EDGE_SESSION_OPTIONS (JSON, names in snake case). It listens on 127.0.0.1 and
prints "ready". Every request performs the operations in its header X-Deeds, a JSON array, in order:
["set", key, value], ["remove", key], ["regenerate"], ["renew"], ["destroy"], ["maxAge",
milliseconds | null]. The response is {"data": …}, the session's data before the operations, or null
if there is no session.
"""

import json
import os
import sys
from typing import Any

import uvicorn
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from edge_session import MemoryStore, Session, SessionMiddleware, Store
from edge_session.mongodb import MongoStore


def do(session: Session, deed: list[Any]) -> None:
    match deed:
        case ["set", key, value]:
            session[key] = value
        case ["remove", key]:
            session.pop(key, None)
        case ["regenerate" | "renew" | "destroy" as method]:
            getattr(session, method)()
        case ["maxAge", milliseconds]:
            session.set_max_age(None if milliseconds is None else milliseconds / 1000)
        case _:
            raise ValueError(f"no such deed: {deed}")


async def application(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    request = Request(scope, receive)
    session = request.state.session
    answer: Response = JSONResponse({"data": None if session is None else dict(session)})
    if session is not None:
        for deed in json.loads(request.headers.get("x-deeds", "[]")):
            do(session, deed)
    await answer(scope, receive, send)


class Server(uvicorn.Server):
    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        print("ready", flush=True)


def main() -> None:
    url = os.environ.get("EDGE_SESSION_STORE", "memory:")
    store: Store = MemoryStore() if url == "memory:" else MongoStore(url)
    middleware = SessionMiddleware(
        application,
        os.environ.get("EDGE_SESSION_SECRET", "").split(","),
        store=store,
        options=json.loads(os.environ.get("EDGE_SESSION_OPTIONS", "{}")),
    )
    config = uvicorn.Config(
        middleware,
        host="127.0.0.1",
        port=int(sys.argv[1]),
        lifespan="off",
        log_level="warning",
        # X-Forwarded-Proto is handled by the option `proxy`.
        proxy_headers=False,
    )
    Server(config).run()


if __name__ == "__main__":
    main()
