"""The JSON schemas of metadata definitions, as clients ask for them."""

from __future__ import annotations

from collections.abc import Mapping

from cumulet.image.metadef_bodies import TYPES
from cumulet.image.metadef_store import LONGEST_NAME
from cumulet.image.schemas import serve

JsonSchema = dict[str, object]

_TEXT: JsonSchema = {"type": "string"}
_NAME: JsonSchema = {"type": "string", "maxLength": LONGEST_NAME}
_READ_ONLY: JsonSchema = {"type": "string", "readOnly": True}
_TYPE: JsonSchema = {"type": "string", "enum": [*TYPES, None]}
_COUNT: JsonSchema = {"$ref": "#/definitions/positiveInteger"}
_COUNT_FROM_0: JsonSchema = {"$ref": "#/definitions/positiveIntegerDefault0"}
_WORDS: JsonSchema = {"$ref": "#/definitions/stringArray"}
_PROPERTIES: JsonSchema = {"$ref": "#/definitions/property"}


def _times(what: str) -> dict[str, object]:
    return {
        "created_at": {**_READ_ONLY, "description": f"When the {what} was made", "format": "date-time"},
        "updated_at": {**_READ_ONLY, "description": f"When the {what} was last changed", "format": "date-time"},
    }


_PROPERTY: dict[str, object] = {
    "name": _NAME,
    "title": _TEXT,
    "description": _TEXT,
    "operators": {"type": "array", "items": _TEXT},
    "type": _TYPE,
    "required": _WORDS,
    "minimum": {"type": "number"},
    "maximum": {"type": "number"},
    "maxLength": _COUNT,
    "minLength": _COUNT_FROM_0,
    "pattern": {"type": "string", "format": "regex"},
    "enum": {"type": "array"},
    "readonly": {"type": "boolean"},
    "default": {},
    "items": {"type": "object", "properties": {"type": _TYPE, "enum": {"type": "array"}}},
    "maxItems": _COUNT,
    "minItems": _COUNT_FROM_0,
    "uniqueItems": {"type": "boolean", "default": False},
    "additionalItems": {"type": "boolean"},
}
_NUMBERS: dict[str, object] = {
    "positiveInteger": {"type": "integer", "minimum": 0},
    "positiveIntegerDefault0": {"allOf": [_COUNT, {"default": 0}]},
}
_STRINGS: JsonSchema = {"type": "array", "items": _TEXT, "uniqueItems": True}
_DEFINITIONS: dict[str, object] = {
    **_NUMBERS,
    "stringArray": _STRINGS,
    "property": {
        "type": "object",
        "additionalProperties": {"type": "object", "required": ["title", "type"], "properties": _PROPERTY},
    },
}
_DEFINITIONS_OF_ONE: dict[str, object] = {**_NUMBERS, "stringArray": {**_STRINGS, "minItems": 1}}

_TAG: dict[str, object] = {"name": _NAME, **_times("tag")}
_ASSOCIATION: dict[str, object] = {
    "name": {**_NAME, "description": "The type, by the name that Heat has for it where it has one"},
    "prefix": {
        **_NAME,
        "description": "What comes before names of properties on such a resource, its separator included",
    },
    "properties_target": {**_NAME, "description": "Which of the resource's sets of properties is meant"},
    **_times("association"),
}
_OBJECT: dict[str, object] = {
    "name": _NAME,
    "description": _TEXT,
    "required": _WORDS,
    "properties": _PROPERTIES,
    "schema": _READ_ONLY,
    "self": _READ_ONLY,
    **_times("object"),
}
_NAMESPACE: dict[str, object] = {
    "namespace": {**_NAME, "description": "The name, of which there is one"},
    "display_name": {**_NAME, "description": "A name for people to read"},
    "description": {"type": "string", "maxLength": 500, "description": "What the namespace is for"},
    "visibility": {"type": "string", "enum": ["public", "private"], "description": "Who can see the namespace"},
    "protected": {"type": "boolean", "description": "Whether the namespace cannot be deleted"},
    "owner": {"type": "string", "maxLength": 255, "description": "The project that owns the namespace"},
    "schema": _READ_ONLY,
    "self": _READ_ONLY,
    "resource_type_associations": {
        "type": "array",
        "items": {"type": "object", "properties": {"name": _TEXT, "prefix": _TEXT, "properties_target": _TEXT}},
    },
    "properties": _PROPERTIES,
    "objects": {
        "type": "array",
        "items": {
            "type": "object",
            "properties": {"name": _TEXT, "description": _TEXT, "required": _WORDS, "properties": _PROPERTIES},
        },
    },
    "tags": {"type": "array", "items": {"type": "object", "properties": {"name": _TEXT}}},
    **_times("namespace"),
}


def _one(
    name: str, properties: Mapping[str, object], required: list[str], definitions: Mapping[str, object] | None
) -> JsonSchema:
    schema: JsonSchema = {"name": name, "properties": properties, "additionalProperties": False, "required": required}
    return schema if definitions is None else {**schema, "definitions": definitions}


def _several(name: str, one: JsonSchema, *, by_name: bool = False) -> JsonSchema:
    items = {key: value for key, value in one.items() if key != "definitions"}
    held = {"type": "object", "additionalProperties": items} if by_name else {"type": "array", "items": items}
    schema: JsonSchema = {
        "name": name,
        "properties": {name: held, "first": _TEXT, "next": _TEXT, "schema": _TEXT},
        "links": [
            {"rel": "first", "href": "{first}"},
            {"rel": "next", "href": "{next}"},
            {"rel": "describedby", "href": "{schema}"},
        ],
    }
    return {**schema, "definitions": one["definitions"]} if "definitions" in one else schema


def _schemas() -> dict[str, JsonSchema]:
    namespace = _one("namespace", _NAMESPACE, ["namespace"], _DEFINITIONS)
    thing = _one("object", _OBJECT, ["name"], _DEFINITIONS)
    tag = _one("tag", _TAG, ["name"], None)
    association = _one("resource_type_association", _ASSOCIATION, ["name"], None)
    unnamed = _one("property", _PROPERTY, ["type", "title"], _DEFINITIONS_OF_ONE)
    return {
        "namespace": namespace,
        "namespaces": _several("namespaces", namespace),
        "object": thing,
        "objects": _several("objects", thing),
        "property": {**unnamed, "required": ["type", "title", "name"]},
        "properties": _several("properties", unnamed, by_name=True),
        "tag": tag,
        "tags": _several("tags", tag),
        "resource_type": association,
        "resource_types": _several("resource_type_associations", association),
    }


def _declare(name: str, schema: JsonSchema) -> None:
    serve(f"metadefs/{name}", lambda: schema)


for _name, _schema in _schemas().items():
    _declare(_name, _schema)
