"""JSON schemas of queries, where every value is text, and how attributes are made from that text."""

from __future__ import annotations

from typing import Any

from cumulet.web.annotations import FALSE_WORDS, TRUE_WORDS, Options, bounded, loose_bool
from cumulet.web.operation import Microversion
from cumulet.web.shapes import Build, Schema, Shape, attributes_at, made


def query_shape(cls: type, version: Microversion) -> Shape:
    options: Options = cls._options  # type: ignore[attr-defined]
    attributes, absent = attributes_at(cls, version)
    properties: dict[str, Schema] = {}
    for a in attributes:
        if a.many:
            properties[a.key] = _on_the_wire(a.shape.schema)
        else:
            properties[a.key] = {"type": "array", "items": _on_the_wire(a.shape.schema)} | (
                {"maxItems": 1} if a.single else {}
            )
    closed = options.closed_since is not None and version >= Microversion.parse(options.closed_since)
    schema = {
        "type": "object",
        "properties": properties,
        "required": [a.key for a in attributes if a.required],
        "additionalProperties": not closed,
    }
    if closed and options.ignored is not None:
        schema["patternProperties"] = {options.ignored: {}}
    parts = tuple((a.key, a.name, a.many, _from_text(a.shape.schema) or a.shape.build) for a in attributes)

    def build(values: Any) -> Any:
        arguments = dict(absent)
        for key, name, many, make in parts:
            if key in values:
                given = values[key] if many else values[key][-1]
                arguments[name] = given if make is None else made(make, key, given)
        return cls(**arguments)

    return Shape(schema, build)


def _one_type(schema: Schema) -> str | None:
    """The one type of `schema` beside null, if there is just one."""
    kind = schema.get("type")
    kinds = [k for k in (kind if isinstance(kind, list) else [kind]) if k != "null"]
    return kinds[0] if len(kinds) == 1 else None


def _on_the_wire(schema: Schema) -> Schema:
    """What a value of `schema` looks like as text: an integer is digits, a boolean one of Nova's words, never null."""
    kind = _one_type(schema)
    if kind == "integer":
        return {"type": "string", "pattern": "^-?[0-9]+$", "maxLength": 20}
    if kind == "boolean":
        return {"type": "string", "enum": [word for word in (*TRUE_WORDS, *FALSE_WORDS) if isinstance(word, str)]}
    if kind == "array" and "items" in schema:
        return schema | {"type": "array", "items": _on_the_wire(schema["items"])}
    out = schema if kind is None else schema | {"type": kind}
    return out | {"enum": [value for value in out["enum"] if value is not None]} if "enum" in out else out


def _from_text(schema: Schema) -> Build | None:
    kind = _one_type(schema)
    if kind == "boolean":
        return loose_bool
    if kind != "integer":
        return None
    low, high = schema.get("minimum"), schema.get("maximum")

    def number(text: str) -> int:
        value = bounded(int(text))
        if low is not None and value < low:
            raise ValueError(f"{text!r} is less than the minimum of {low}")
        if high is not None and value > high:
            raise ValueError(f"{text!r} is greater than the maximum of {high}")
        return value

    return number
