"""The session as an application sees it."""

from datetime import UTC, datetime, timedelta
from typing import Any

from . import _json
from ._contract import Action, Change, DataChange, Edit, Origin, Ready, Stored
from ._dictionary import SessionDict, SessionError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

#: In the year 9999: JavaScript's dates have a larger range than Python's.
_LAST_MILLISECOND = 253_402_300_799_999

#: The maximum distance of a JavaScript date from 1970, in seconds.
_LONGEST = 8.64e12

#: Types that can be changed in place.
_CONTAINERS = (dict, list)


class InvalidChange(Exception):
    """The application's change cannot be passed to the component, with the reason."""


class Session(SessionDict):
    """A visitor's session during one request.

    A dictionary of JSON values: strings, numbers, booleans, None, lists and dictionaries. Changes,
    including those inside values, are stored before the response's headers are sent:
    `session["cart"]["apples"] = 3`. An unchanged key keeps its stored value, even if another
    request has changed it in the meantime. Copies (`copy()`, `|`, the module `copy`) are plain
    dictionaries.

    `cookie` and the names of JavaScript's `Session.prototype` (`id`, `save`, `toString`, …) cannot
    be keys: the request fails.
    """

    def __init__(
        self, ready: Ready, stored: Stored | None = None, closed: str | None = None
    ) -> None:
        self._id = ready.visit.id
        self._origin: Origin = ready.origin
        self._expires = stored.expires if stored and ready.origin == "loaded" else None
        #: The session, as JSON text.
        self._text = ready.text or (stored.data if stored else "{}")
        #: Why the data cannot be read, if so.
        self._unreadable: str | None = None
        #: The stored data. Its lists and dictionaries are shared with the session.
        self._stored: dict[str, Any] = {}
        try:
            self._stored = _read(self._text)
        except RecursionError:
            self._unreadable = "the stored session is nested too deeply"
        super().__init__(self._stored)
        #: Whether the stored data was discarded.
        self._is_cleared = False
        self._action: Action = "keep"
        self._cookie: list[Edit] = []
        self._closed = closed

    def mark_accessed(self) -> None:
        super().mark_accessed()
        if self._unreadable:
            raise SessionError(self._unreadable)

    def clear(self) -> None:
        """Removes all keys."""
        if not self._closed:
            self._unreadable = None
        super().clear()
        self._is_cleared = True

    # -------------------------------------------------------- the session as a whole ----

    def renew(self) -> None:
        """Continues under a new identifier with the same data.

        Call this at changes of privilege, especially at login: it makes an identifier planted by an
        attacker worthless.
        """
        self._write()
        if self._action == "keep":
            self._action = "renew"

    def regenerate(self) -> None:
        """Deletes the session and starts an empty one under a new identifier."""
        self.clear()
        self._action = "regenerate"
        self._cookie.clear()

    def destroy(self) -> None:
        """Deletes the session and clears the browser's cookie: logout."""
        self.clear()
        self._action = "destroy"

    def unset(self) -> None:
        """Acts like setting express-session's `req.session` to null: see the option `unset`."""
        self._write()
        # After these, the stored session was already discarded.
        is_given_up = self._action in ("regenerate", "destroy")
        self._action = "destroy" if is_given_up else "unset"

    def set_max_age(self, seconds: float | timedelta | None) -> None:
        """Sets the lifetime of this session and its cookie since the last request.

        None: until the browser closes. Other sessions keep the configured lifetime.
        """
        self._write()
        if isinstance(seconds, timedelta):
            seconds = seconds.total_seconds()
        if seconds is not None and not 0 <= seconds <= _LONGEST:
            raise ValueError(f"{seconds} seconds are not a lifetime")
        millis = "null" if seconds is None else str(round(seconds * 1000))
        self._cookie.append(Edit("maxAge", millis))

    @property
    def id(self) -> str:
        """The identifier. It is a secret, like a password: never log or show it."""
        self._is_used = True
        return self._id

    @property
    def origin(self) -> Origin:
        """Where the session comes from: `loaded`, or why it is new."""
        self._is_used = True
        return self._origin

    @property
    def expires(self) -> datetime | None:
        """When the stored session expires unless it is used; None: it is not stored yet."""
        self._is_used = True
        if self._expires is None:
            return None
        return _EPOCH + timedelta(milliseconds=min(self._expires, _LAST_MILLISECOND))

    def __repr__(self) -> str:
        """Omits the identifier and the data: both are secrets."""
        return f"<Session {self._origin}>"

    # --------------------------------------------------------------- for the gateway ----

    def _close(self, why: str) -> None:
        self._closed = why

    def _change(self) -> Change:
        """Returns the application's change."""
        return Change(self._action, self._data_change(), self._cookie)

    def _data_change(self) -> DataChange:
        if self._is_cleared:
            return ("whole", self._whole())
        if not self._is_used:
            return ("nothing", None)
        stored = self._stored
        if any(isinstance(value, _CONTAINERS) for value in stored.values()):
            stored = _read(self._text)  # they may have been changed in place
        changed: list[Edit] = []
        kept: set[str] = set()
        order = iter(stored)
        for key, value in dict.items(self):
            # A key that comes later than in the stored data was removed and set again.
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


def _read(text: str) -> dict[str, Any]:
    """Returns the data of a session's text."""
    session: dict[str, Any] = _json.read(text)
    session.pop("cookie", None)
    return session


def _is_same(old: Any, new: Any) -> bool:
    """Whether two values have the same text. (In Python True equals 1.)"""
    if type(old) is int and type(new) is int:
        return old == new
    try:
        return _json.plain(old) == _json.plain(new)
    except (TypeError, ValueError, RecursionError):
        return False  # writing it will report what is wrong


def _write(key: str, value: Any) -> str:
    try:
        return _json.write(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidChange(f"the value of `{key}` cannot be written as JSON: {error}") from error
