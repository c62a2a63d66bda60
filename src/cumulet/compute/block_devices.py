"""A server's disks beside its first: those that its flavor gives, divided as `block_device_mapping` asks.

The flavor's ephemeral space is one disk, unless the request asks for several that are together no larger. The request
is kept with the server; the disks are derived from it and from the flavor whenever the guest is described. Volumes are
not offered.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Annotated, Literal

import msgspec

from cumulet.compute import attribute_types as t
from cumulet.compute.model import Flavor, Server
from cumulet.errors import BadRequest, NotYet
from cumulet.host.disks import FILE_SYSTEMS, SWAP, Disk
from cumulet.web.schema import UNSET, Body, Convert, Json, LooseBool, Since, Unset, Versions

ASKED_FOR = "block_devices"
"""Key of a server's system metadata."""
MOST_LOCAL = 3
"""Disks of a server, the first one included: Nova's `max_local_block_devices`."""
DEFAULT_FILE_SYSTEM = "ext4"
_INVALID = "Block Device Mapping is Invalid: "
_EPHEMERAL = re.compile(r"ephemeral\d+\Z")


class BlockDevice(Body):
    virtual_name: Annotated[str | Unset, Json({"maxLength": 255})] = UNSET
    volume_id: t.Uuid | Unset = UNSET
    snapshot_id: t.Uuid | Unset = UNSET
    volume_size: t.VolumeSize | Unset = UNSET
    device_name: Annotated[str | Unset, Json({"minLength": 1, "maxLength": 255, "pattern": "^[a-zA-Z0-9._/-]*$"})] = (
        UNSET
    )
    delete_on_termination: LooseBool | Unset = UNSET
    no_device: object = None
    connection_info: Annotated[str | Unset, Json({"maxLength": 16777215})] = UNSET


class BlockDeviceV2(BlockDevice):
    source_type: Annotated[str | Unset, Json({"enum": ["volume", "image", "snapshot", "blank"]})] = UNSET
    uuid: Annotated[str | Unset, Json({"minLength": 1, "maxLength": 255, "pattern": "^[a-zA-Z0-9._-]*$"})] = UNSET
    image_id: t.Uuid | Unset = UNSET
    destination_type: Annotated[str | Unset, Json({"enum": ["local", "volume"]})] = UNSET
    guest_format: t.MetadataValue | Unset = UNSET
    device_type: t.MetadataValue | Unset = UNSET
    disk_bus: t.MetadataValue | Unset = UNSET
    boot_index: Annotated[
        int | None, Convert(int), Json({"type": ["integer", "string", "null"], "pattern": "^-?[0-9]+$"})
    ] = None
    tag: Annotated[str | None, Versions(("2.32", t.Tag), ("2.33", None), ("2.42", t.Tag))] = None
    volume_type: Annotated[str | None, Json({"maxLength": 255}), Since("2.67")] = None


class Asked(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One disk as it was asked for. `size`: GiB of an ephemeral disk, MiB of swap; None: all that the flavor has."""

    kind: Literal["root", "ephemeral", "swap"]
    size: int | None = None
    file_system: str = DEFAULT_FILE_SYSTEM
    tag: str | None = None


_decoder = msgspec.json.Decoder(list[Asked])


def requested(
    old: Sequence[BlockDevice] | None, new: Sequence[BlockDeviceV2] | None, image_ref: str | None
) -> list[Asked]:
    """The disks that a request asks for in one of the two forms. BadRequest for both forms, and for what cannot be."""
    if old and new:
        raise BadRequest("Using different block_device_mapping syntaxes is not allowed in the same request.")
    asked = [_legacy(device) for device in old or () if not device.no_device]
    devices = [device for device in new or () if not device.no_device]
    asked += [_device(device, image_ref) for device in devices]
    if new:
        indexes = sorted(index for device in devices if (index := _boot_index(device)) >= 0)
        if not indexes or indexes != list(range(len(indexes))):
            raise BadRequest(
                f"{_INVALID}Boot sequence for the instance and image/block device mapping combination is not valid."
            )
    return asked


def _legacy(device: BlockDevice) -> Asked:
    name = "" if isinstance(device.virtual_name, Unset) else device.virtual_name
    size = None if isinstance(device.volume_size, Unset) else int(device.volume_size)
    if name == SWAP:
        return Asked(kind="swap", size=size)
    if _EPHEMERAL.match(name):
        return Asked(kind="ephemeral", size=size)
    if isinstance(device.volume_id, Unset) and isinstance(device.snapshot_id, Unset):
        raise BadRequest(f"{_INVALID}Unrecognized legacy format.")
    raise NotYet("Volumes (block_device_mapping) are not implemented.")


def _device(device: BlockDeviceV2, image_ref: str | None) -> Asked:
    source, destination = device.source_type, device.destination_type
    if source == "blank" and device.uuid:
        raise BadRequest(f"{_INVALID}Invalid device UUID.")
    if source != "blank" and not device.uuid:
        raise BadRequest(f"{_INVALID}Missing device UUID.")
    if source in ("volume", "snapshot") or destination == "volume":
        raise NotYet("Volumes (block_device_mapping_v2) are not implemented.")
    if isinstance(source, Unset) or isinstance(destination, Unset):
        raise BadRequest(f"{_INVALID}source_type and destination_type are needed.")
    if device.volume_type:
        raise BadRequest(f"{_INVALID}Specifying a volume_type with destination_type=local is not supported.")
    if device.device_type not in (UNSET, "disk"):
        raise NotYet("Disks of another device_type than disk are not implemented.")
    size = None if isinstance(device.volume_size, Unset) else int(device.volume_size)
    if source == "image":
        if not image_ref or _boot_index(device) != 0:
            raise BadRequest(f"{_INVALID}Mapping image to local is not supported.")
        if device.uuid != image_ref:
            raise NotYet("A first disk from another image than imageRef is not implemented.")
        return Asked(kind="root", tag=device.tag)
    if device.guest_format == SWAP:
        return Asked(kind="swap", size=size, tag=device.tag)
    file_system = DEFAULT_FILE_SYSTEM if isinstance(device.guest_format, Unset) else device.guest_format
    if file_system not in FILE_SYSTEMS:
        raise BadRequest(f"{_INVALID}guest_format {file_system} is not one of {', '.join(FILE_SYSTEMS)}, swap.")
    return Asked(kind="ephemeral", size=size, file_system=file_system, tag=device.tag)


def require_bus(new: Sequence[BlockDeviceV2] | None, bus: str) -> None:
    """NotYet for a disk that is to be on another bus than `bus`, which is that of all disks of a server."""
    for device in new or ():
        if not device.no_device and device.disk_bus not in (UNSET, bus):
            raise NotYet(f"Disks of another disk_bus than {bus}, which the image says, are not implemented.")


def _boot_index(device: BlockDeviceV2) -> int:
    """-1: nothing is booted from it."""
    return -1 if device.boot_index is None else device.boot_index


def require_fit(asked: Sequence[Asked], flavor: Flavor) -> None:
    """BadRequest if the request asks for more than the flavor gives, or for too many disks."""
    ephemeral = [one.size or flavor.ephemeral_gib for one in asked if one.kind == "ephemeral"]
    if sum(ephemeral) > flavor.ephemeral_gib:
        raise BadRequest(
            "Ephemeral disks requested are larger than the instance type allows. If no size is given in one block "
            "device mapping, flavor ephemeral size will be used."
        )
    swaps = [one.size or 0 for one in asked if one.kind == "swap"]
    if len(swaps) > 1:
        raise BadRequest(f"{_INVALID}More than one swap drive requested.")
    if sum(swaps) > flavor.swap_mib:
        raise BadRequest("Swap drive requested is larger than instance type allows.")
    local = 1 + max(len(ephemeral), bool(flavor.ephemeral_gib)) + max(len(swaps), bool(flavor.swap_mib))
    if local > MOST_LOCAL:
        raise BadRequest(f"{_INVALID}You specified more local devices than the limit allows")


def kept(asked: Sequence[Asked]) -> dict[str, str]:
    """The item of a server's system metadata that keeps the request; none for an empty request."""
    return {ASKED_FOR: msgspec.json.encode(asked).decode()} if asked else {}


def of(server: Server, flavor: Flavor | None = None) -> tuple[Disk, ...]:
    """A server's disks beside its first; with `flavor`, those that it would have with that flavor."""
    return tuple(disk for disk, _ in _with_tags(flavor or server.flavor, _asked(server)) if disk.place)


def tagged(server: Server) -> Iterator[tuple[int, str]]:
    """(place, tag) of each disk that has a tag; the first disk's place is 0."""
    asked = _asked(server)
    yield from ((0, one.tag) for one in asked if one.kind == "root" and one.tag)
    yield from ((disk.place, tag) for disk, tag in _with_tags(server.flavor, asked) if tag)


def ephemeral_mib(disks: Sequence[Disk]) -> int:
    """The size of all ephemeral disks together."""
    return sum(disk.size_mib for disk in disks if disk.content != SWAP)


def _asked(server: Server) -> list[Asked]:
    return _decoder.decode(server.system_metadata.get(ASKED_FOR, "[]"))


def _with_tags(flavor: Flavor, asked: Sequence[Asked]) -> Iterator[tuple[Disk, str | None]]:
    """Ephemeral disks first, then swap, in consecutive places. Disks of size 0 are left out."""
    ephemeral = [one for one in asked if one.kind == "ephemeral"] or [Asked(kind="ephemeral")]
    swap = [one for one in asked if one.kind == "swap"] or [Asked(kind="swap")]
    place = 0
    for number, one in enumerate(ephemeral):
        if size := (one.size or flavor.ephemeral_gib):
            place += 1
            label = f"ephemeral{number}"
            yield Disk(place=place, size_mib=size * 1024, content=one.file_system, label=label), one.tag
    if size := min(swap[0].size or flavor.swap_mib, flavor.swap_mib):
        yield Disk(place=place + 1, size_mib=size, content=SWAP), swap[0].tag
