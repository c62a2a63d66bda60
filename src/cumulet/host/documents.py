"""The documents by which a host's metadata service answers a guest, from what the host knows of it. Pure."""

from __future__ import annotations

import base64
import binascii
import json

from cumulet.host import network_data, nics, pci
from cumulet.host.driver import DriverError, Guest, Nic
from cumulet.host.telling import EC2, META_DATA, PASSWORD, Posted, Told
from cumulet.host.wiring import Wiring

LATEST = "openstack/latest/"
_EC2_ON_DRIVE = "ec2/latest/meta-data.json"


def documents(
    guest: Guest, wiring: Wiring | None, told: Told | None = None, posted: Posted | None = None
) -> dict[str, bytes]:
    """The files of the metadata service, by name: those of the config drive without the password, as with Nova.

    What the host was `told` since stands before what is on the drive. `devices` and `network_data.json` follow the NICs
    that have come and gone, as in Nova's service. `wiring`: what is in force on this host; without one for all of the
    guest's ports, networks are told as they were. What EC2 calls `meta-data` is one document, `telling.EC2`, and the
    password that the guest has `posted` another, which is missing as long as there is none.
    """
    on_drive = files_on_drive(guest)
    files = {path.removeprefix(LATEST): found for path, found in on_drive.items() if path.startswith(LATEST)}
    if _EC2_ON_DRIVE in on_drive:
        files[EC2] = on_drive[_EC2_ON_DRIVE]
    if told is not None:
        files |= told.documents
    if posted is not None:
        files[PASSWORD] = posted.content.encode()
    if not files.get(PASSWORD):
        files.pop(PASSWORD, None)
    if EC2 in files:
        files[EC2] = json.dumps(_ec2(json.loads(files[EC2]), guest), sort_keys=True).encode()
    meta = json.loads(files[META_DATA])
    meta.pop("admin_pass", None)
    if "devices" in (frozen := json.loads(on_drive[f"{LATEST}{META_DATA}"])):
        meta["devices"] = frozen["devices"]  # Those that have come since, and their tags, the host knows itself.
    if "devices" in meta:
        meta["devices"] = _devices(meta["devices"], guest)
    files[META_DATA] = json.dumps(meta, sort_keys=True).encode()
    networks = None if wiring is None else network_data.of_guest(guest, wiring)
    if networks is not None and "network_data.json" in files:
        files["network_data.json"] = json.dumps(networks, sort_keys=True).encode()
    return files


def _ec2(on_drive: dict[str, object], guest: Guest) -> dict[str, object]:
    """As on the drive, but for addresses: a NIC may have come, and floating IPs come and go unheard of by this host."""
    told = {name: value for name, value in on_drive.items() if name != "public-ipv4"}
    addresses = [address.partition("/")[0] for nic in nics.placed(guest) for address in nic.addresses]
    return told | {"local-ipv4": next((address for address in addresses if ":" not in address), "")}


def _devices(on_drive: list[dict[str, object]], guest: Guest) -> list[dict[str, object]]:
    """The devices on the drive without those that were detached, and the NICs that were attached, before the disks.

    A port that was detached and attached again may have another address now, or another tag.
    """
    present: dict[tuple[object, object], Nic] = {
        (nic.mac, pci.nic_address(nic.slot or 0, guest.devices.nic_model)): nic for nic in nics.placed(guest)
    }
    kept: dict[tuple[object, object], dict[str, object]] = {}
    for device in on_drive:
        place = (device.get("mac"), device.get("address"))
        nic = present.get(place)
        if nic is not None and (not nic.tag or device.get("tags") == [nic.tag]):
            kept[place] = device
    attached: list[dict[str, object]] = [
        {"type": "nic", "mac": place[0], "bus": "pci", "address": place[1], "vf_trusted": False}
        | ({"tags": [nic.tag]} if nic.tag else {})
        for place, nic in present.items()
        if place not in kept
    ]
    return [*kept.values(), *attached, *(device for device in on_drive if device["type"] != "nic")]


def files_on_drive(guest: Guest) -> dict[str, bytes]:
    """Content by path. Descriptions of older guests have no `config_drive`: theirs are made from the other fields."""
    if guest.config_drive:
        return {path: file.content for file in guest.config_drive for path in file.paths}
    meta = {"uuid": guest.server_id, "name": guest.name, "hostname": guest.name, "meta": guest.metadata}
    files = {f"{LATEST}meta_data.json": json.dumps(meta, sort_keys=True).encode()}
    if guest.user_data is not None:
        try:
            files[f"{LATEST}user_data"] = base64.b64decode(guest.user_data, validate=True)
        except binascii.Error as wrong:
            raise DriverError("USER_DATA: not base64") from wrong
    return files
