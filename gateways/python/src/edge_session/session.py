"""The session as an application sees it."""

from datetime import UTC, datetime, timedelta
from typing import Any

from . import _json
from ._contract import Action, Change, CookieEdit, DataChange, Edit, Origin, Ready
from ._dictionary import SessionDict, SessionError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

#: Of the year 9999: JavaScript's dates go on, Python's do not.
_LAST_MILLISECOND = 253_402_300_799_999

#: The furthest that JavaScript's dates are from 1970, in seconds.
_LONGEST = 8.64e12

#: What can be changed from within.
_CONTAINERS = (dict, list)


class InvalidChange(Exception):
    """The application has put something into the session that JSON does not have."""


class Session(SessionDict):
    """One visitor's session, for the length of one request.

    A dictionary of what JSON has: texts, numbers, booleans, None, lists and dictionaries.
    Changes are stored before the response's headers leave, those inside values too:
    `session["cart"]["apples"] = 3`. A key that did not change is left as it is stored,
    even if another request has changed it meanwhile. Copies (`copy()`, `|`, the module `copy`)
    are plain dictionaries.

    `cookie` and the names of JavaScript's `Session.prototype` (`id`, `save`, `toString`, …)
    cannot be keys: the request fails.
    """

    def __init__(self, ready: Ready, closed: str | None = None) -> None:
        self._id = ready.exchange.id
        self._origin: Origin = ready.exchange.origin
        self._expires = ready.expires
        #: The stored data, as JSON text.
        self._text = ready.data
        #: Why the application cannot have it.
        self._unreadable: str | None = None
        #: What is stored; but for what is inside lists and dictionaries, which are the same ones.
        self._stored: dict[str, Any] = {}
        try:
            self._stored = _json.read(ready.data)
        except RecursionError:
            self._unreadable = "the stored session is nested too deeply"
        super().__init__(self._stored)
        #: The stored data counts no more.
        self._is_cleared = False
        self._action: Action = "keep"
        self._cookie: list[CookieEdit] = []
        self._closed = closed

    def mark_accessed(self) -> None:
        super().mark_accessed()
        if self._unreadable:
            raise SessionError(self._unreadable)

    def clear(self) -> None:
        """Remove all keys."""
        if not self._closed:
            self._unreadable = None
        super().clear()
        self._is_cleared = True

    # -------------------------------------------------------- the session as a whole ----

    def renew(self) -> None:
        """Go on under a new identifier, with the data.

        For changes of privilege, the login above all: an identifier that somebody planted is
        worthless then.
        """
        self._write()
        if self._action == "keep":
            self._action = "renew"

    def regenerate(self) -> None:
        """Delete the session and begin an empty one under a new identifier."""
        self.clear()
        self._action = "regenerate"
        self._cookie.clear()

    def destroy(self) -> None:
        """Delete the session and clear the browser's cookie: logout."""
        self.clear()
        self._action = "destroy"

    def unset(self) -> None:
        """As setting express-session's `req.session` to null: see the option `unset`."""
        self._write()
        # After these the stored one was given up before.
        is_given_up = self._action in ("regenerate", "destroy")
        self._action = "destroy" if is_given_up else "unset"

    def set_max_age(self, seconds: float | timedelta | None) -> None:
        """Set how long this session and its cookie live from the last request on.

        None: until the browser closes. Other sessions keep the configured lifetime.
        """
        self._write()
        if isinstance(seconds, timedelta):
            seconds = seconds.total_seconds()
        if seconds is not None and not 0 <= seconds <= _LONGEST:
            raise ValueError(f"{seconds} seconds are not a lifetime")
        self._cookie.append(("max-age", None if seconds is None else round(seconds * 1000)))

    @property
    def id(self) -> str:
        """The identifier. It is a secret as good as a password: never log or show it."""
        self._is_used = True
        return self._id

    @property
    def origin(self) -> Origin:
        """Where the session comes from: `loaded`, or why it is new."""
        self._is_used = True
        return self._origin

    @property
    def expires(self) -> datetime | None:
        """When the stored session ends unless it is used; None: it is not stored yet."""
        self._is_used = True
        if self._expires is None:
            return None
        return _EPOCH + timedelta(milliseconds=min(self._expires, _LAST_MILLISECOND))

    def __repr__(self) -> str:
        """Neither the identifier nor the data: both are secrets."""
        return f"<Session {self._origin}>"

    # --------------------------------------------------------------- for the gateway ----

    def _close(self, why: str) -> None:
        self._closed = why

    def _change(self) -> Change:
        """What the application did."""
        return Change(self._action, self._data_change(), self._cookie)

    def _data_change(self) -> DataChange:
        if self._is_cleared:
            return ("whole", self._whole())
        if not self._is_used:
            return ("nothing", None)
        stored = self._stored
        if any(isinstance(value, _CONTAINERS) for value in stored.values()):
            stored = _json.read(self._text)  # they may have been changed from within
        changed: list[Edit] = []
        kept: set[str] = set()
        order = iter(stored)
        for key, value in dict.items(self):
            # What comes later than it is stored was removed, and set again.
            if key in order:
                kept.add(key)
                is_scalar = not isinstance(value, _CONTAINERS)
                if (is_scalar and value is self._stored[key]) or _is_same(stored[key], value):
                    continue
            changed.append(Edit(key, _write(key, value)))
        edits = [Edit(key, None) for key in stored if key not in kept] + changed
        if not edits:
            return ("nothing", None)
        for key, _ in edits:
            if not _json.is_unicode(key):
                raise InvalidChange("a key with a lone surrogate can be neither set nor removed")
        return ("edits", edits)

    def _whole(self) -> str:
        members = (f"{_json.write(key)}:{_write(key, self[key])}" for key in self)
        return f"{{{','.join(members)}}}"


def _is_same(old: Any, new: Any) -> bool:
    """Whether two values have the same text. (In Python True equals 1.)"""
    if type(old) is int and type(new) is int:
        return old == new
    try:
        return _json.plain(old) == _json.plain(new)
    except (TypeError, ValueError, RecursionError):
        return False  # what is wrong with it, writing it says


def _write(key: str, value: Any) -> str:
    try:
        return _json.write(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidChange(f"the value of `{key}` cannot be written as JSON: {error}") from error
