"""Sessions for Flask behind the gateway: `app.session_interface = SessionInterface()`."""

from typing import Any

from flask import Flask, Request, Response
from flask import sessions as _flask
from flask.json.tag import TaggedJSONSerializer

from . import ACTION, SESSION, Told, read_environ
from . import Session as _Session


class Session(_Session, _flask.SessionMixin):
    """Flask's `session`, with `renew()`, `regenerate()` and `destroy()`.

    Values that JSON cannot represent (tuples, bytes, `Markup`, UUIDs, datetimes) are tagged, as in
    Flask. The gateway determines lifetimes: `permanent` is kept, but has no effect.
    """

    def __init__(self, told: Told, serializer: TaggedJSONSerializer) -> None:
        self._serializer = serializer
        super().__init__(told)

    def _read(self, text: str) -> Any:
        return self._serializer.loads(text)

    def _text(self, value: Any) -> str:
        return self._serializer.dumps(value)


class SessionInterface(_flask.SessionInterface):
    """Provides the gateway's sessions instead of Flask's signed cookie. Needs no `SECRET_KEY`.

    A request that did not come through the gateway raises `HeadersError`. `serializer` is Flask's;
    register custom tags there.
    """

    def __init__(self) -> None:
        self.serializer = TaggedJSONSerializer()

    def open_session(self, app: Flask, request: Request) -> Session:
        return Session(read_environ(request.environ), self.serializer)

    def save_session(self, app: Flask, session: object, response: Response) -> None:
        # A refused request has no session.
        if isinstance(session, Session):
            # A shared response object may carry the headers of another request.
            for name in (SESSION, ACTION):
                del response.headers[name]
            response.headers.extend(session._answer())
