"""Sessions for ASGI applications behind the gateway: Starlette, FastAPI and others."""

from .._asgi import App, Message, Receive, Scope, Send
from .._dictionary import READ_ONLY
from . import ID, SESSION, Session, read


class SessionMiddleware:
    """Gives every request `request.session`, as Starlette's own middleware does.

    `scope["session"]` and `scope["state"]["session"]` are the same `edge_session.headers.Session`.
    A request that did not come through the gateway raises `HeadersError`.
    """

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            return await self._app(scope, receive, send)
        told = read(_values(scope, ID), _values(scope, SESSION))
        session = Session(told, READ_ONLY if scope["type"] == "websocket" else None)
        scope.setdefault("state", {})["session"] = session
        if "session" in scope:
            # It belongs to another middleware, which reads it again when the response starts.
            scope = {**scope}
        scope["session"] = session

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                ours = [(name.lower().encode(), it.encode()) for name, it in session._answer()]
                message = {**message, "headers": [*message.get("headers", ()), *ours]}
            await send(message)

        await self._app(scope, receive, answer)


def _values(scope: Scope, name: str) -> list[str]:
    sought = name.lower().encode()
    return [value.decode("latin-1") for name, value in scope["headers"] if name == sought]
