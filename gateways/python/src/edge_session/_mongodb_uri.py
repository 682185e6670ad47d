"""Validates `mongodb://` URIs before a connection is made.

The driver ignores options that it does not know or whose values it cannot parse.
"""

import logging
import re
from typing import Any

from pymongo import AsyncMongoClient
from pymongo.errors import ConfigurationError, PyMongoError
from pymongo.uri_parser import split_options

from .options import OptionsError, Problem

_log = logging.getLogger("edge_session")

#: Options of the driver that have no effect on sessions, in lower case.
_WITHOUT_EFFECT = {
    "readpreference": "sessions are read from the primary",
    "readpreferencetags": "sessions are read from the primary",
    "maxstalenessseconds": "sessions are read from the primary",
    "waitqueuemultiple": "the driver no longer supports it",
    "tz_aware": "sessions are stored as text",
    "uuidrepresentation": "sessions are stored as text",
    "unicode_decode_error_handler": "sessions are stored as text",
    "datetime_conversion": "sessions are stored as text",
}

#: Options whose values must not be logged, in lower case.
_SECRET = {"authmechanismproperties", "tlscertificatekeyfilepassword"}

#: An option has a name. Anything else may follow an unescaped question mark in a password.
_NAMED = re.compile(r"\w+(?:=|\Z)").match


def checked(uri: str) -> str:
    """Returns the URI without options that have no effect, and logs their names. Raises
    `OptionsError`, which lists everything that is wrong with it."""
    address, _, query = uri.partition("?")
    separator = "&" if "&" in query else ";"
    options = [option for option in query.split(separator) if option]
    if not _is_address(address) or not all(map(_NAMED, options)):
        message = (
            "is not a valid MongoDB URI: write mongodb://USER:PASSWORD@HOST/DB, with special "
            "characters in user and password percent-encoded"
        )
        raise OptionsError([Problem("client", message)])
    problems, left = [], []
    for option in options:
        problem, has_effect = _check(option)
        if problem:
            problems.append(Problem("client", f"the URI's option {problem}"))
        elif has_effect:
            left.append(option)
    effective = f"{address}?{separator.join(left)}" if left else address
    problems = problems or _of_all_together(effective)
    if problems:
        raise OptionsError(problems)
    return effective


def names(uri: str) -> set[str]:
    """Returns the names of the URI's options, in lower case."""
    query = uri.partition("?")[2].replace(";", "&")
    return {option.partition("=")[0].lower() for option in query.split("&")}


def _is_address(address: str) -> bool:
    try:
        AsyncMongoClient[Any](address)
    except (PyMongoError, ValueError):
        # The message may quote a part of the address, even of a password.
        return False
    return True


def _check(option: str) -> tuple[str | None, bool]:
    """Returns what is wrong with an option, and whether it has an effect."""
    name, _, value = option.partition("=")
    lower = name.lower()
    if not value:
        return f"{name} has no value", False
    if (lower, value) == ("w", "0"):
        return "w is 0: failed writes would go unnoticed. Use majority, or 1", False
    try:
        split_options(option, validate=True, warn=False, normalize=False)
    except ConfigurationError as error:
        if not str(error).startswith("Unknown option"):
            return f"{name} cannot be used: {error}", False
        _log.warning("the MongoDB URI's option %s has no effect: the driver does not know it", name)
        return None, False
    except (PyMongoError, ValueError, TypeError, OSError) as error:
        if lower in _SECRET:
            return f"{name} has an invalid value", False
        return f"{name} is {value!r}: {error}", False
    if why := _WITHOUT_EFFECT.get(lower):
        _log.warning("the MongoDB URI's option %s has no effect: %s", name, why)
    return None, not why


def _of_all_together(uri: str) -> list[Problem]:
    try:
        AsyncMongoClient[Any](uri)
    except (PyMongoError, ValueError, TypeError, OSError) as error:
        # The address and each option are valid, so the message is about options.
        return [Problem("client", f"the URI's options cannot be used together: {error}")]
    return []
