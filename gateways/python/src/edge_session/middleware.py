"""The ASGI middleware: a session for every request."""

import logging
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from . import _bounds, _caches
from ._asgi import App, Message, Receive, Scope, Send
from ._contract import Outcome, Request
from ._dictionary import LEFT, READ_ONLY
from .component import Component, SessionFailed, component_path
from .options import OptionsError, Secret, open_engine
from .session import Session
from .sessions import Begun, Sessions
from .store import Store

_log = logging.getLogger("edge_session")


class SessionMiddleware:
    """Gives every request `request.session`, and every response its cookie.

    `scope["session"]` and `scope["state"]["session"]` are the same `Session`. If the path has no
    session, the latter is None and the former is left unchanged.

    - `secret`: one, or several with the newest first. The first one signs; all of them verify.
    - `store`: a `MemoryStore`, an `edge_session.mongodb.MongoStore`, or a custom one.
    - `options`: those of docs/configuration.md, with the same names; defaults come from the preset.
    - `component`: the file `session.wasm`, if it is not in one of its usual places.
    - `timeout`: the deadline of each store operation, in seconds.

    Raises `OptionsError`, which lists everything that is wrong with the options.
    """

    def __init__(
        self,
        app: App,
        secret: Secret | None = None,
        *,
        store: Store,
        options: Mapping[str, Any] | None = None,
        component: str | PathLike[str] | None = None,
        timeout: float = 2.0,
    ) -> None:
        path = component_path() if component is None else Path(component)
        try:
            engine = open_engine(Component.load(path), secret, options or {})
        except OptionsError as error:
            # Starlette creates its middleware on the first call, and uvicorn ignores failures there
            # by default.
            _log.critical("edge-session cannot serve: %s", error)
            raise
        self._app = app
        self._sessions = Sessions(engine, store, timeout)
        self._believes_forwarded_proto = engine.options["proxy"] is True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            return await self._app(scope, receive, send)
        is_websocket = scope["type"] == "websocket"
        try:
            begun = await self._sessions.begin(self._facts(scope))
        except SessionFailed as error:
            if is_websocket:
                return await _refuse_websocket(error, scope, receive, send)
            return await _refuse(error, send)
        state = scope.setdefault("state", {})
        if begun is None:
            state["session"] = None
            return await self._app(scope, receive, send)
        session = Session(begun.ready, begun.stored, READ_ONLY if is_websocket else None)
        state["session"] = session
        if "session" in scope:
            # It belongs to another middleware, which reads it again when the response starts.
            scope = {**scope}
        scope["session"] = session  # Starlette's `request.session`
        if is_websocket:
            return await self._app(scope, receive, send)
        answer = _Answer(self._sessions, begun, session, send)
        try:
            await self._app(scope, receive, answer.send)
        except Exception:
            if not answer.is_refused:
                raise
            # However the application ended, the visitor has a response, and the log has the reason.
            _log.debug("an application ended after its response was refused", exc_info=True)

    def _facts(self, scope: Scope) -> Request:
        cookies = []
        forwarded_proto = None
        for name, value in scope["headers"]:
            if name == b"cookie":
                cookies.append(value)
            elif name == b"x-forwarded-proto" and forwarded_proto is None:
                forwarded_proto = value
        path = scope.get("raw_path")
        return Request(
            _bounds.cookies(cookies),
            _bounds.path(scope["path"] if path is None else path),
            # ASGI's TLS extension. Few servers have it, and the scheme may come from a proxy.
            "tls" in (scope.get("extensions") or ()),
            scope.get("scheme") in ("https", "wss"),
            _bounds.forwarded_proto(forwarded_proto) if self._believes_forwarded_proto else None,
        )


class _Refused(OSError):
    """The application's response is discarded, as if the client had disconnected."""


class _Answer:
    """The response to one request. Its headers are held back until the session is stored."""

    def __init__(self, sessions: Sessions, begun: Begun, session: Session, send: Send) -> None:
        self._sessions = sessions
        self._begun = begun
        self._session = session
        self._send = send
        self._is_begun = False
        self.is_refused = False

    async def send(self, message: Message) -> None:
        if self.is_refused:
            raise _Refused
        if not self._is_begun and message["type"] == "http.response.start":
            self._is_begun = True
            message = await self._begin(message)
        await self._send(message)

    async def _begin(self, message: Message) -> Message:
        self._session._close(LEFT)
        try:
            outcome = await self._sessions.finish(self._begun, self._session)
        except SessionFailed as error:
            self.is_refused = True
            await _refuse(error, self._send)
            raise _Refused from error
        return _with_headers(message, outcome, self._sessions.is_safe and self._session._is_used)


def _with_headers(message: Message, outcome: Outcome, depends_on_session: bool) -> Message:
    headers = list(message.get("headers", ()))
    if outcome.set_cookie is not None:
        headers.append((b"set-cookie", outcome.set_cookie.encode("latin-1")))
    if outcome.no_store:
        headers = _caches.keep_private(headers)
    if outcome.no_store or depends_on_session:
        headers = _caches.vary_by_cookie(headers)
    return {**message, "headers": headers}


_REFUSAL_HEADERS = [
    (b"content-type", b"text/plain; charset=utf-8"),
    (b"cache-control", b"no-store"),
]


async def _refuse(error: SessionFailed, send: Send, kind: str = "http.response") -> None:
    """Responds to a request whose session failed. The reason is in the log."""
    status, text = error.failure.status, f"{error.failure.message}\n".encode()
    headers = [*_REFUSAL_HEADERS, (b"content-length", str(len(text)).encode())]
    await send({"type": f"{kind}.start", "status": status, "headers": headers})
    await send({"type": f"{kind}.body", "body": text})


async def _refuse_websocket(
    error: SessionFailed, scope: Scope, receive: Receive, send: Send
) -> None:
    message = await receive()
    if message["type"] != "websocket.connect":
        return
    if "websocket.http.response" in (scope.get("extensions") or ()):
        return await _refuse(error, send, "websocket.http.response")
    await send({"type": "websocket.close", "code": 1013})  # try again later
