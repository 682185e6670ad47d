"""Sessions for Django projects behind the gateway.

Replace `django.contrib.sessions.middleware.SessionMiddleware` in MIDDLEWARE by
`edge_session.headers.django.SessionMiddleware`.
"""

from typing import Any, NoReturn

from django.conf import settings
from django.contrib.sessions import middleware as _django
from django.contrib.sessions.backends.base import SessionBase
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, HttpResponse
from django.utils.cache import patch_vary_headers
from django.utils.deprecation import MiddlewareMixin

from . import ACTION, SESSION, HeadersError, Session, SessionError, Told, read_environ

#: A key for an empty session that the application wants to save, because the gateway does not keep
#: new sessions that are empty.
_SAVED = "_session_saved"


class SessionStore(SessionBase):
    """Django's `request.session`.

    `session_key` is None while the session is empty, and after `cycle_key()` or `flush()`: the new
    key is known from the next request on. The gateway determines lifetimes: methods that read or
    set one raise `SessionError`.
    """

    def __init__(self, session: Session) -> None:
        told = session._told
        super().__init__(told.id if told.data else None)
        self._session_cache = session

    def load(self) -> dict[str, Any]:
        return self._session_cache

    def clear(self) -> None:
        self._session_cache.clear()
        self.accessed = self.modified = True

    def flush(self) -> None:
        self.clear()
        self._session_key = None

    async def aflush(self) -> None:
        self.flush()

    def cycle_key(self) -> None:
        self._session_cache.renew()
        self._session_key = None
        self.accessed = self.modified = True

    async def acycle_key(self) -> None:
        self.cycle_key()

    def create(self) -> None:
        if self.session_key:
            self.cycle_key()
        else:
            self.save()

    async def acreate(self) -> None:
        self.create()

    def save(self, must_create: bool = False) -> None:
        """Marks an empty session to be saved too. Changes are saved with the response."""
        if not self._session_cache:
            self[_SAVED] = True
        if self._session_cache._fate == "kept":
            self._session_key = self._session_cache._told.id

    async def asave(self, must_create: bool = False) -> None:
        self.save(must_create)

    def delete(self, session_key: str | None = None) -> None:
        if session_key not in (None, self.session_key):
            raise SessionError("only the request's own session can be ended through headers")
        self.clear()

    async def adelete(self, session_key: str | None = None) -> None:
        self.delete(session_key)

    def exists(self, session_key: str) -> bool:
        raise SessionError("the headers do not show whether another session exists")

    def set_expiry(self, value: object) -> None:
        """Accepts only None, which in Django means the global lifetime."""
        if value is not None:
            _no_lifetime()

    async def aset_expiry(self, value: object) -> None:
        self.set_expiry(value)

    # Django derives ages and dates from these.
    def get_session_cookie_age(self) -> int:
        _no_lifetime()

    def get_expire_at_browser_close(self) -> bool:
        _no_lifetime()

    async def aget_expire_at_browser_close(self) -> bool:
        _no_lifetime()


class SessionMiddleware(_django.SessionMiddleware):
    """Provides the gateway's sessions instead of those of `SESSION_ENGINE`, which has no effect.

    A request that did not come through the gateway raises `HeadersError`. This is a subclass of
    Django's middleware because the checks of `django.contrib.admin` look for one.
    """

    def __init__(self, get_response: Any) -> None:
        _check_order()
        # Django's constructor imports SESSION_ENGINE.
        MiddlewareMixin.__init__(self, get_response)

    def process_request(self, request: HttpRequest) -> None:
        try:
            session = Session(read_environ(request.META))
        except HeadersError as error:
            # With CSRF_USE_SESSIONS, Django's error page reads the session.
            request.session = SessionStore(Session(Told("", {}), closed=str(error)))
            raise
        request.session = SessionStore(session)

    def process_response(self, request: HttpRequest, response: HttpResponse) -> HttpResponse:
        # The session may have been replaced by another middleware or a test.
        if not isinstance(request.session, SessionStore):
            return response
        # A page from Django's cache must not change the session.
        for name in (SESSION, ACTION):
            del response[name]
        for name, value in request.session._session_cache._answer():
            if name == "Vary":
                patch_vary_headers(response, value.split(", "))
            else:
                response[name] = value
        return response


def _check_order() -> None:
    """Refuses an outer middleware that could turn a response into a 304 without its headers."""
    conditional = "django.middleware.http.ConditionalGetMiddleware"
    ours = f"{__name__}.{SessionMiddleware.__name__}"
    order = list(settings.MIDDLEWARE)
    if conditional in order and ours in order and order.index(conditional) < order.index(ours):
        raise ImproperlyConfigured(
            f"MIDDLEWARE has {conditional} before {ours}: when it responds with 304, changes to "
            "sessions are lost, including logouts. Put it after"
        )


def _no_lifetime() -> NoReturn:
    raise SessionError(
        "the gateway sets the lifetime of all sessions (cookie.max_age and store.ttl of its "
        "configuration): it cannot be changed through headers"
    )
