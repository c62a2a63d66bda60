"""PATCH of an image: Glance's two dialects of JSON patch, each change with the rights it needs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec.structs import replace

from cumulet.db.engine import Tx
from cumulet.errors import BadRequest, Conflict, Forbidden, UnsupportedMediaType
from cumulet.image import attributes, store, views
from cumulet.image.service import (
    IMAGE,
    MODIFY_IMAGE,
    facts_of_call,
    image_facts,
    image_in_sight,
    require_visibility,
)
from cumulet.image.store import Image
from cumulet.web.bodies import raw_body
from cumulet.web.formats import is_one_line
from cumulet.web.json_reader import read_json
from cumulet.web.operation import Call, Rule

DIALECTS = {
    "application/openstack-images-v2.0-json-patch": 4,
    "application/openstack-images-v2.1-json-patch": 10,
}
OPERATIONS = ("add", "remove", "replace")


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One operation of a patch. `value` is None for remove; `dialect` is the draft of JSON patch it was written in."""

    operation: str
    name: str
    value: Any
    dialect: int


@IMAGE.operation(
    "PATCH",
    "/images/{image_id}",
    rules=(Rule(MODIFY_IMAGE),),
    target=image_in_sight,
    facts=facts_of_call,
    raw_body=True,
)
async def update_image(call: Call[Image, None]) -> dict[str, object]:
    """Change an image's attributes and properties; all changes of a patch are made or none."""
    media = (call.headers.get("content-type") or "").partition(";")[0].strip().lower()
    if media not in DIALECTS:
        accepted = ", ".join(sorted(DIALECTS))
        message = f"Image PATCH expects Content-Type one of: {accepted}"
        raise UnsupportedMediaType(message, headers={"Accept-Patch": accepted})
    changes = read_changes(read_json(await raw_body(call)), DIALECTS[media])

    def apply(tx: Tx) -> Image:
        call.tx = tx
        before = image_in_sight(call)
        facts = image_facts(before, call.caller)
        draft = _Draft(dict(before.properties), dict.fromkeys(before.tags))
        for change in changes:
            _check_rights(call, change, facts)
            _apply(draft, before, change)
        attributes.check_amounts(draft.properties, draft.tags)
        if not changes:
            return before
        after = replace(
            before,
            **draft.own,
            properties=draft.properties,
            tags=tuple(sorted(draft.tags)),
            updated_at_us=call.now_us,
        )
        attributes.check_formats(after.disk_format, after.container_format)
        store.save(tx, before, after)
        return after

    return views.show(await call.cloud.db.write_async(apply))


def set_properties(call: Call[Image, object], properties: Mapping[str, str]) -> None:
    """Replace the image's properties in the call's transaction; 403 and 400 for those that no image may have."""
    before = call.target
    for name in properties.keys() - before.properties.keys():
        if name in attributes.WRITABLE:
            raise Forbidden(f"Attribute '{name}' is not a property.")
        attributes.check_writable(name)
    for name, value in properties.items():
        attributes.check_value(name, value)
    attributes.check_amounts(properties, before.tags)
    store.save(call.tx, before, replace(before, properties=dict(properties), updated_at_us=call.now_us))


# -- reading


def read_changes(body: object, dialect: int) -> tuple[Change, ...]:
    """The changes a patch asks for; 400 or 403 for those that are refused whatever the image and the caller."""
    if not isinstance(body, list):
        raise BadRequest("Request body must be a JSON array of operation objects.")
    return tuple(_read_change(raw, dialect) for raw in body)


def _read_change(raw: object, dialect: int) -> Change:
    if not isinstance(raw, dict):
        raise BadRequest("Operations must be JSON objects.")
    operation, pointer = _operation_and_pointer(raw, dialect)
    path = _path(pointer)
    name = path[0]
    limit = 2 if name == "locations" and operation != "replace" else 1
    if len(path) != limit:
        raise BadRequest(f"Invalid JSON pointer for this resource: '/{'/'.join(path)}'")
    if operation != "remove" and "value" not in raw:
        raise BadRequest(f'Operation "{operation}" requires a member named "value".')
    attributes.check_writable(name)
    if name == "locations":
        raise Forbidden("It's not allowed to change locations if locations are invisible.")
    value = None
    if operation != "remove":
        value = raw["value"]
        attributes.check_value(name, value)
    return Change(operation=operation, name=name, value=value, dialect=dialect)


def _operation_and_pointer(raw: dict[str, object], dialect: int) -> tuple[str, object]:
    if dialect == 4:
        named = [operation for operation in OPERATIONS if operation in raw]
        if len(named) != 1:
            raise BadRequest('Operation objects must contain exactly one member named "add", "remove", or "replace".')
        return named[0], raw[named[0]]
    operation = raw.get("op")
    if operation not in OPERATIONS:
        raise BadRequest(f"Invalid or missing `op`. It must be one of the following: {', '.join(OPERATIONS)}.")
    if "path" not in raw:
        raise BadRequest("Unable to find 'path' in JSON Schema change")
    return operation, raw["path"]


_BAD_ESCAPE = re.compile(r"~(?![01])")


def _path(pointer: object) -> list[str]:
    """The names a JSON pointer goes through."""
    if not isinstance(pointer, str) or not pointer.startswith("/"):
        raise BadRequest('A pointer is text that starts with "/".')
    if not is_one_line(pointer):
        raise BadRequest("The pointer contains control characters.")
    parts = [part.strip() for part in pointer[1:].split("/")]
    if not all(parts):
        raise BadRequest('A pointer has a name after each "/".')
    if _BAD_ESCAPE.search(pointer):
        raise BadRequest('The pointer contains "~" not part of a recognized escape sequence.')
    return [part.replace("~1", "/").replace("~0", "~") for part in parts]


# -- applying


class _Draft(msgspec.Struct):
    """An image while a patch is applied to it."""

    properties: dict[str, str]
    tags: dict[str, None]
    own: dict[str, object] = msgspec.field(default_factory=dict)


def _check_rights(call: Call[Image, None], change: Change, facts: Mapping[str, object]) -> None:
    if change.name == "owner" and change.operation != "remove" and not call.caller.is_admin:
        raise Forbidden("Owner can't be updated by non admin.")
    if change.name == "visibility" and change.operation != "remove":
        require_visibility(call, change.value, facts)
    call.require(MODIFY_IMAGE, facts)


def _apply(draft: _Draft, before: Image, change: Change) -> None:
    name = change.name
    if name in attributes.WRITABLE:
        _apply_to_own(draft, before, change)
    elif change.operation == "add":
        if change.dialect == 4 and name in draft.properties:
            raise Conflict(f"Property {name} already present.")
        draft.properties[name] = change.value
    elif name not in draft.properties:
        raise Conflict(f"Property {name} does not exist.")
    elif change.operation == "replace":
        draft.properties[name] = change.value
    else:
        del draft.properties[name]


def _apply_to_own(draft: _Draft, before: Image, change: Change) -> None:
    name = change.name
    if change.operation == "remove":
        raise Forbidden(f"Property {name} may not be removed.")
    if change.operation == "add" and change.dialect == 4:
        raise Conflict(f"Property {name} already present.")
    if name in ("disk_format", "container_format") and before.status != "queued":
        raise Forbidden(f"Attribute {name} can be only replaced for a queued image.")
    if name == "tags":
        draft.tags = dict.fromkeys(change.value)
    else:
        draft.own[name] = change.value
