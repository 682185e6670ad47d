"""Sessions for applications behind the gateway, which passes each request's session in headers.

This module implements the rules of docs/gateway.md. `edge_session.headers.asgi`, `.wsgi`, `.flask`
and `.django` integrate them with each framework's own sessions.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from .. import _json
from .._dictionary import LEFT, SessionDict, SessionError

__all__ = ["HeadersError", "Session", "SessionError"]

ID = "Edge-Session-Id"
SESSION = "Edge-Session"
ACTION = "Edge-Session-Action"

_DESTROYED = "the session was destroyed: it can no longer be changed"
_NOWHERE = (
    "the gateway has no session for this request, so nothing can be stored in it: the path is "
    'outside cookie.path; gateway.sessions is "shared" and the application owns the sessions; or '
    "another gateway, such as nginx, forwards the request itself, so that only the session API of "
    "edge-session can change it"
)
_NOT_OURS = (
    "it did not come through the gateway (edge-session serve --upstream). The application must "
    "listen only where the gateway alone can reach it, and tests must send both headers. Behind a "
    "gateway that only asks edge-session (forward authentication), use its session API instead"
)

_TOO_DEEP = "is nested too deeply to be read"

#: What happened to the session as a whole. A cleared session has ended, and what is put into it
#: afterwards belongs to a new one.
_Fate: TypeAlias = Literal["kept", "renewed", "cleared", "regenerated", "destroyed"]


class HeadersError(Exception):
    """The request's headers are not those that the gateway sends."""


@dataclass(frozen=True, repr=False)
class Told:
    """What the gateway sent about a request's session."""

    #: Empty: the request has no session.
    id: str
    #: The JSON text of each value.
    data: dict[str, str]


def read(ids: Sequence[str], sessions: Sequence[str]) -> Told:
    """Parses all values of `Edge-Session-Id` and of `Edge-Session`."""
    for name, values in ((ID, ids), (SESSION, sessions)):
        if len(values) != 1:
            how_many = "several headers" if values else "no header"
            raise HeadersError(f"the request has {how_many} {name}: {_NOT_OURS}")
    (id,), (text,) = ids, sessions
    try:
        if not text.isascii() or not isinstance(_decode(text), dict):
            raise ValueError
        return Told(id, _members(text))
    except ValueError:
        problem = f"is not a JSON object in ASCII: {_NOT_OURS}"
    except RecursionError:
        problem = _TOO_DEEP
    raise HeadersError(f"the request's header {SESSION} {problem}")


def read_environ(environ: Mapping[str, Any]) -> Told:
    """Parses the headers of a WSGI environment, which Django also has."""
    ids = [environ["HTTP_EDGE_SESSION_ID"]] if "HTTP_EDGE_SESSION_ID" in environ else []
    sessions = [environ["HTTP_EDGE_SESSION"]] if "HTTP_EDGE_SESSION" in environ else []
    # Servers join repeated headers with commas, which identifiers do not contain. Several values of
    # the data do not form valid JSON.
    return read([part for id in ids for part in id.split(",")], sessions)


class Session(SessionDict):
    """A visitor's session during one request.

    A dictionary of JSON values: strings, numbers, booleans, None, lists and dictionaries. Changes,
    including those inside values, are sent with the response's headers:
    `session["cart"]["apples"] = 3`. Copies are plain dictionaries.

    `cookie` and the names of JavaScript's `Session.prototype` (`id`, `save`, `toString`, …) cannot
    be keys: the gateway refuses the response.
    """

    def __init__(self, told: Told, closed: str | None = None) -> None:
        try:
            super().__init__((key, self._read(text)) for key, text in told.data.items())
        except RecursionError:
            raise HeadersError(f"the request's header {SESSION} {_TOO_DEEP}") from None
        self._told = told
        self._fate: _Fate = "kept"
        self._closed = closed if told.id else closed or _NOWHERE
        self._is_answered = False

    @property
    def id(self) -> str:
        """The identifier that the request came with; empty if it has no session.

        It is a secret, like a password: never log or show it. After `renew()`, `regenerate()` or
        `clear()`, the session has a new identifier, which is known from the next request on.
        """
        self.mark_accessed()
        return self._told.id

    def clear(self) -> None:
        """Removes all keys and ends the session.

        What is put into it afterwards belongs to a new session, under a new identifier.
        """
        self._end("cleared")

    def __repr__(self) -> str:
        """Omits the identifier and the data: both are secrets."""
        return "<Session>"

    # -------------------------------------------------------- the session as a whole ----

    def renew(self) -> None:
        """Continues under a new identifier with the same data.

        Call this at changes of privilege, especially at login: it makes an identifier planted by an
        attacker worthless. With `gateway.identity`, the gateway does it automatically.
        """
        self._write()
        if self._fate == "kept":
            self._fate = "renewed"

    def regenerate(self) -> None:
        """Ends the session and starts an empty one under a new identifier."""
        self._end("regenerated")

    def destroy(self) -> None:
        """Ends the session and clears the browser's cookie: logout."""
        self._end("destroyed")
        self._closed = _DESTROYED

    def _end(self, fate: _Fate) -> None:
        super().clear()
        self._fate = fate

    # --------------------------------------------------------------- for the adapters ----

    def _read(self, text: str) -> Any:
        """Parses a JSON text."""
        return _decode(text)

    def _text(self, value: Any) -> str:
        """Returns the JSON text of a value, which may contain NaN and infinity."""
        return _encode_any(value)

    def _answer(self) -> list[tuple[str, str]]:
        """Returns the session's headers for the response; empty after the first call."""
        if self._is_answered:
            return []
        self._is_answered = True
        is_used = self._is_used
        try:
            change = self._change()
        finally:
            self._closed = LEFT
        return [*change, ("Vary", self._varies(bool(change)))] if is_used else change

    def _change(self) -> list[tuple[str, str]]:
        if self._fate == "cleared" and not self and not self._told.data:
            return []
        if self._fate == "destroyed" or (self._fate == "cleared" and not self):
            return [(ACTION, "destroy")]
        data = {key: self._text_to_send(key, value) for key, value in self.items()}
        members = (f"{_encode(key)}:{text}" for key, text in data.items())
        whole = (SESSION, f"{{{','.join(members)}}}")
        if self._fate != "kept":
            action = (ACTION, "regenerate")
            return [action, whole] if data else [action]
        return [] if list(data.items()) == list(self._told.data.items()) else [whole]

    def _varies(self, is_changed: bool) -> str:
        """Returns the Vary header, for caches outside the application and within it.

        The latter may not see the cookie. Visitors without a session may share a page.
        """
        names = ["Cookie", SESSION]
        return ", ".join([*names, ID] if is_changed or self._told.data else names)

    def _text_to_send(self, key: str, value: Any) -> str:
        """Returns a value's text to send: the received text if the value did not change."""
        told = self._told.data.get(key)
        try:
            text = self._text(value)
            if told is not None and text == self._text(self._read(told)):
                return told
            return _encode(_decode(text))
        except (TypeError, ValueError, RecursionError) as error:
            why = _reason(error)
        # Without the error's message, which may contain the value.
        raise SessionError(f"the value of the session's key {key!r} cannot be stored: {why}")


def _no_constant(_: str) -> Any:
    raise ValueError  # NaN and infinity


_decode = json.JSONDecoder(parse_int=_json.integer, parse_constant=_no_constant).decode
_decode_at = json.JSONDecoder(parse_int=_json.integer).raw_decode
_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
_encode_any = json.JSONEncoder(separators=(",", ":")).encode

#: Matches what separates keys and values.
_GAP = re.compile(r"[ \t\n\r,:]*")
#: Python's errors that name a type, but no value.
_NAMES_A_TYPE = re.compile(
    r"Object of type \w+ is not JSON serializable|keys must be [\w, ]+, not \w+"
)


def _members(text: str) -> dict[str, str]:
    """Returns the text of each value of a JSON object that was parsed before."""
    members: dict[str, str] = {}
    at = text.index("{") + 1
    while text[at := _past_gap(text, at)] != "}":
        key, at = _decode_at(text, at)
        start = _past_gap(text, at)
        _, at = _decode_at(text, start)
        members[key] = text[start:at]
    return members


def _past_gap(text: str, at: int) -> int:
    gap = _GAP.match(text, at)
    return gap.end() if gap else at


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if _NAMES_A_TYPE.fullmatch(str(error)):
        return str(error)
    return "JSON has no such value (NaN, infinity, a circular reference, …)"
