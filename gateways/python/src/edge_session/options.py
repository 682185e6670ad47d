"""Passes options, named as in docs/configuration.md, to the component, which validates them.

All problems are reported together.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeAlias

from . import _json
from ._contract import Problem, Setting
from .component import Component, Refused, SessionEngine

__all__ = ["OptionsError", "Problem", "Secret", "open_engine"]

#: One secret, or several: the first one signs; all of them verify.
Secret: TypeAlias = str | bytes | Sequence[str | bytes]

#: These may also be None: nothing is set.
_SECTIONS = ("cookie", "store")


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
    settings: list[Setting] = []
    problems: list[Problem] = []
    several = [secret] if isinstance(secret, str | bytes) else secret or ()
    try:
        # The first one signs: a set has none.
        if not isinstance(several, Sequence):
            raise TypeError
        settings += (Setting("secret", ("bytes", _bytes(one))) for one in several)
    except (TypeError, ValueError):
        problems.append(Problem("secret", "is not a string, bytes or a list of these"))
    for name, value in _flat("", options):
        try:
            settings.append(Setting(name, ("json", _text(value))))
        except (TypeError, ValueError, RecursionError):
            problems.append(Problem(name, f"is a value without a JSON form: {_type(value)}"))
    try:
        engine = SessionEngine(component, settings)
    except Refused as refused:
        known = {problem.name for problem in problems}
        problems += (problem for problem in refused.problems if problem.name not in known)
    if problems:
        raise OptionsError(problems)
    return engine


def _bytes(secret: str | bytes) -> bytes:
    # Not `bytes(…)`: that of a number is as many zeros.
    return secret.encode() if isinstance(secret, str) else bytes(memoryview(secret))


def _flat(prefix: str, options: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Returns the options of sections with their full names: `cookie.max_age`."""
    for key, value in options.items():
        if isinstance(value, Mapping):
            yield from _flat(f"{prefix}{key}.", value)
        elif value is not None or key not in _SECTIONS:
            yield f"{prefix}{key}", value


def _text(value: Any) -> str:
    return _json.write(value.isoformat() if isinstance(value, datetime) else value)


def _type(value: Any) -> str:
    # The value may be a secret.
    return f"a {type(value).__name__}"
