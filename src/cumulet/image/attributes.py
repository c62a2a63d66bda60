"""Which attributes an image has, which of them clients may write, and what the values may be."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import msgspec

from cumulet.errors import BadRequest, Forbidden, NotYet, TooLarge
from cumulet.image.inspection import (
    BOOTABLE_CONTAINER,
    BOOTABLE_DISK_FORMATS,
    OPAQUE_CONTAINERS,
    OPAQUE_DISK_FORMATS,
)
from cumulet.web.formats import is_one_line

CONTAINER_FORMATS = (BOOTABLE_CONTAINER, *OPAQUE_CONTAINERS)
DISK_FORMATS = (*BOOTABLE_DISK_FORMATS, *OPAQUE_DISK_FORMATS)
AMAZON_FORMATS = ("ami", "ari", "aki")
"""Disk formats that go with the container format of the same name only."""
VISIBILITIES = ("community", "public", "private", "shared")
STATUSES = (
    "queued",
    "saving",
    "active",
    "killed",
    "deleted",
    "uploading",
    "importing",
    "pending_delete",
    "deactivated",
)

WRITABLE = frozenset(
    {"name", "visibility", "owner", "disk_format", "container_format", "min_disk", "min_ram", "protected"}
    | {"os_hidden", "tags"}
)
READ_ONLY = frozenset(
    {"created_at", "updated_at", "status", "checksum", "size", "virtual_size", "direct_url", "self", "file", "schema"}
    | {"id", "os_hash_algo", "os_hash_value", "stores"}
)
RESERVED = frozenset({"location", "deleted", "deleted_at"})
RESERVED_PREFIX = "os_glance"

MOST_PROPERTIES = 128
MOST_TAGS = 128
MOST_MEMBERS = 128
LONGEST_PROPERTY_VALUE = 65_535
PROPERTY_BYTES = 64 << 10
"""Bytes of the values of all properties of an image."""
LARGEST_MINIMUM = (1 << 31) - 1

SIGNATURE = frozenset(
    ("img_signature", "img_signature_hash_method", "img_signature_key_type", "img_signature_certificate_uuid")
)
"""Properties with which Glance verifies the data of an image, if all are there."""

UUID_PATTERN = "^([0-9a-fA-F]){8}-([0-9a-fA-F]){4}-([0-9a-fA-F]){4}-([0-9a-fA-F]){4}-([0-9a-fA-F]){12}$"


class Kind(msgspec.Struct, frozen=True):
    """What values an attribute takes."""

    types: tuple[type, ...]
    words: tuple[str, ...] = ()

    def check(self, name: str, value: object) -> None:
        # bool is an int to Python, and not to JSON.
        if type(value) not in self.types or (self.words and value is not None and value not in self.words):
            raise BadRequest(f"The value of attribute '{name}' is of a wrong type or not one of its values.")
        if isinstance(value, str) and not self.words and len(value) > 255:
            raise BadRequest(f"The value of attribute '{name}' is longer than 255 characters.")
        if isinstance(value, str) and not is_one_line(value):
            raise BadRequest(f"The value of attribute '{name}' contains control characters.")
        if type(value) is int and not 0 <= value <= LARGEST_MINIMUM:
            raise BadRequest(f"The value of attribute '{name}' is out of range.")


KINDS: Mapping[str, Kind] = {
    "name": Kind((str, type(None))),
    "visibility": Kind((str,), VISIBILITIES),
    "owner": Kind((str, type(None))),
    "disk_format": Kind((str, type(None)), DISK_FORMATS),
    "container_format": Kind((str, type(None)), CONTAINER_FORMATS),
    "min_disk": Kind((int,)),
    "min_ram": Kind((int,)),
    "protected": Kind((bool,)),
    "os_hidden": Kind((bool,)),
}


def check_formats(disk_format: str | None, container_format: str | None) -> None:
    """400 for a format of Amazon's together with another one: it is that of the disk and of the container."""
    given = {disk_format, container_format} - {None}
    if len(given) > 1 and not given.isdisjoint(AMAZON_FORMATS):
        raise BadRequest(
            f"Invalid mix of disk and container formats: {disk_format} and {container_format}. "
            "When setting a disk or container format to one of 'aki', 'ari', or 'ami', the two must match."
        )


def check_writable(name: str) -> None:
    """403 for attributes that only the service writes."""
    if name in READ_ONLY:
        raise Forbidden(f"Attribute '{name}' is read-only.")
    if name in RESERVED or name.startswith(RESERVED_PREFIX):
        raise Forbidden(f"Attribute '{name}' is reserved.")


def check_value(name: str, value: object) -> None:
    """400 for a value the attribute cannot have; any other name is a property, whose value is text."""
    kind = KINDS.get(name)
    if kind is not None:
        kind.check(name, value)
    elif name == "tags":
        check_tags(value)
    elif not isinstance(value, str):
        raise BadRequest(f"The value of property '{name}' is not text.")
    elif len(value) > LONGEST_PROPERTY_VALUE:
        raise BadRequest(f"The value of property '{name}' is longer than {LONGEST_PROPERTY_VALUE} characters.")
    elif not 0 < len(name) <= 255:
        raise BadRequest("Custom property should not be greater than 255 characters.")
    elif not is_one_line(name):
        raise BadRequest("The name of a property contains control characters.")


def check_tags(value: object) -> None:
    if not isinstance(value, list) or not all(map(_is_tag, value)):
        raise BadRequest("Tags are a list of texts of one line and at most 255 characters.")


def _is_tag(value: object) -> bool:
    return isinstance(value, str) and len(value) <= 255 and is_one_line(value)


def check_amounts(properties: Mapping[str, str], tags: Collection[str]) -> None:
    """413 where an image would get more than it may have."""
    if len(properties) > MOST_PROPERTIES:
        raise TooLarge(f"The limit of {MOST_PROPERTIES} properties for an image is exceeded.")
    if sum(len(value.encode()) for value in properties.values()) > PROPERTY_BYTES:
        raise TooLarge(f"The limit of {PROPERTY_BYTES} bytes for the properties of an image is exceeded.")
    if len(tags) > MOST_TAGS:
        raise TooLarge(f"The limit of {MOST_TAGS} tags for an image is exceeded.")


def refuse_signed(properties: Collection[str]) -> None:
    """501 for data whose signature would have to be verified."""
    if set(properties) >= SIGNATURE:
        raise NotYet("Verifying the signature of an image (img_signature) is not implemented.")
