"""Bodies of requests about namespaces and what they hold; and the JSON that is kept of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec

from cumulet.errors import Forbidden
from cumulet.image.metadef_store import LONGEST_NAME, Content
from cumulet.web.annotations import declared
from cumulet.web.schema import UNSET, Body, Json, Key, Unset

LONGEST_TEXT = 65_535
MOST_IN_A_LIST = 1024
MOST_VALUES = 12_288
"""Of a namespace with what it holds: 512 properties of eight attributes each."""
TYPES = ("array", "boolean", "integer", "number", "object", "string")

Name = Annotated[str, Json({"minLength": 1, "maxLength": LONGEST_NAME})]
Text = Annotated[str | Unset, Json({"maxLength": LONGEST_TEXT})]
Number = Annotated[int | Unset, Json({"minimum": -(2**63), "maximum": 2**63 - 1})]
Count = Annotated[int | Unset, Json({"minimum": 0, "maximum": 2**63 - 1})]
Words = Annotated[list[str] | Unset, Json({"maxItems": MOST_IN_A_LIST})]
Type = Literal["array", "boolean", "integer", "number", "object", "string"]
Ours = Annotated[object, Json({"description": "read-only"})]
OURS = {"created_at": "created_at", "updated_at": "updated_at", "schema": "schema", "link": "self"}
"""What only the service sets: attributes with their JSON names."""


class Items(Body):
    """What an array's items are."""

    type: Type
    enum: Words = UNSET


class Property(Body):
    """What values a property takes. `default` is kept as text, as Glance does."""

    title: Annotated[str, Json({"maxLength": LONGEST_TEXT})]
    type: Type
    name: Annotated[str | Unset, Json({"minLength": 1, "maxLength": LONGEST_NAME})] = UNSET
    description: Text = UNSET
    operators: Words = UNSET
    default: Annotated[str | int | float | bool | Unset | None, Json({"maxLength": LONGEST_TEXT})] = UNSET
    readonly: bool | Unset = UNSET
    minimum: Number = UNSET
    maximum: Number = UNSET
    enum: Words = UNSET
    pattern: Text = UNSET
    min_length: Annotated[Count, Key("minLength")] = UNSET
    max_length: Annotated[Count, Key("maxLength")] = UNSET
    confidential: bool | Unset = UNSET
    items: Items | Unset = UNSET
    unique_items: Annotated[bool | Unset, Key("uniqueItems")] = UNSET
    min_items: Annotated[Count, Key("minItems")] = UNSET
    max_items: Annotated[Count, Key("maxItems")] = UNSET
    additional_items: Annotated[bool | Unset, Key("additionalItems")] = UNSET
    created_at: Ours = UNSET
    updated_at: Ours = UNSET


class NamedProperty(Property):
    """A property that says its own name."""

    name: Name


Properties = Annotated[
    dict[str, Property] | Unset,
    Json({"propertyNames": {"minLength": 1, "maxLength": LONGEST_NAME, "format": "one line"}}),
]


class Object(Body):
    """Properties that belong together."""

    name: Name
    description: Text = UNSET
    required: Annotated[list[str] | Unset, Json({"uniqueItems": True, "maxItems": MOST_IN_A_LIST})] = UNSET
    properties: Properties = UNSET
    created_at: Ours = UNSET
    updated_at: Ours = UNSET
    schema: Ours = UNSET
    link: Annotated[Ours, Key("self")] = UNSET


class Tag(Body):
    """A word."""

    name: Name
    created_at: Ours = UNSET
    updated_at: Ours = UNSET


class Tags(Body):
    """Several words."""

    tags: list[Tag] = msgspec.field(default_factory=list)


class Association(Body):
    """A type of resource that a namespace is for. `prefix` comes before the names of its properties there."""

    name: Name
    prefix: Annotated[str | Unset, Json({"maxLength": 80})] = UNSET
    properties_target: Annotated[str | Unset, Json({"maxLength": 80})] = UNSET
    created_at: Ours = UNSET
    updated_at: Ours = UNSET


class NamespaceBody(Body):
    """A namespace; what it holds is taken when it is made."""

    namespace: Name
    display_name: Annotated[str | Unset, Json({"maxLength": 80})] = UNSET
    description: Annotated[str | Unset, Json({"maxLength": 500})] = UNSET
    visibility: Literal["public", "private"] = "private"
    protected: bool = False
    owner: Annotated[str | Unset, Json({"maxLength": 255})] = UNSET
    resource_type_associations: list[Association] = msgspec.field(default_factory=list)
    properties: Properties = UNSET
    objects: list[Object] = msgspec.field(default_factory=list)
    tags: list[Tag] = msgspec.field(default_factory=list)
    created_at: Ours = UNSET
    updated_at: Ours = UNSET
    schema: Ours = UNSET
    link: Annotated[Ours, Key("self")] = UNSET


class NewNamespace(NamespaceBody, most_values=MOST_VALUES):
    """One that is made, with what it holds."""


def refuse_ours(body: Body) -> None:
    """403 for attributes that only the service sets."""
    for attribute, name in OURS.items():
        if getattr(body, attribute, UNSET) is not UNSET:
            raise Forbidden(f"Attribute '{name}' is read-only.")


def as_json(body: Body) -> dict[str, object]:
    """What the client gave, by its JSON names."""
    said: dict[str, object] = {}
    for field in declared(type(body)):
        value = getattr(body, field.name)
        if value is not UNSET and field.name not in OURS:
            keys = [item.name for item in getattr(field.type, "__metadata__", ()) if isinstance(item, Key)]
            said[keys[0] if keys else field.name] = _plain(value)
    default = said.get("default")
    if isinstance(default, int | float):
        said["default"] = str(default)
    return said


def _plain(value: object) -> object:
    if isinstance(value, Body):
        return as_json(value)
    if isinstance(value, Mapping):
        return {name: _plain(part) for name, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, list) else value


def content(body: Object | NamedProperty | Tag | Association) -> Content:
    """What is kept of a thing with a name."""
    value = as_json(body)
    return Content(name=str(value.pop("name")), value=value)


def properties(given: Mapping[str, Property] | Unset) -> list[Content]:
    """What is kept of properties by their names."""
    if given is UNSET:
        return []
    values = {name: as_json(body) for name, body in given.items()}
    return [Content(name=name, value={k: v for k, v in value.items() if k != "name"}) for name, value in values.items()]
