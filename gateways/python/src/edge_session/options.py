"""Converts options, named as in docs/configuration.md, to the contract's record.

The component's types define which values are possible, and the component validates them when it
opens an engine. All problems are reported together.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple, TypeAlias

from wasmtime.component import (
    F64,
    U32,
    U64,
    Bool,
    EnumType,
    OptionType,
    RecordType,
    String,
    ValType,
)

from .component import Component, Refused, SessionEngine

#: One secret, or several: the first one signs; all of them verify.
Secret: TypeAlias = str | bytes | Sequence[str | bytes]

_PRESETS = ("safe", "express")

#: The values of `cookie.secure`.
_SECURE: dict[Any, str] = {True: "always", False: "never", "auto": "auto"}


class Problem(NamedTuple):
    """A problem with the options."""

    #: The option's name as in the configuration: `cookie.same_site`.
    name: str
    #: What is wrong, and how to fix it. Never contains a secret.
    message: str


class OptionsError(ValueError):
    """The options are not valid. `problems` lists everything that is wrong."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        lines = "".join(f"\n  {problem.name}: {problem.message}" for problem in self.problems)
        super().__init__(f"the options cannot be used:{lines}")


def open_engine(
    component: Component, secret: Secret | None, options: Mapping[str, Any]
) -> SessionEngine:
    """Opens an engine with these options; defaults come from the preset."""
    return _Reading().open(component, secret, dict(options))


class _Wrong(Exception):
    """The value of an option is not valid, with the reason."""


class _Reading:
    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def open(
        self, component: Component, secret: Secret | None, given: dict[str, Any]
    ) -> SessionEngine:
        preset = given.pop("preset", "safe")
        if preset not in _PRESETS:
            self.problem("preset", _not_one_of(preset, _PRESETS))
            preset = "safe"
        record = component.defaults(preset)
        types: dict[str, ValType] = dict(component.options_type.fields)
        cookie_type = types.pop("cookie")
        del types["preset"], types["secrets"]
        record.secrets = self.secrets(secret)
        if isinstance(cookie_type, RecordType):
            self.fill(
                record.cookie, dict(cookie_type.fields), "cookie.", self.section(given, "cookie")
            )
        # These are under `store` in the configuration, but not in the contract.
        of_store = {name: types[name] for name in ("ttl", "touch-after")}
        self.fill(record, of_store, "store.", self.section(given, "store"))
        self.fill(record, types, "", given)
        try:
            engine = SessionEngine(component, record)
        except Refused as refused:
            known = {problem.name for problem in self.problems}
            self.problems += (Problem(*it) for it in refused.problems if it[0] not in known)
        if self.problems:
            raise OptionsError(self.problems)
        return engine

    def problem(self, name: str, message: str) -> None:
        self.problems.append(Problem(name, message))

    def secrets(self, secret: Secret | None) -> list[bytes]:
        several = [secret] if isinstance(secret, str | bytes) else secret or []
        try:
            return [text.encode() if isinstance(text, str) else bytes(text) for text in several]
        except (TypeError, ValueError):
            self.problem("secret", "is not a string, bytes or a list of these")
            return []

    def section(self, given: dict[str, Any], name: str) -> dict[str, Any]:
        section = given.pop(name, None) or {}
        if isinstance(section, Mapping):
            return dict(section)
        self.problem(name, f"is {_type(section)}, not a dictionary")
        return {}

    def fill(
        self, record: Any, types: dict[str, ValType], prefix: str, given: dict[str, Any]
    ) -> None:
        names = {name.replace("-", "_"): name for name in types}
        for key, value in given.items():
            if key not in names:
                self.problem(f"{prefix}{key}", "is not an option")
                continue
            try:
                converted = _convert(key, value, types[names[key]])
            except _Wrong as wrong:
                self.problem(f"{prefix}{key}", str(wrong))
            else:
                setattr(record, names[key], converted)


def _convert(key: str, value: Any, type_: ValType) -> Any:
    match type_:
        case OptionType():
            return None if value is None else _convert(key, value, type_.payload)
        case EnumType() if key == "secure":
            if not isinstance(value, bool | str) or value not in _SECURE:
                raise _Wrong(f"is {_show(value)}, not True, False or 'auto'")
            return _SECURE[value]
        case EnumType():
            if value not in type_.names:
                raise _Wrong(_not_one_of(value, type_.names))
            return value
        case Bool():
            if not isinstance(value, bool):
                raise _Wrong(f"is {_show(value)}, not True or False")
            return value
        case U32() | U64():
            if key == "expires":
                value = _date(value)
            most = 2**32 - 1 if isinstance(type_, U32) else 2**64 - 1
            if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
                raise _Wrong(f"is {_show(value)}, not a whole number from 0 to {most}")
            return value
        case F64():
            # The component checks the range.
            try:
                if isinstance(value, int | float) and not isinstance(value, bool):
                    return float(value)
            except OverflowError:
                pass
            raise _Wrong(f"is {_show(value)}, not a number of milliseconds")
        case String():
            if not isinstance(value, str):
                raise _Wrong(f"is {_show(value)}, not a string")
            return value
    raise _Wrong("is an option that this version cannot set")


def _date(value: Any) -> Any:
    """Converts a date, or its text, to milliseconds since the Unix epoch."""
    try:
        date = datetime.fromisoformat(value) if isinstance(value, str) else value
        if isinstance(date, datetime) and date.tzinfo:
            return int(date.timestamp() * 1000)
    except ValueError:
        pass
    raise _Wrong(f"is {_show(value)}, not a date with a time zone such as 2030-01-02T03:04:05Z")


def _not_one_of(value: Any, choices: Iterable[str]) -> str:
    return f"is {_show(value)}, not one of {', '.join(map(repr, choices))}"


def _show(value: Any) -> str:
    """Formats a value for messages. Values other than text, numbers and dates may hold a secret."""
    return repr(value) if isinstance(value, str | int | float | datetime) else _type(value)


def _type(value: Any) -> str:
    return "None" if value is None else f"a {type(value).__name__}"
