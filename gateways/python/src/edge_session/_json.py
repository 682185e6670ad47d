"""JSON text as written by JavaScript's `JSON.stringify`."""

import json
import re
from typing import Any

#: Used to compare values; its output is not stored.
plain = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_strict = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode

#: Matches Python's output for a float, which may also occur within a string.
_MAYBE_FLOAT = re.compile(r"\d\.\d|\de[+-]?\d").search
_STRING_OR_NUMBER = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|-?\d[\d.e+-]*')
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def write(value: Any) -> str:
    """Returns JSON text. Raises ValueError or TypeError for a value that JSON cannot represent."""
    if type(value) is int:  # the common case, a counter
        return str(value)
    text = _strict(value)
    if type(value) is not str and _MAYBE_FLOAT(text):
        text = _STRING_OR_NUMBER.sub(lambda match: _token(match[0]), text)
    if not text.isascii():
        text = _LONE_SURROGATE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
    return text


def read(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        # An integer with more digits than Python parses. In JavaScript, it is a float too.
        return json.loads(text, parse_int=integer)


def integer(digits: str) -> int | float:
    """Converts an integer of any number of digits."""
    return int(digits) if len(digits) < 640 else float(digits)


def _token(token: str) -> str:
    is_float = token[0] != '"' and ("." in token or "e" in token)
    return number(float(token)) if is_float else token


def number(value: float) -> str:
    """Formats a float by ECMA-262, section 6.1.6.1.20: Python's digits in a different notation."""
    sign = "-" if value < 0 else ""
    mantissa, _, exponent = repr(abs(value)).partition("e")
    whole, _, fraction = mantissa.partition(".")
    all_digits = (whole + fraction).lstrip("0")
    point = len(whole) + int(exponent or 0) - (len(whole + fraction) - len(all_digits))
    digits = all_digits.rstrip("0")
    if not digits:
        return "0"
    if 0 < point <= 21:
        if len(digits) <= point:
            return sign + digits.ljust(point, "0")
        return f"{sign}{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    rest = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{sign}{digits[0]}{rest}e{point - 1:+d}"


def is_unicode(text: str) -> bool:
    """Whether `text` has no lone surrogates, which strings of the component model cannot
    contain."""
    return text.isascii() or not _LONE_SURROGATE.search(text)
