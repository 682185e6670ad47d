"""What the component is spared: more of a value than its answer can depend on.

A value costs memory and time before the component sees its first byte: Python's, in the event
loop. These are no rules of their own: the component's answer is the same as for the whole value.
"""

from collections.abc import Iterable

from ._contract import Change, Stored

#: The component does not look at more in all Cookie headers together, and says `oversized`.
_COOKIES = 16 << 10

#: The longest `cookie.path` that the options may have: it, and what follows it, decide.
_PATH = 1024

#: What proxies put into X-Forwarded-Proto is far shorter.
_FORWARDED_PROTO = 1024


def cookies(values: Iterable[bytes]) -> list[bytes]:
    """The values of the Cookie headers: of too much, so much that it is still too much.

    Several are joined, as servers of HTTP/1 do it (RFC 9113, section 8.2.3): to the component
    they are one, too.
    """
    taken = []
    left = _COOKIES + 1
    for value in values:
        if left < 0:
            break
        taken.append(value[:left])
        left -= len(value) + 1
    return [b";".join(taken)[: _COOKIES + 1]] if taken else []


def path(raw: bytes | str) -> str:
    """The beginning of a request's path."""
    beginning = raw[: _PATH + 1]
    return beginning if isinstance(beginning, str) else beginning.decode("utf-8", "replace")


def forwarded_proto(value: bytes | None) -> bytes | None:
    """A value that says nothing is none."""
    return None if value is None or len(value) > _FORWARDED_PROTO else value


def stored(session: Stored, most: int) -> Stored:
    """A stored session of more than `most` bytes is damaged, and so is an empty text."""
    return session._replace(data="") if len(session.data) > most else session


def excess(change: Change, most: int) -> int | None:
    """How large a session becomes at least, if that is more than `most` bytes.

    What a change sets is part of the session that is stored. (A character has at least a byte.)
    """
    if change.action in ("destroy", "unset"):
        return None
    match change.data:
        case ("whole", text):
            size = len(text)
        case ("edits", edits):
            size = sum(len(key) + len(value) for key, value in edits if value is not None)
        case _:
            return None
    return size if size > most else None
