"""Types to JSON schemas: what an annotation means at one microversion, and how its attribute is made from a value."""

from __future__ import annotations

import enum
import types
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, get_args, get_origin

import jsonschema_rs
import msgspec
from msgspec import UNSET, UnsetType

from cumulet.web.annotations import (
    Body,
    Convert,
    Empty,
    Json,
    Key,
    Options,
    Required,
    Single,
    Until,
    Versions,
    declared,
    strict_integer,
)
from cumulet.web.boundaries import exists, in_range
from cumulet.web.formats import FORMATS
from cumulet.web.operation import Microversion

Schema = dict[str, Any]
Build = Callable[[Any], Any]


class Unconverted(Exception):
    """A Convert function refused a value."""

    def __init__(self, field: str | None, value: object, reason: str) -> None:
        super().__init__(reason)
        self.field = field
        self.value = value
        self.reason = reason


class Shape(msgspec.Struct, frozen=True, eq=False):
    schema: Schema
    build: Build | None
    """None: the value is the attribute."""


def validator_of(schema: Schema) -> Any:
    _check_formats(schema)
    return jsonschema_rs.Draft202012Validator(
        schema,
        formats=FORMATS,
        validate_formats=True,
        ignore_unknown_formats=False,
        mask="",  # Its own messages, which quote whole values, are not used.
    )


def _check_formats(schema: object) -> None:
    if isinstance(schema, dict):
        name = schema.get("format")
        if isinstance(name, str) and name not in FORMATS:
            raise TypeError(f"no checker for the format {name!r}")
        for value in schema.values():
            _check_formats(value)
    elif isinstance(schema, list):
        for value in schema:
            _check_formats(value)


class Attribute(msgspec.Struct, frozen=True, kw_only=True):
    key: str
    name: str
    shape: Shape
    required: bool
    single: bool = False
    many: bool = False


_PROSE, _SECRET, _DOCUMENT = "people write it for people", "a secret is any text", "a text that a program reads"
MAY_HAVE_LINES: Mapping[str, str] = {
    **dict.fromkeys(("description", "disabled_reason", "locked_reason"), _PROSE),
    **dict.fromkeys(("adminPass", "password", "original_password", "secret", "passcode"), _SECRET),
    **dict.fromkeys(("blob", "metainfo", "query", "connection_info", "opt_value", "default", "pattern"), _DOCUMENT),
    **dict.fromkeys(("enum", "operators"), "values that a property of other things may have"),
    "public_key": "it is judged by itself, with the reason",
}
"""Attributes of bodies that need not be one line without control characters, by their JSON names, and why."""


def attributes_at(cls: type, version: Microversion) -> tuple[list[Attribute], dict[str, object]]:
    """The attributes that `cls` has at `version`, and values for required ones that this version does not have."""
    attributes: list[Attribute] = []
    absent: dict[str, object] = {}
    for field in declared(cls):
        annotation, has_default = field.type, not field.required
        metadata = getattr(annotation, "__metadata__", ())
        key = next((m.name for m in metadata if isinstance(m, Key)), field.name)
        shape = _shape(annotation, version)
        if shape is not None and issubclass(cls, Body) and key not in MAY_HAVE_LINES:
            shape = Shape(_one_line(shape.schema), shape.build)
        if shape is None:
            if not has_default:
                absent[field.name] = UNSET
            continue
        ranges = [m for m in metadata if isinstance(m, Required)]
        must = any(in_range(version, m.since, m.until) for m in ranges) or any(
            isinstance(m, Until) and m.required for m in metadata
        )
        attributes.append(
            Attribute(
                key=key,
                name=field.name,
                shape=shape,
                required=must or (not has_default and not ranges),
                single=any(isinstance(m, Single) for m in metadata),
                many=_is_list(annotation),
            )
        )
        if not has_default and ranges and not must:
            absent[field.name] = UNSET
    return attributes, absent


def _is_list(annotation: object) -> bool:
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) in (typing.Union, types.UnionType):
        return any(_is_list(part) for part in get_args(annotation))
    return get_origin(annotation) in (list, tuple)


def class_shape(cls: type, version: Microversion) -> Shape:
    options: Options = cls._options  # type: ignore[attr-defined]
    if issubclass(cls, Empty):
        schema: Schema = {"type": list(options.accepts), "maxProperties": 0} if options.accepts else {}
        return Shape(schema, lambda _: cls())
    attributes, absent = attributes_at(cls, version)
    keep_extra = options.extra == "allow"
    schema = {
        "type": ["object", "null"] if options.nullable else "object",
        "properties": {a.key: a.shape.schema for a in attributes},
        "required": [a.key for a in attributes if a.required],
        "additionalProperties": keep_extra,
    }
    if options.min_properties is not None:
        schema["minProperties"] = options.min_properties
    if options.max_properties is not None:
        schema["maxProperties"] = options.max_properties
    known = frozenset(a.key for a in attributes)
    parts = tuple((a.key, a.name, a.shape.build) for a in attributes)
    of_null = dict.fromkeys((a.name for a in attributes if a.required), UNSET)

    def build(value: Any) -> Any:
        arguments = dict(absent) if value is not None else absent | of_null
        for key, name, make in parts:
            if value is not None and key in value:
                arguments[name] = value[key] if make is None else made(make, key, value[key])
        if keep_extra:
            arguments["extra"] = {k: v for k, v in (value or {}).items() if k not in known}
        return cls(**arguments)

    return Shape(schema, build)


def made(make: Build, key: str, value: Any) -> Any:
    try:
        return make(value)
    except ValueError as error:
        raise Unconverted(key, value, str(error)) from None


def _shape(annotation: object, version: Microversion) -> Shape | None:
    """The JSON schema of a type at a microversion; None where the microversion has no such thing."""
    if get_origin(annotation) is Annotated:
        return _annotated_shape(annotation, version)
    if get_origin(annotation) in (typing.Union, types.UnionType):
        return _union_shape(get_args(annotation), version)
    if get_origin(annotation) is Literal:
        return _literal_shape(get_args(annotation))
    if isinstance(annotation, type) and issubclass(annotation, Body):
        return class_shape(annotation, version)
    if isinstance(annotation, type) and issubclass(annotation, enum.StrEnum):
        return Shape({"type": "string", "enum": [str(member) for member in annotation]}, annotation)
    if (container := _container_shape(annotation, version)) is not None:
        return container
    if annotation in _SIMPLE:
        return _SIMPLE[annotation]
    raise TypeError(f"no JSON schema for {annotation!r}")


_SIMPLE: dict[object, Shape] = {
    str: Shape({"type": "string"}, None),
    int: Shape({"type": "integer"}, strict_integer),
    float: Shape({"type": "number"}, None),
    bool: Shape({"type": "boolean"}, None),
    type(None): Shape({"type": "null"}, None),
    Any: Shape({}, None),
    object: Shape({}, None),
    dict: Shape({"type": "object"}, None),
    list: Shape({"type": "array"}, None),
}


def _annotated_shape(annotation: Any, version: Microversion) -> Shape | None:
    metadata = annotation.__metadata__
    if not exists(metadata, version):
        return None
    kind = get_args(annotation)[0]
    for item in metadata:
        if isinstance(item, Versions):
            kind = next((t for v, t in reversed(item.types) if version >= Microversion.parse(v)), None)
            if kind is None:
                return None
    shape = _shape(kind, version)
    if shape is None:
        return None
    schema, build = dict(shape.schema), shape.build
    for item in metadata:
        if isinstance(item, Json):
            schema = _merged(schema, item.keywords)
        elif isinstance(item, Convert):
            # A Convert over derived types replaces their own step: it knows what it takes.
            build = _unless_none(item.function)
    return Shape(schema, build)


def _merged(schema: Schema, keywords: Mapping[str, Any]) -> Schema:
    """`keywords` over `schema`; on a union they go to its branches, except for those that make another type."""
    if "anyOf" in schema and not {"type", "anyOf", "oneOf"} & keywords.keys():
        return {"anyOf": [b if b.get("type") == "null" else _merged(b, keywords) for b in schema["anyOf"]]}
    if "enum" in keywords and _takes_null(schema) and None not in keywords["enum"] and "type" not in keywords:
        keywords = {**keywords, "enum": [*keywords["enum"], None]}
    return {**schema, **keywords}


def _one_line(schema: Schema) -> Schema:
    """A text's schema: it never breaks a line of a log, a list or a terminal, whatever else it may be."""
    if "anyOf" in schema:
        return {"anyOf": [_one_line(branch) for branch in schema["anyOf"]]}
    kind = schema.get("type")
    kinds = kind if isinstance(kind, list) else [kind]
    if "array" in kinds and isinstance(schema.get("items"), dict):
        schema = {**schema, "items": _one_line(schema["items"])}
    if "string" not in kinds or {"format", "enum"} & schema.keys():
        return schema
    return {**schema, "format": "one line"}


def _takes_null(schema: Mapping[str, object]) -> bool:
    kind = schema.get("type")
    return kind == "null" or (isinstance(kind, list) and "null" in kind)


def _unless_none(function: Callable[[object], object]) -> Build:
    return lambda value: None if value is None else function(value)


def _union_shape(parts: tuple[object, ...], version: Microversion) -> Shape | None:
    shapes = [_shape(part, version) for part in parts if part is not UnsetType]
    branches = [shape for shape in shapes if shape is not None]
    if not branches:
        return None
    if len(branches) == 1:
        return branches[0]
    null = [b for b in branches if b.schema.get("type") == "null"]
    rest = [b for b in branches if b.schema.get("type") != "null"]
    if len(rest) == 1:
        schema = _nullable(rest[0].schema)
        make = rest[0].build
        return Shape(schema, None if make is None else _unless_none(make))
    schema = _any_of([b.schema for b in (*rest, *null)])
    if all(b.build is None for b in rest):
        return Shape(schema, None)
    choices = tuple((validator_of(b.schema), b.build) for b in (*rest, *null))

    def build(value: Any) -> Any:
        for validator, make in choices:
            if validator.is_valid(value):
                return value if make is None else make(value)
        raise ValueError(f"{value!r} is not valid under any of the given schemas")

    return Shape(schema, build)


def _nullable(schema: Schema) -> Schema:
    kind = schema.get("type")
    if kind is None:
        return schema if not schema or "anyOf" not in schema else {"anyOf": [*schema["anyOf"], {"type": "null"}]}
    kinds = kind if isinstance(kind, list) else [kind]
    out = {**schema, "type": [*kinds, *(["null"] if "null" not in kinds else [])]}
    if "enum" in out and None not in out["enum"]:
        out["enum"] = [*out["enum"], None]
    return out


def _any_of(schemas: list[Schema]) -> Schema:
    """Plain types join into one `type` list, enumerations into one `enum`: their refusals read better than anyOf's."""
    if all(set(s) == {"type"} and isinstance(s["type"], str) for s in schemas):
        return {"type": [s["type"] for s in schemas]}
    if all("enum" in s and set(s) <= {"type", "enum"} for s in schemas):
        kinds = [k for s in schemas for k in (s["type"] if isinstance(s["type"], list) else [s["type"]])]
        return {"type": list(dict.fromkeys(kinds)), "enum": [value for s in schemas for value in s["enum"]]}
    return {"anyOf": schemas}


def _literal_shape(values: tuple[object, ...]) -> Shape:
    names = {str: "string", int: "integer", bool: "boolean", type(None): "null"}
    kinds = list(dict.fromkeys(names[type(value)] for value in values))
    return Shape({"type": kinds[0] if len(kinds) == 1 else kinds, "enum": list(values)}, None)


def _container_shape(annotation: Any, version: Microversion) -> Shape | None:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is list or (origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis):
        return _array_shape(origin, arguments[0], version)
    if origin is tuple:
        parts = [_shape(part, version) or Shape({}, None) for part in arguments]
        size = len(parts)
        schema = {"type": "array", "prefixItems": [p.schema for p in parts], "minItems": size, "maxItems": size}
        makes = [p.build for p in parts]
        return Shape(schema, lambda value: tuple(v if m is None else m(v) for v, m in zip(value, makes, strict=True)))
    if origin in (dict, Mapping):
        return _map_shape(arguments, version)
    return None


def _array_shape(origin: type, item: Any, version: Microversion) -> Shape:
    inner = _shape(item, version) or Shape({}, None)
    make = inner.build
    build: Build | None
    if origin is tuple:
        build = tuple if make is None else lambda value: tuple(make(v) for v in value)
    else:
        build = None if make is None else lambda value: [make(v) for v in value]
    return Shape({"type": "array", "items": inner.schema}, build)


def _map_shape(arguments: tuple[Any, ...], version: Microversion) -> Shape:
    keys, values = _shape(arguments[0], version), _shape(arguments[1], version) or Shape({}, None)
    schema: Schema = {"type": "object", "additionalProperties": values.schema}
    if keys is not None and set(keys.schema) - {"type"}:
        pattern = keys.schema.get("pattern")
        if pattern is not None and set(keys.schema) == {"type", "pattern"}:
            # Nova writes such maps with patternProperties, so an odd key is an "additional property".
            schema = {"type": "object", "patternProperties": {pattern: values.schema}, "additionalProperties": False}
        else:
            schema["propertyNames"] = keys.schema
    make = values.build
    if make is None:
        return Shape(schema, None)
    return Shape(schema, lambda value: {k: made(make, k, v) for k, v in value.items()})
