"""The strict JSON reader for every body: what it accepts means the same to every JSON parser."""

from __future__ import annotations

import json
import re
from math import isinf
from typing import Any, NoReturn

from cumulet.errors import BadRequest, TooLarge

LARGEST_BODY = 114_688
DEEPEST = 20
MOST_VALUES = 4096
"""Of a body, counted by what stands between them: commas, colons, opening brackets. They are read in a millisecond.
A body class may take more (`most_values`)."""

LONGEST_SHOWN = 64
"""Of a field's name, in an error."""


def read_json(data: bytes, most_values: int | None = None) -> Any:
    """The value in `data`; 400 for anything but a UTF-8 JSON text without duplicate keys, NaN, NUL, lone surrogates."""
    if len(data) > LARGEST_BODY:
        raise TooLarge(f"Request is too large. The largest body is {LARGEST_BODY} bytes.")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        _malformed("not UTF-8")
    if text.startswith("\ufeff"):
        _malformed("byte order mark")
    if "\x00" in text:
        _malformed("NUL")
    _check_shape(data, text, most_values or MOST_VALUES)
    try:
        value = _DECODER.decode(text)
    except (ValueError, RecursionError) as error:
        _malformed(str(error))
    # NUL and surrogates can now come from escapes only, and most bodies have none.
    if "\\u" in text:
        _check_text(value, ())
    return value


def _malformed(why: str) -> NoReturn:
    raise BadRequest("Malformed request body", private=f"JSON refused: {why}")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, object]:
    out = dict(pairs)
    if len(out) != len(pairs):
        raise ValueError("duplicate key")
    return out


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _float(text: str) -> float:
    number = float(text)
    if isinf(number):
        raise ValueError("number out of range")
    return number


def _integer(text: str) -> int:
    if len(text) > 40:
        raise ValueError("number out of range")
    return int(text)


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_constant=_no_constant, parse_float=_float, parse_int=_integer, strict=True
)


# One that is not closed ends with the text: otherwise each quotation mark in it would be tried as a beginning.
_STRING = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_NO_BRACKETS = re.compile(r"[^\[\]{}]+")
_BETWEEN = b"{[,:"


def _check_shape(data: bytes, text: str, most: int) -> None:
    """How many values, and how deep: before anything is made of them."""
    # Few bodies have so many brackets or separators at all, counted with those in strings; only for them look closer.
    # All kinds are counted together: counting one takes as long.
    between = len(data) - len(data.translate(None, _BETWEEN))
    if between <= DEEPEST or (between <= most and text.count("{") + text.count("[") <= DEEPEST):
        return
    bare = _STRING.sub("", text)
    depth = 0
    for bracket in _NO_BRACKETS.sub("", bare)[: 2 * most]:
        depth += 1 if bracket in "{[" else -1
        if depth > DEEPEST:
            _malformed("nested too deeply")
        if depth < 0:
            _malformed("closed more often than opened")
    if sum(map(bare.count, "{[,:")) > most:
        raise TooLarge(f"Request is too large. A body has at most {most} values.")


def _check_text(value: object, at: tuple[str, ...]) -> None:
    """`at`: the names of the fields that lead to `value`."""
    if isinstance(value, str):
        if "\x00" in value or not _is_encodable(value):
            field = ".".join(name[:LONGEST_SHOWN] for name in at) or "body"
            raise BadRequest(f"Invalid input for field/attribute {field}. It has a NUL character or a lone surrogate.")
    elif isinstance(value, dict):
        for key, inner in value.items():
            _check_text(key, at)
            _check_text(inner, (*at, key))
    elif isinstance(value, list):
        for inner in value:
            _check_text(inner, at)


def _is_encodable(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
