"""The body of a request that creates servers: Compute API, "Create Server"."""

from __future__ import annotations

from typing import Annotated, Literal

from cumulet.compute import attribute_types as t
from cumulet.compute.block_devices import BlockDevice, BlockDeviceV2
from cumulet.compute.servers import ServerHostname
from cumulet.web.schema import (
    UNSET,
    Body,
    Json,
    Key,
    LooseBool,
    PositiveInteger,
    Required,
    Since,
    Unset,
    Until,
    Versions,
)


class NetworkEntry(Body):
    uuid: Annotated[str | Unset, Versions(("2.1", str), ("2.37", t.Uuid))] = UNSET
    port: Annotated[str | None, Json({"format": "uuid"})] = None
    fixed_ip: t.IpAddress | None = None
    tag: Annotated[str | None, Versions(("2.32", t.Tag), ("2.37", None), ("2.42", t.Tag))] = None


class SecurityGroupEntry(Body):
    name: t.Name | Unset = UNSET


class PersonalityFile(Body):
    path: str
    contents: Annotated[str, Json({"format": "base64"})]


class CreateServer(Body):
    name: t.Name
    flavor_ref: Annotated[t.FlavorRef, Key("flavorRef")]
    image_ref: Annotated[
        str | None, Key("imageRef"), Json({"type": "string", "anyOf": [{"format": "uuid"}, {"maxLength": 0}]})
    ] = None
    admin_password: Annotated[str | None, Key("adminPass"), Json({"type": "string"})] = None
    metadata: t.Metadata | Unset = UNSET
    networks: Annotated[
        list[NetworkEntry] | Literal["none", "auto"] | None,
        Required(since="2.37"),
        Versions(("2.1", list[NetworkEntry]), ("2.37", list[NetworkEntry] | Literal["none", "auto"])),
    ] = None
    disk_config: Annotated[t.DiskConfig, Key("OS-DCF:diskConfig")] = "MANUAL"
    access_ipv4: Annotated[t.IpV4 | None, Key("accessIPv4"), Json({"type": "string"})] = None
    access_ipv6: Annotated[t.IpV6 | None, Key("accessIPv6"), Json({"type": "string"})] = None
    personality: Annotated[list[PersonalityFile] | None, Json({"type": "array"}), Until("2.56")] = None
    availability_zone: Annotated[t.Name | None, Json({"type": "string"})] = None
    block_device_mapping: Annotated[list[BlockDevice] | None, Json({"type": "array"})] = None
    block_device_mapping_v2: Annotated[list[BlockDeviceV2] | None, Json({"type": "array"})] = None
    config_drive: LooseBool = False
    key_name: Annotated[t.Name | None, Json({"type": "string"})] = None
    min_count: PositiveInteger = 1
    max_count: PositiveInteger | Unset = UNSET
    return_reservation_id: LooseBool = False
    security_groups: list[SecurityGroupEntry] | Unset = UNSET
    user_data: Annotated[t.UserData | None, Json({"type": "string"})] = None
    description: Annotated[t.Description | Unset, Since("2.19")] = UNSET
    tags: Annotated[list[t.Tag] | None, Json({"type": "array", "maxItems": 50}), Since("2.52")] = None
    trusted_image_certificates: Annotated[
        list[Annotated[str, Json({"minLength": 1})]] | None,
        Json({"minItems": 1, "maxItems": 50, "uniqueItems": True}),
        Since("2.63"),
    ] = None
    host: Annotated[t.HostName | None, Json({"type": "string"}), Since("2.74")] = None
    hypervisor_hostname: Annotated[t.HostName | None, Json({"type": "string"}), Since("2.74")] = None
    hostname: ServerHostname = UNSET


_UUID = {"type": "string", "format": "uuid"}
_LINE = {"type": "string", "format": "one line"}
_ONE_OR_MORE = {"anyOf": [_UUID, {"type": "array", "items": _UUID}]}
Hints = Annotated[
    dict[str, object] | None,
    Json(
        {
            "type": "object",
            "properties": {
                "group": _ONE_OR_MORE,
                "different_host": _ONE_OR_MORE,
                "same_host": {"type": ["string", "array"], "format": "one line", "items": _UUID},
                "query": {"type": ["string", "object"]},
                "target_cell": {"type": "string", "minLength": 1, "maxLength": 255, "format": "name"},
                "different_cell": {
                    "type": ["string", "array"],
                    "format": "one line",
                    "items": {"type": "string", "format": "one line"},
                },
                "build_near_host_ip": {"type": "string", "anyOf": [{"format": "ipv4"}, {"format": "ipv6"}]},
                "cidr": {"type": "string", "pattern": r"^/[0-9a-f.:]+$"},
            },
        }
    ),
]


class CreateServers(Body):
    server: CreateServer
    hints: Annotated[Hints, Key("os:scheduler_hints")] = None
    older_hints: Annotated[Hints, Key("OS-SCH-HNT:scheduler_hints")] = None
