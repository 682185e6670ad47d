"""The base class of sessions: a dictionary that records access and can be closed to changes."""

from collections.abc import Callable
from functools import wraps
from typing import Any, Self

#: Why a session can no longer be changed.
LEFT = "the response's headers were sent: the session can no longer be changed"
READ_ONLY = "a WebSocket's session is read-only"


class SessionError(Exception):
    """The session cannot be used in this way."""


class SessionDict(dict[str, Any]):
    """A dictionary with string keys. Copies (`copy()`, `|`, the module `copy`) are plain
    dictionaries."""

    #: Whether the application has read or changed the session.
    _is_used = False
    #: Why the session can no longer be changed, if so.
    _closed: str | None = None

    def mark_accessed(self) -> None:
        """Records an access, as in Starlette's `request.session`: the response may depend on the
        session."""
        self._is_used = True

    def _write(self) -> None:
        if self._closed:
            raise SessionError(self._closed)
        self.mark_accessed()

    def __setitem__(self, key: str, value: Any) -> None:
        _check(key)
        self._write()
        super().__setitem__(key, value)

    def __delitem__(self, key: str) -> None:
        self._write()
        super().__delitem__(key)

    def pop(self, key: str, *default: Any) -> Any:
        if key in self:
            self._write()
        return super().pop(key, *default)

    def popitem(self) -> tuple[str, Any]:
        self._write()
        return super().popitem()

    def setdefault(self, key: str, default: Any = None) -> Any:
        if key not in self:
            self[key] = default
        return self[key]

    def update(self, *args: Any, **values: Any) -> None:
        new = dict(*args, **values)
        for key in new:
            _check(key)
        self._write()
        super().update(new)

    def __ior__(self, other: Any) -> Self:  # type: ignore[override,misc]
        self.update(other)
        return self

    def clear(self) -> None:
        """Removes all keys."""
        self._write()
        super().clear()

    def __reduce__(self) -> Any:
        return dict, (dict(self),)


def _reading(name: str) -> Callable[..., Any]:
    method = getattr(dict, name)

    @wraps(method)
    def read(self: SessionDict, *args: Any) -> Any:
        self.mark_accessed()
        return method(self, *args)

    return read


for _name in (
    "__contains__",
    "__eq__",
    "__getitem__",
    "__iter__",
    "__len__",
    "__ne__",
    "__or__",
    "__reversed__",
    "__ror__",
    "copy",
    "get",
    "items",
    "keys",
    "values",
):
    setattr(SessionDict, _name, _reading(_name))


def _check(key: object) -> None:
    if not isinstance(key, str):
        raise TypeError(f"the session's keys must be strings, not {type(key).__name__}")
