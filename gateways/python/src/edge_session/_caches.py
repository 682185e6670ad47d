"""Response headers that prevent caches from serving one visitor's response to another."""

import re
from collections.abc import Iterable
from typing import TypeAlias

Headers: TypeAlias = list[tuple[bytes, bytes]]

#: The elements of a comma-separated list; commas within quotation marks do not separate (RFC 9110,
#: section 5.6.4).
_PIECES = re.compile(rb'(?:[^",]|"(?:[^"\\]|\\.)*(?:"|\\?\Z))+', re.DOTALL)

#: Headers for shared caches only, which override Cache-Control (RFC 9213).
_TARGETED = re.compile(rb"(?:.+-cache|surrogate)-control", re.IGNORECASE)


def keep_private(headers: Headers) -> Headers:
    """Marks a response with a session's cookie: no shared cache may store it."""
    said = [value for name, value in headers if name.lower() == b"cache-control"]
    others = [
        (name, b"no-store" if _TARGETED.fullmatch(name) else value)
        for name, value in headers
        if name.lower() != b"cache-control"
    ]
    # Several fields form one list (section 5.3).
    new = cache_control(b", ".join(said)) if said else b"no-store"
    return [*others, (b"cache-control", new)]


def cache_control(value: bytes) -> bytes:
    """Removes `public` and `s-maxage`, and adds `private` unless the response is already
    private."""
    directives = [piece for piece in _pieces([value]) if _name(piece) not in _SHARED]
    # `private="x-user"` covers only that field.
    whole = {_name(piece) for piece in directives if not piece.partition(b"=")[2].strip()}
    # Caches that understand the status ignore `no-store` beside `must-understand` (RFC 9111,
    # 5.2.2.3).
    is_stored = b"no-store" not in whole or b"must-understand" in whole
    if b"private" not in whole and is_stored:
        # At the front, because after an unclosed quotation mark it would not be a directive.
        directives.insert(0, b"private")
    return b", ".join(directives)


_SHARED = (b"public", b"s-maxage")


def vary_by_cookie(headers: Headers) -> Headers:
    """Marks a response that depends on the session."""
    names = _pieces(value for name, value in headers if name.lower() == b"vary")
    if any(name == b"*" or name.lower() == b"cookie" for name in names):
        return headers
    return [*headers, (b"vary", b"Cookie")]


def _pieces(values: Iterable[bytes]) -> list[bytes]:
    pieces = (piece.strip() for value in values for piece in _PIECES.findall(value))
    return [piece for piece in pieces if piece]


def _name(directive: bytes) -> bytes:
    return directive.partition(b"=")[0].strip().lower()
