"""Truncates values before they enter the component.

A value takes memory and time in Python, on the event loop, before the component sees its first
byte. Each is cut to more than the component's result can depend on. These are not additional rules;
the result is the same as for the whole value.
"""

from collections.abc import Iterable

from ._contract import Change, Stored
from .session import InvalidChange

#: The component reads no more than this in all Cookie headers together, and reports `oversized`.
_COOKIES = 16 << 10

_SEPARATOR = b"; "

#: The maximum length of the option `cookie.path`. Only these characters and the next one matter.
_PATH = 1024

#: Far longer than the X-Forwarded-Proto of any proxy.
_FORWARDED_PROTO = 1024


def cookies(values: Iterable[bytes]) -> bytes:
    """Joins the values of the Cookie headers (RFC 9113, section 8.2.3). Truncated ones are still
    too large."""
    taken = []
    # After the last value, the separator is missing.
    left = _COOKIES + 1 + len(_SEPARATOR)
    for value in values:
        if left <= 0:
            break
        taken.append(value[:left])
        left -= len(value) + len(_SEPARATOR)
    return _SEPARATOR.join(taken)[: _COOKIES + 1]


def path(raw: bytes | str) -> str:
    """Returns the beginning of a request's path."""
    beginning = raw[: _PATH + 1]
    return beginning if isinstance(beginning, str) else beginning.decode("utf-8", "replace")


def forwarded_proto(value: bytes | None) -> bytes | None:
    """Returns None for an implausible value."""
    return None if value is None or len(value) > _FORWARDED_PROTO else value


def stored(session: Stored, most: int) -> Stored:
    """Empties a text of more than `most` bytes: either is a damaged session to the component. A
    time before 1970 counts as 1970."""
    if session.expires is not None and session.expires < 0:
        session = session._replace(expires=0)
    return session._replace(data="") if len(session.data) > most else session


def check(change: Change, most: int) -> None:
    """Raises `InvalidChange` if the data of a change alone exceeds `most` bytes.

    What a change sets is part of the stored session. (A character has at least one byte.)
    """
    if change.action in ("destroy", "unset"):
        return
    match change.data:
        case ("whole", text):
            size = len(text)
        case ("edits", edits):
            size = sum(len(key) + len(value) for key, value in edits if value is not None)
        case _:
            return
    if size > most:
        raise InvalidChange(
            f"the session would have at least {size} bytes, more than max_session_bytes, {most}"
        )
