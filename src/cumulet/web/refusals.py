"""The wording of a refused body or query: Nova's, with secrets left out."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping
from typing import Any

import jsonschema_rs

from cumulet.errors import BadRequest
from cumulet.web.formats import NAME_REASONS
from cumulet.web.secret_names import SECRET_NAMES

LONGEST_ECHO = 1000
MOST_JUDGED = 256
"""Values of a body of which all that is wrong is found, to tell what upstream would. Each error costs microseconds."""

_SECRET_KEYS = frozenset(SECRET_NAMES)


def echo(value: object) -> str:
    """`value` as the refusal quotes it to the caller: without secrets, cut at `LONGEST_ECHO` characters."""
    text = str(_without_secrets(value))
    return text if len(text) <= LONGEST_ECHO else text[:LONGEST_ECHO] + "..."


def _quote(value: object) -> str:
    text = repr(_without_secrets(value))
    return text if len(text) <= LONGEST_ECHO else text[:LONGEST_ECHO] + "..."


def _without_secrets(value: object) -> object:
    """As much of it as an echo has room for."""
    if isinstance(value, dict):
        items = itertools.islice(value.items(), LONGEST_ECHO)
        return {k: "***" if str(k).lower() in _SECRET_KEYS else _without_secrets(v) for k, v in items}
    if isinstance(value, list):
        return [_without_secrets(item) for item in value[:LONGEST_ECHO]]
    return value[: LONGEST_ECHO + 1] if isinstance(value, str) else value


def refuse_value(field: object, value: object, reason: str, *, secret: bool = False) -> BadRequest:
    """The 400 for one attribute of a body."""
    if secret or str(field).lower() in _SECRET_KEYS:
        return BadRequest(f"Invalid input for field/attribute {field}.")
    return BadRequest(f"Invalid input for field/attribute {field}. Value: {echo(value)}. {reason}")


def errors_of(validator: Any, value: object) -> Iterable[jsonschema_rs.ValidationError]:
    """All that is wrong with it; of a large one only what the validator finds first, for it finds all at once."""
    if _is_small(value):
        found: Iterable[jsonschema_rs.ValidationError] = validator.iter_errors(value)
        return found
    try:
        validator.validate(value)
    except jsonschema_rs.ValidationError as error:
        return [error]
    return []


def _is_small(value: object) -> bool:
    left, inside = MOST_JUDGED, [value]
    while inside:
        one = inside.pop()
        if isinstance(one, dict | list):
            left -= len(one)
            if left < 0:
                return False
            inside += one.values() if isinstance(one, dict) else one
    return True


def refuse_body(
    schema: Any, body: object, errors: Iterable[jsonschema_rs.ValidationError], envelope: str | None, *, secret: bool
) -> BadRequest:
    """The 400 for a body that breaks its schema."""
    error = _first(schema, errors)
    if (named := _name_reason(error)) is not None:
        return BadRequest(named)
    field, sent = _sent(body, error.instance_path)
    if field is None:
        field = envelope
    if field is None:
        return BadRequest("The request body is invalid." if secret else reason(error))
    if secret and error.kind.name in ("required", "additionalProperties"):
        return BadRequest(f"Invalid input for field/attribute {field}. {reason(error)}")
    return refuse_value(field, sent, reason(error), secret=secret)


def refuse_query(schema: Any, errors: Iterable[jsonschema_rs.ValidationError]) -> BadRequest:
    """The 400 for query parameters."""
    error = _first(schema, errors)
    if not error.instance_path:
        return BadRequest(reason(error))
    name = error.instance_path[0]
    return refuse_parameter(name, error.instance, reason(error))


def refuse_parameter(name: object, value: object, reason: str) -> BadRequest:
    """The 400 for one query parameter."""
    return BadRequest(f"Invalid input for query parameters {name}. Value: {echo(value)}. {reason}")


_NUMBER = re.compile(r"\+?[0-9]+")


def _sent(value: Any, path: Iterable[str | int]) -> tuple[str | int | None, object]:
    """(under which key, the refused value), as sent: the validator's copy has its keys in another order, and in its
    path a key that reads as a number is one."""
    key: str | int | None = None
    for step in path:
        key = step
        if isinstance(value, dict) and isinstance(step, int):
            key = next(k for k in value if _NUMBER.fullmatch(k) and (k.lstrip("+0") or "0") == str(step))
        value = value[key]
    return key, value


def _first(schema: Any, errors: Iterable[jsonschema_rs.ValidationError]) -> jsonschema_rs.ValidationError:
    """The error that Python's jsonschema meets first: in the order in which the schema is written, depth first."""
    return min(errors, key=lambda error: _position(schema, error))


def _position(schema: Any, error: jsonschema_rs.ValidationError) -> list[int]:
    position: list[int] = []
    indices = (step for step in error.instance_path if isinstance(step, int))
    for step in error.schema_path:
        if isinstance(schema, dict):
            position.append(list(schema).index(step))
            if step == "items":
                position.append(next(indices, 0))
        elif isinstance(step, int):
            position.append(step)
        schema = schema[step]
    return position


def _name_reason(error: jsonschema_rs.ValidationError) -> str | None:
    kind: Any = error.kind
    return NAME_REASONS.get(kind.format) if kind.name == "format" else None


def reason(error: jsonschema_rs.ValidationError) -> str:
    """One sentence in the words of Python's jsonschema, which OpenStack's clients and users know."""
    kind: Any = error.kind
    value = error.instance
    match kind.name:
        case "required":
            return missing(kind.property)
        case "additionalProperties" | "unevaluatedProperties":
            return unexpected(kind.unexpected)
        case "type":
            kinds = sorted(kind.types, key=lambda name: (name == "null", name))
            return f"{_quote(value)} is not of type {', '.join(map(repr, kinds))}"
        case "enum":
            return f"{_quote(value)} is not one of {kind.options!r}"
        case "pattern":
            return f"{_quote(value)} does not match {kind.pattern!r}"
        case "format":
            return f"{_quote(value)} is not a {kind.format!r}"
        case "minLength" | "minItems":
            return f"{_quote(value)} {'should be non-empty' if kind.limit == 1 else 'is too short'}"
        case "maxLength" | "maxItems":
            return f"{_quote(value)} is too long"
        case "minProperties":
            return f"{_quote(value)} {'should be non-empty' if kind.limit == 1 else 'does not have enough properties'}"
        case "maxProperties":
            return f"{_quote(value)} has too many properties"
        case "minimum":
            return f"{_quote(value)} is less than the minimum of {kind.limit}"
        case "maximum":
            return f"{_quote(value)} is greater than the maximum of {kind.limit}"
        case "uniqueItems":
            return f"{_quote(value)} has non-unique elements"
        case "anyOf" | "oneOf":
            return f"{_quote(value)} is not valid under any of the given schemas"
        case _:
            return f"{_quote(value)} does not fit {kind.name}"


def unexpected(names: Iterable[str]) -> str:
    found = sorted(names)
    return (
        f"Additional properties are not allowed ({', '.join(map(repr, found))} "
        f"{'was' if len(found) == 1 else 'were'} unexpected)"
    )


def missing(name: str) -> str:
    return f"{name!r} is a required property"


def last_values(pairs: Iterable[tuple[str, str]]) -> Mapping[str, list[str]]:
    """Query pairs as the schema sees them: every name with the list of its values."""
    grouped: dict[str, list[str]] = {}
    for name, value in pairs:
        grouped.setdefault(name, []).append(value)
    return grouped
