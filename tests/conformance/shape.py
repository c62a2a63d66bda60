"""The shape of an answer: keys and types, without values, so that two clouds can be compared."""

from __future__ import annotations

import json
import re
from typing import Final, TypeAlias

Shape: TypeAlias = "str | dict[str, Shape] | list[Shape]"

_TIME: Final = re.compile(r"\d{4}-\d\d-\d\d([T ])\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)?", re.ASCII)
MAPS: Final = frozenset({"addresses", "extra_specs", "hosts"})
"""Objects whose keys are data: their shape is that of their values."""


def shape(value: object, name: str = "") -> Shape:
    """``{"id": 1, "at": null}`` is ``{"id": "int", "at": "null"}``; a list is the merged shape of its elements."""
    match value:
        case None:
            return "null"
        case bool():
            return "bool"
        case int():
            return "int"
        case float():
            return "float"
        case str():
            return _text(value)
        case list():
            return [_merged([shape(item) for item in value])] if value else []
        case dict() if name in MAPS:
            return {"*": _merged([shape(item) for item in value.values()])} if value else {}
        case dict():
            return {str(key): shape(item, str(key)) for key, item in sorted(value.items())}
    raise TypeError(type(value))


def _text(value: str) -> str:
    match = _TIME.fullmatch(value)
    if match is None:
        return "string"
    return (
        "time"
        + ("-fraction" if match[2] else "")
        + ("-zone" if match[3] else "")
        + ("-blank" if match[1] == " " else "")
    )


def _merged(shapes: list[Shape]) -> Shape:
    merged = shapes[0]
    for other in shapes[1:]:
        merged = merge(merged, other)
    return merged


def merge(one: Shape, other: Shape) -> Shape:
    """What covers both: keys that only one has end in ``?``, types that differ are joined with ``|``."""
    if one == other:
        return one
    if isinstance(one, dict) and isinstance(other, dict):
        return _merged_objects(one, other)
    if isinstance(one, list) and isinstance(other, list):
        return [merge(one[0], other[0])] if one and other else one or other
    names = {
        part for item in (one, other) for part in (item.split("|") if isinstance(item, str) else [json.dumps(item)])
    }
    return "|".join(sorted(names))


def _merged_objects(one: dict[str, Shape], other: dict[str, Shape]) -> dict[str, Shape]:
    merged: dict[str, Shape] = {}
    for name in sorted({key.removesuffix("?") for key in (*one, *other)}):
        kept = [item[key] for item in (one, other) for key in (name, f"{name}?") if key in item]
        optional = len(kept) < 2 or f"{name}?" in one or f"{name}?" in other
        merged[f"{name}?" if optional and name != "*" else name] = _merged(kept)
    return merged


def differences(expected: Shape, actual: Shape, where: str = "") -> list[str]:
    """Each difference as one readable line."""
    here = where or "body"
    if isinstance(expected, dict) and isinstance(actual, dict):
        found = [f"{here}: key {key!r} is missing" for key in expected if key not in (*actual, "*")]
        found += [f"{here}: key {key!r} is not Nova's" for key in actual if key not in (*expected, "*")]
        for key in expected.keys() & actual.keys():
            found += differences(expected[key], actual[key], f"{where}.{key}")
        return sorted(found)
    if isinstance(expected, list) and isinstance(actual, list):
        if expected and actual:
            return differences(expected[0], actual[0], f"{where}[]")
        # How many features a processor has is no matter of the API; how many servers a filter finds is.
        if all(isinstance(item, str) for item in (*expected, *actual)):
            return []
    if expected != actual:
        return [f"{here}: Nova answers {_brief(expected)}, Cumulet {_brief(actual)}"]
    return []


def _brief(item: Shape) -> str:
    text = item if isinstance(item, str) else json.dumps(item)
    return text if len(text) <= 100 else f"{text[:97]}..."
