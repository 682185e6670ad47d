"""Sessions for WSGI applications behind the gateway without a framework's own sessions."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from . import Session, read_environ

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

#: The key of the session in `environ`.
KEY = "edge_session.session"


class SessionMiddleware:
    """Gives every request `environ["edge_session.session"]`, an `edge_session.headers.Session`.

    It can be changed until the application calls `start_response`. A request that did not come
    through the gateway raises `HeadersError`.
    """

    def __init__(self, app: "WSGIApplication") -> None:
        self._app = app

    def __call__(
        self, environ: "WSGIEnvironment", start_response: "StartResponse"
    ) -> Iterable[bytes]:
        session = environ[KEY] = Session(read_environ(environ))

        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None, /) -> Any:
            # A failed application changes nothing.
            ours = [] if exc_info else session._answer()
            return start_response(status, [*headers, *ours], exc_info)

        return self._app(environ, start)
