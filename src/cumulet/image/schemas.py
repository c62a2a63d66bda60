"""The JSON schemas of images and members, as clients ask for them."""

from __future__ import annotations

from collections.abc import Callable

from cumulet.image import attributes
from cumulet.image.service import IMAGE
from cumulet.web.operation import Call

_TEXT = {"type": "string"}
_TEXT_OR_NULL = {"type": ["null", "string"]}
_READ_ONLY = {"readOnly": True}
_UUID = {"type": "string", "pattern": attributes.UUID_PATTERN}

IMAGE_PROPERTIES: dict[str, object] = {
    "id": {**_UUID, "description": "An identifier for the image"},
    "name": {**_TEXT_OR_NULL, "description": "Descriptive name for the image", "maxLength": 255},
    "status": {**_TEXT, **_READ_ONLY, "description": "Status of the image", "enum": list(attributes.STATUSES)},
    "visibility": {**_TEXT, "description": "Who can see the image", "enum": list(attributes.VISIBILITIES)},
    "protected": {"type": "boolean", "description": "Whether the image cannot be deleted"},
    "os_hidden": {"type": "boolean", "description": "Whether default lists leave the image out"},
    "checksum": {**_TEXT_OR_NULL, **_READ_ONLY, "description": "MD5 of the data in hexadecimal", "maxLength": 32},
    "os_hash_algo": {**_TEXT_OR_NULL, **_READ_ONLY, "description": "Algorithm of os_hash_value", "maxLength": 64},
    "os_hash_value": {
        **_TEXT_OR_NULL,
        **_READ_ONLY,
        "description": "Digest of the data in hexadecimal",
        "maxLength": 128,
    },
    "owner": {**_TEXT_OR_NULL, "description": "The project that owns the image", "maxLength": 255},
    "size": {"type": ["null", "integer"], **_READ_ONLY, "description": "Size of the data in bytes"},
    "virtual_size": {"type": ["null", "integer"], **_READ_ONLY, "description": "Size of the disk in bytes"},
    "container_format": {
        **_TEXT_OR_NULL,
        "description": "Format of the container",
        "enum": [None, *attributes.CONTAINER_FORMATS],
    },
    "disk_format": {**_TEXT_OR_NULL, "description": "Format of the disk", "enum": [None, *attributes.DISK_FORMATS]},
    "created_at": {**_TEXT, **_READ_ONLY, "description": "When the image was registered"},
    "updated_at": {**_TEXT, **_READ_ONLY, "description": "When the image was last changed"},
    "tags": {"type": "array", "description": "Words to find the image by", "items": {**_TEXT, "maxLength": 255}},
    "direct_url": {**_TEXT, **_READ_ONLY, "description": "Address of the data in an external store"},
    "min_ram": {"type": "integer", "description": "Memory in MB a server needs to boot the image"},
    "min_disk": {"type": "integer", "description": "Disk in GB a server needs to boot the image"},
    "self": {**_TEXT, **_READ_ONLY, "description": "Address of the image"},
    "file": {**_TEXT, **_READ_ONLY, "description": "Address of the image's data"},
    "stores": {**_TEXT, **_READ_ONLY, "description": "Stores that hold the data, where there are several"},
    "schema": {**_TEXT, **_READ_ONLY, "description": "Address of this schema"},
    "locations": {
        "type": "array",
        "description": "Addresses of the data in external stores",
        "items": {
            "type": "object",
            "properties": {"url": {**_TEXT, "maxLength": 255}, "metadata": {"type": "object"}},
            "required": ["url", "metadata"],
        },
    },
}
MEMBER_PROPERTIES: dict[str, object] = {
    "member_id": {**_TEXT, "description": "The project the image is shared with"},
    "image_id": {**_UUID, "description": "An identifier for the image"},
    "created_at": {**_TEXT, "description": "When the image was shared"},
    "updated_at": {**_TEXT, "description": "When the membership was last changed"},
    "status": {**_TEXT, "description": "What the member thinks of it", "enum": ["pending", "accepted", "rejected"]},
    "schema": {**_TEXT, **_READ_ONLY},
}


def image_schema() -> dict[str, object]:
    return {
        "name": "image",
        "properties": IMAGE_PROPERTIES,
        "additionalProperties": _TEXT,
        "links": [
            {"rel": "self", "href": "{self}"},
            {"rel": "enclosure", "href": "{file}"},
            {"rel": "describedby", "href": "{schema}"},
        ],
    }


def images_schema() -> dict[str, object]:
    items = {"type": "array", "items": image_schema()}
    return {
        "name": "images",
        "properties": {"images": items, "first": _TEXT, "next": _TEXT, "schema": _TEXT},
        "links": [
            {"rel": "first", "href": "{first}"},
            {"rel": "next", "href": "{next}"},
            {"rel": "describedby", "href": "{schema}"},
        ],
    }


def member_schema() -> dict[str, object]:
    return {"name": "member", "properties": MEMBER_PROPERTIES}


def members_schema() -> dict[str, object]:
    return {
        "name": "members",
        "properties": {"members": {"type": "array", "items": member_schema()}, "schema": _TEXT},
        "links": [{"rel": "describedby", "href": "{schema}"}],
    }


def serve(name: str, schema: Callable[[], dict[str, object]]) -> None:
    """``/schemas/NAME``, for whoever has a token."""

    def show(_call: Call[None, None]) -> dict[str, object]:
        return schema()

    show.__name__ = f"show_{name.replace('/', '_')}_schema"
    show.__doc__ = f"The JSON schema of {name}."
    IMAGE.operation("GET", f"/schemas/{name}", rules=())(show)


for _name, _schema in {
    "image": image_schema,
    "images": images_schema,
    "member": member_schema,
    "members": members_schema,
}.items():
    serve(_name, _schema)
