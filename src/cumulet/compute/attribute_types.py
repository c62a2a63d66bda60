"""What the API's attributes may look like: the types several features' bodies and queries share."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Annotated

from cumulet.web.schema import Convert, Empty, Json, integer_text

MAX_INTEGER = 0x7FFFFFFF
PRINTABLE = r"^[^\p{C}\p{Zl}\p{Zp}]*$"

Name = Annotated[str, Json({"minLength": 1, "maxLength": 255, "format": "name"})]
SpacedName = Annotated[
    str,
    Json({"minLength": 1, "maxLength": 255, "format": "name_with_leading_trailing_spaces"}),
    Convert(lambda text: text.strip()),
]
Description = Annotated[str | None, Json({"maxLength": 255, "pattern": PRINTABLE})]
LongDescription = Annotated[str | None, Json({"maxLength": 65535, "pattern": PRINTABLE})]
Hostname = Annotated[str, Json({"minLength": 2, "maxLength": 63, "pattern": "^[a-zA-Z0-9]+[a-zA-Z0-9-]*[a-zA-Z0-9]+$"})]
HostName = Annotated[str, Json({"minLength": 1, "maxLength": 255, "pattern": "^[a-zA-Z0-9._-]*$"})]
"""A fully qualified name: of a compute host, or of a server (2.94)."""
Uuid = Annotated[str, Json({"format": "uuid"})]
Text255 = Annotated[str, Json({"minLength": 1, "maxLength": 255})]
Tag = Annotated[str, Json({"minLength": 1, "maxLength": 60, "pattern": "^[^,/]*$", "format": "one line"})]
MetadataKey = Annotated[str, Json({"pattern": "^[a-zA-Z0-9_:. -]{1,255}$"})]
MetadataValue = Annotated[str, Json({"maxLength": 255})]
Metadata = dict[MetadataKey, MetadataValue]
MetadataOrNull = dict[MetadataKey, MetadataValue | None]
ExtraSpecValue = Annotated[str | int | float, Json({"type": ["string", "number"], "maxLength": 255})]
ExtraSpecs = dict[MetadataKey, ExtraSpecValue]
DiskConfig = Annotated[str, Json({"enum": ["AUTO", "MANUAL"]})]
IpV4 = Annotated[str, Json({"format": "ipv4"})]
IpV6 = Annotated[
    str,
    Json({"format": "ipv6"}),
    Convert(lambda text: socket.inet_ntop(socket.AF_INET6, socket.inet_pton(socket.AF_INET6, text))),
]
"""Kept in its one canonical spelling."""
IpAddress = Annotated[str, Json({"anyOf": [{"format": "ipv4"}, {"format": "ipv6"}]})]
UserData = Annotated[str, Json({"maxLength": 65535, "format": "base64"})]
FlavorRef = Annotated[str, Json({"type": ["string", "integer"], "minLength": 1}), Convert(str)]
Moment = Annotated[str, Json({"format": "date-time"})]


class Nothing(Empty, accepts=("null",)):
    """No content: the body, or an action's value, is absent or null; ``{}`` is refused."""


if TYPE_CHECKING:
    VolumeSize = int
    FlavorSize = int
    QuotaLimit = int
    PortNumber = int
else:
    VolumeSize = integer_text(1, MAX_INTEGER)
    FlavorSize = integer_text(0, MAX_INTEGER)
    QuotaLimit = integer_text(-1, MAX_INTEGER)
    PortNumber = integer_text(1, 65_535)
