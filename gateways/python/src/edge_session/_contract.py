"""The records of wit/engine.wit that are passed with every request, with its names and order.

A variant is a pair of a case and its payload: `("touch", 1700000000000)`. An enum is a string.
"""

from typing import Any, Literal, NamedTuple, TypeAlias

Origin: TypeAlias = Literal[
    "loaded", "absent", "malformed", "forged", "oversized", "unknown", "damaged", "detached"
]
Action: TypeAlias = Literal["keep", "renew", "regenerate", "destroy", "unset"]


class Stored(NamedTuple):
    """A stored session."""

    #: The JSON text, exactly as it was written.
    data: str
    #: When the session expires, in milliseconds since the Unix epoch; None: never.
    expires: int | None
    #: When the session was last saved or touched; None: the store does not record it.
    touched: int | None = None


class Content(NamedTuple):
    """A session to store."""

    #: The JSON text.
    data: str
    #: When the session expires, in milliseconds since the Unix epoch.
    expires: int


class Known(NamedTuple):
    """What the store has returned for this request's session so far."""

    loaded: Stored | None
    current: Stored | None


class Replacement(NamedTuple):
    content: Content
    only_known: bool


class Request(NamedTuple):
    cookies: list[bytes]
    path: str
    tls: bool
    secure: bool
    forwarded_proto: bytes | None


class Exchange(NamedTuple):
    id: str
    others: list[str]
    phase: str
    secure: bool
    presented: bool
    origin: Origin
    conflicts: int


class Ready(NamedTuple):
    """The contract's `session`."""

    exchange: Exchange
    data: str
    #: Always None, because it is not used.
    cookie: None
    expires: int | None


class Edit(NamedTuple):
    key: str
    value: str | None


DataChange: TypeAlias = (
    tuple[Literal["nothing"], None]
    | tuple[Literal["edits"], list[Edit]]
    | tuple[Literal["whole"], str]
)
CookieEdit: TypeAlias = tuple[Literal["max-age"], float | None]


class Change(NamedTuple):
    action: Action
    data: DataChange
    cookie: list[CookieEdit]


Failure: TypeAlias = (
    tuple[Literal["unavailable"], str]
    | tuple[Literal["invalid-change"], str]
    | tuple[Literal["too-large"], int]
    | tuple[Literal["contention"], None]
)


class Outcome(NamedTuple):
    event: str
    new_id: str | None
    set_cookie: str | None
    no_store: bool
    conflicts: int
    failure: Failure | None


StoreRequest: TypeAlias = (
    tuple[Literal["load"], None]
    | tuple[Literal["create"], Content]
    | tuple[Literal["replace"], Replacement]
    | tuple[Literal["touch"], int]
    | tuple[Literal["delete"], bool]
)
StoreReply: TypeAlias = tuple[str, str | None]


class Pending(NamedTuple):
    request: StoreRequest
    exchange: Exchange
    on_done: Outcome | None


#: The cases `store`, `ready` and `done`, distinguished by their payloads.
Step: TypeAlias = Pending | Ready | Outcome


def _fields(record: Any) -> tuple[str, ...]:
    fields: tuple[str, ...] = record._fields
    return fields


#: The record classes by their field names.
RECORDS: dict[tuple[str, ...], Any] = {
    _fields(record): record
    for record in (
        Stored,
        Content,
        Known,
        Replacement,
        Request,
        Exchange,
        Ready,
        Edit,
        Change,
        Outcome,
        Pending,
    )
}

#: The fields of the record `cookie`.
COOKIE = (
    "original_max_age",
    "expires",
    "path",
    "domain",
    "http_only",
    "secure",
    "same_site",
    "partitioned",
    "priority",
)
