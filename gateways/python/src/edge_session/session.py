"""The session as an application sees it."""

from collections.abc import Iterator, MutableMapping
from datetime import UTC, datetime, timedelta
from typing import Any

from . import _json
from ._contract import Action, Change, CookieEdit, DataChange, Edit, Origin, Ready

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

#: Of the year 9999: JavaScript's dates go on, Python's do not.
_LAST_MILLISECOND = 253_402_300_799_999

#: The furthest that JavaScript's dates are from 1970, in seconds.
_LONGEST = 8.64e12

#: What can be changed from within.
_CONTAINERS = (dict, list)


class SessionError(Exception):
    """The session cannot be used in this way."""


class InvalidChange(Exception):
    """The application has put something into the session that JSON does not have."""


class Session(MutableMapping[str, Any]):
    """One visitor's session, for the length of one request.

    A dictionary of what JSON has: texts, numbers, booleans, None, lists and dictionaries.
    Changes are stored before the response's headers leave, those inside values too:
    `session["cart"]["apples"] = 3`. A key that did not change is left as it is stored,
    even if another request has changed it meanwhile.

    `cookie` and the names of JavaScript's `Session.prototype` (`id`, `save`, `toString`, …)
    cannot be keys: the request fails.
    """

    def __init__(self, ready: Ready, closed: str | None = None) -> None:
        self._id = ready.exchange.id
        self._origin: Origin = ready.exchange.origin
        self._expires = ready.expires
        #: The stored data, as JSON text.
        self._text = ready.data
        #: What it says, as the application has changed it. None: not looked at yet.
        self._data: dict[str, Any] | None = None
        #: What it says, as it is stored; but for lists and dictionaries, which are `_data`'s.
        self._stored: dict[str, Any] = {}
        #: Keys that were set, and keys that were removed at some time.
        self._set: set[str] = set()
        self._removed: set[str] = set()
        #: The stored data counts no more.
        self._is_cleared = False
        self._action: Action = "keep"
        self._cookie: list[CookieEdit] = []
        #: Why it can no longer be changed.
        self._closed = closed

    # ------------------------------------------------------------ the dictionary ----

    def _open(self) -> dict[str, Any]:
        if self._data is None:
            self._data = _json.read(self._text)
            self._stored = dict(self._data)
        return self._data

    def _write(self) -> dict[str, Any]:
        if self._closed:
            raise SessionError(self._closed)
        return self._open()

    def __getitem__(self, key: str) -> Any:
        return self._open()[key]

    def __setitem__(self, key: str, value: Any) -> None:
        if not isinstance(key, str):
            raise TypeError(f"the session's keys are texts, not {type(key).__name__}")
        self._write()[key] = value
        self._set.add(key)

    def __delitem__(self, key: str) -> None:
        del self._write()[key]
        self._removed.add(key)

    def __iter__(self) -> Iterator[str]:
        return iter(self._open())

    def __len__(self) -> int:
        return len(self._open())

    def __contains__(self, key: object) -> bool:
        return key in self._open()

    def clear(self) -> None:
        """Remove all keys."""
        self._write().clear()
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
        return self._id

    @property
    def origin(self) -> Origin:
        """Where the session comes from: `loaded`, or why it is new."""
        return self._origin

    @property
    def expires(self) -> datetime | None:
        """When the stored session ends unless it is used; None: it is not stored yet."""
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
        data = self._data
        if self._is_cleared:
            return ("whole", self._whole())
        if data is None:
            return ("nothing", None)
        stored = self._stored
        if any(isinstance(value, _CONTAINERS) for value in stored.values()):
            stored = _json.read(self._text)  # they may have been changed from within
        edits = [Edit(key, None) for key in stored if key in self._removed]
        for key, value in data.items():
            if not (key in self._set or isinstance(value, _CONTAINERS)):
                continue
            if key in self._removed or key not in stored or not _is_same(stored[key], value):
                edits.append(Edit(key, _write(key, value)))
        if not edits:
            return ("nothing", None)
        for key, _ in edits:
            if not _json.is_unicode(key):
                raise InvalidChange("a key with a lone surrogate can be neither set nor removed")
        return ("edits", edits)

    def _whole(self) -> str:
        data = self._data or {}
        members = (f"{_json.write(key)}:{_write(key, data[key])}" for key in data)
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
