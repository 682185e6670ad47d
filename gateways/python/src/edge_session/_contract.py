"""The records of wit/engine.wit that this package uses, with its names and order.

A variant and a result is a pair of a case and its payload: `("touch", 1700000000000)`. An enum is a
string.
"""

from typing import Any, Literal, NamedTuple, TypeAlias

Origin: TypeAlias = Literal[
    "loaded", "absent", "malformed", "forged", "oversized", "unknown", "damaged", "detached"
]
Action: TypeAlias = Literal["keep", "renew", "regenerate", "destroy", "unset"]
FailureKind: TypeAlias = Literal[
    "unavailable", "invalid-change", "too-large", "contention", "misuse"
]


class Setting(NamedTuple):
    """An option and its value."""

    name: str
    value: tuple[Literal["json"], str] | tuple[Literal["bytes"], bytes]


class Problem(NamedTuple):
    """A problem with the options."""

    #: The option's name, as it was given: `cookie.same_site`.
    name: str
    #: What is wrong, and how to fix it. Never contains a secret.
    message: str


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


Operation: TypeAlias = (
    tuple[Literal["create"], Content]
    | tuple[Literal["replace"], Content]
    | tuple[Literal["touch"], int]
    | tuple[Literal["delete"], None]
    | tuple[Literal["load"], None]
)


class Write(NamedTuple):
    id: str
    operation: Operation
    if_unchanged: bool


Obstacle: TypeAlias = (
    tuple[Literal["missing", "taken"], None]
    | tuple[Literal["conflict"], Stored]
    | tuple[Literal["refused", "unavailable"], str]
)

#: What the store has loaded, or the reason why it is unavailable.
Loaded: TypeAlias = tuple[Literal["ok"], Stored | None] | tuple[Literal["err"], str]


class Request(NamedTuple):
    cookies: bytes
    path: str
    tls: bool
    secure: bool
    forwarded_proto: bytes | None


class State(NamedTuple):
    bits: int
    text: str | None


class Visit(NamedTuple):
    id: str
    state: State


class Ready(NamedTuple):
    """The contract's `session`."""

    visit: Visit
    origin: Origin
    #: None: the text that was loaded.
    text: str | None


#: The payloads of the cases `load`, `ready` and `none`.
Beginning: TypeAlias = Visit | Ready | None


class Edit(NamedTuple):
    key: str
    value: str | None


DataChange: TypeAlias = (
    tuple[Literal["nothing"], None]
    | tuple[Literal["edits"], list[Edit]]
    | tuple[Literal["whole"], str]
)


class Change(NamedTuple):
    action: Action
    data: DataChange
    cookie: list[Edit]


class Failure(NamedTuple):
    kind: FailureKind
    #: The HTTP status of the response.
    status: int
    #: For the visitor.
    message: str
    #: For the log.
    reason: str


class Outcome(NamedTuple):
    event: str
    new_id: str | None
    set_cookie: str | None
    no_store: bool


class Plan(NamedTuple):
    visit: Visit
    writes: list[Write]
    outcome: Outcome


def _fields(record: Any) -> tuple[str, ...]:
    fields: tuple[str, ...] = record._fields
    return fields


#: The record classes by their field names.
RECORDS: dict[tuple[str, ...], Any] = {
    _fields(record): record
    for record in (
        Setting,
        Problem,
        Stored,
        Content,
        Write,
        Request,
        State,
        Visit,
        Ready,
        Edit,
        Change,
        Failure,
        Outcome,
        Plan,
    )
}
