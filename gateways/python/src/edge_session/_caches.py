"""What a response must say to caches, so that none hands it to somebody else."""

import re
from collections.abc import Iterable
from typing import TypeAlias

Headers: TypeAlias = list[tuple[bytes, bytes]]

#: What is between the commas of a list, but not within quotation marks (RFC 9110, section 5.6.4).
_PIECES = re.compile(rb'(?:[^",]|"(?:[^"\\]|\\.)*(?:"|\\?\Z))+', re.DOTALL)

#: For shared caches alone, which then do not look at Cache-Control (RFC 9213).
_TARGETED = re.compile(rb"(?:.+-cache|surrogate)-control", re.IGNORECASE)


def keep_private(headers: Headers) -> Headers:
    """For a response that carries somebody's cookie: no shared cache keeps it."""
    said = [value for name, value in headers if name.lower() == b"cache-control"]
    others = [
        (name, b"no-store" if _TARGETED.fullmatch(name) else value)
        for name, value in headers
        if name.lower() != b"cache-control"
    ]
    # Several fields are one list (section 5.3).
    new = cache_control(b", ".join(said)) if said else b"no-store"
    return [*others, (b"cache-control", new)]


def cache_control(value: bytes) -> bytes:
    """Without `public` and `s-maxage`, and with `private` where neither that nor `no-store` is.
    All else is as it was."""
    directives = [piece for piece in _pieces([value]) if _name(piece) not in _SHARED]
    # `private="x-user"` is about that field alone.
    whole = {_name(piece) for piece in directives if not piece.partition(b"=")[2].strip()}
    # Who understands the status ignores `no-store` beside `must-understand` (RFC 9111, 5.2.2.3).
    is_stored = b"no-store" not in whole or b"must-understand" in whole
    if b"private" not in whole and is_stored:
        # In front: behind a quotation mark that is never closed it would be no directive.
        directives.insert(0, b"private")
    return b", ".join(directives)


_SHARED = (b"public", b"s-maxage")


def vary_by_cookie(headers: Headers) -> Headers:
    """For a response that depends on the session."""
    names = _pieces(value for name, value in headers if name.lower() == b"vary")
    if any(name == b"*" or name.lower() == b"cookie" for name in names):
        return headers
    return [*headers, (b"vary", b"Cookie")]


def _pieces(values: Iterable[bytes]) -> list[bytes]:
    pieces = (piece.strip() for value in values for piece in _PIECES.findall(value))
    return [piece for piece in pieces if piece]


def _name(directive: bytes) -> bytes:
    return directive.partition(b"=")[0].strip().lower()
