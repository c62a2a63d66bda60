"""A guest's metadata, file by file, as Nova has it. A pure function of the records.

`facts_of` reads the records, `files` makes the documents of every version from them. The config drive of a guest is
these files (`drive`), frozen with its description, so that a move makes the same drive again. The metadata service on
its host answers with the same files, without `admin_pass`, which Nova gives on the drive only. The drive stays what it
is when ports come and go. The service follows them in `devices` of the latest `meta_data.json` and in
`network_data.json`, which the host does. Of what else changes the host is told `live` (`compute.telling`).
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator, Mapping

import msgspec
import sqlalchemy as sa

from cumulet.compute import block_devices
from cumulet.compute.model import Server
from cumulet.compute.store import hosts, servers
from cumulet.db.engine import Tx
from cumulet.host import pci
from cumulet.host.devices import Devices
from cumulet.host.driver import DriveFile, Guest, Nic
from cumulet.host.telling import EC2, META_DATA, PASSWORD
from cumulet.network.for_compute import PortView, ports_of
from cumulet.network.server_network_data import network_data
from cumulet.settings import Settings

FOLSOM, GRIZZLY, HAVANA, LIBERTY, NEWTON_ONE, NEWTON_TWO, OCATA, ROCKY, VICTORIA, EPOXY = OPENSTACK_VERSIONS = (
    "2012-08-10",
    "2013-04-04",
    "2013-10-17",
    "2015-10-15",
    "2016-06-30",
    "2016-10-06",
    "2017-02-22",
    "2018-08-27",
    "2020-10-14",
    "2025-04-04",
)
LATEST = "latest"
EC2_VERSIONS = ("2009-04-04", LATEST)
"""Those that Nova puts on a config drive; it skips the older ones by default."""
SEED_BYTES = 512
"""Of `random_seed`, from which a guest fills its entropy pool."""


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What the records say of a server and its guest may know."""

    server: Server
    number: int
    zone: str
    ports: tuple[PortView, ...]
    slots: Mapping[str, int | None]
    """By id of each port that the guest has a NIC for: `Nic.slot`."""
    devices: Devices
    network: dict[str, object]
    domain: str
    """Appended to the host name; empty for none."""


def facts_of(
    tx: Tx, settings: Settings, server: Server, nics: Iterable[Nic], devices: Devices, *, host: str | None
) -> Facts:
    """As the records are now. `nics`, `devices`: those of the guest's description; `host`: which it is made for."""
    zone = tx.scalar(sa.select(hosts.c.zone).where(hosts.c.name == host)) if host is not None else None
    return Facts(
        server=server,
        number=tx.scalar(sa.select(servers.c.number).where(servers.c.id == server.id)),
        zone=zone or server.requested_zone or "",
        ports=tuple(ports_of(tx, [server.id]).get(server.id, [])),
        devices=devices,
        slots={nic.port_id: nic.slot for nic in nics},
        network=network_data(tx, server.id),
        domain=settings.dhcp_domain,
    )


def drive(facts: Facts) -> tuple[DriveFile, ...]:
    """The files of the config drive; those of several versions that are alike are one file at several paths."""
    paths: dict[bytes, list[str]] = {}
    for path, content in files(facts, admin_password=True):
        paths.setdefault(content, []).append(path)
    return tuple(DriveFile(paths=tuple(names), content=content) for content, names in paths.items())


def files(facts: Facts, *, admin_password: bool) -> Iterator[tuple[str, bytes]]:
    """``openstack/<version>/...`` and ``ec2/<version>/...``, each with its content."""
    user_data = _user_data(facts.server)
    for version in EC2_VERSIONS:
        if user_data is not None:
            yield f"ec2/{version}/user-data", user_data
        yield f"ec2/{version}/meta-data.json", _json(_ec2(facts))
    for version in (*OPENSTACK_VERSIONS, LATEST):
        folder = f"openstack/{version}"
        yield f"{folder}/meta_data.json", _json(meta_data(facts, version, admin_password=admin_password))
        if user_data is not None:
            yield f"{folder}/user_data", user_data
        if _from(HAVANA, version):
            yield f"{folder}/vendor_data.json", _json({})
        if _from(LIBERTY, version):
            yield f"{folder}/network_data.json", _json(facts.network)
        if _from(NEWTON_TWO, version):
            yield f"{folder}/vendor_data2.json", _json({"static": {}})


def live(facts: Facts, password: str) -> dict[str, bytes]:
    """What the metadata service is told when the records have changed since the description was frozen."""
    return {
        META_DATA: _json(meta_data(facts, LATEST, admin_password=False)),
        EC2: _json(_ec2(facts)),
        PASSWORD: password.encode(),
    }


def meta_data(facts: Facts, version: str, *, admin_password: bool) -> dict[str, object]:
    """`meta_data.json` of a version."""
    server = facts.server
    told: dict[str, object] = {"uuid": server.id}
    if server.metadata:
        told["meta"] = server.metadata
    secrets = server.guest_secrets or {}  # A server of an earlier Cumulet has none.
    if admin_password and "admin_password" in secrets:
        told["admin_pass"] = secrets["admin_password"]
    if server.key_name is not None:
        told["public_keys"] = {server.key_name: server.public_key}
        told["keys"] = [{"name": server.key_name, "type": server.key_type or "ssh", "data": server.public_key}]
    told["hostname"] = _hostname(facts)
    told["name"] = server.name
    told["launch_index"] = server.launch_index
    told["availability_zone"] = facts.zone
    if _from(GRIZZLY, version) and "seed" in secrets:
        told["random_seed"] = _random_seed(secrets["seed"])
    if _from(LIBERTY, version):
        told["project_id"] = server.project_id
    if _from(NEWTON_ONE, version):
        told["devices"] = _devices(facts, version)
    if _from(VICTORIA, version):
        told["dedicated_cpus"] = []
    return told


def _devices(facts: Facts, version: str) -> list[dict[str, object]]:
    """Ports, those without a tag only where there is more to say of them, and disks that have a tag."""
    told: list[dict[str, object]] = []
    for port in facts.ports:
        slot = facts.slots.get(port.id)
        if slot is None:  # The port is on record only.
            continue
        address = pci.nic_address(slot, facts.devices.nic_model)
        view: dict[str, object] = {"type": "nic", "mac": port.mac, "bus": "pci", "address": address}
        if _from(ROCKY, version):
            view["vf_trusted"] = False
        if port.tag:
            view["tags"] = [port.tag]
        if port.tag or _from(ROCKY, version):
            told.append(view)
    for place, tag in block_devices.tagged(facts.server):
        disk: dict[str, object] = {"type": "disk", "bus": pci.disk_bus(facts.devices)}
        disk["address"] = pci.disk_address(place, facts.devices)
        disk["serial"] = pci.disk_serial(place)
        disk["path"] = pci.disk_name(place, facts.devices, config_drive=facts.server.config_drive)
        told.append({**disk, "tags": [tag]})
    return told


def tagged_addresses(guest: Guest, mac: str) -> set[str]:
    """The addresses at which the drive of a guest tells a tag of a port with this MAC address."""
    latest = f"openstack/{LATEST}/meta_data.json"
    content = next((file.content for file in guest.config_drive if latest in file.paths), b"{}")
    devices = msgspec.json.decode(content, type=_Told).devices
    return {device.address for device in devices if device.mac == mac and device.tags}


class _ToldDevice(msgspec.Struct, frozen=True):
    mac: str = ""
    address: str = ""
    tags: tuple[str, ...] = ()


class _Told(msgspec.Struct, frozen=True):
    """What `tagged_addresses` needs of a `meta_data.json`."""

    devices: tuple[_ToldDevice, ...] = ()


def _block_devices(server: Server, devices: Devices) -> dict[str, str]:
    """As EC2 names them: the programs that prepare a guest mount ephemeral disks and swap by these names."""
    root = pci.disk_name(0, devices, config_drive=server.config_drive)
    told = {"ami": root.removeprefix("/dev/"), "root": root}
    for disk in block_devices.of(server):
        told[disk.label or disk.content] = pci.disk_name(disk.place, devices, config_drive=server.config_drive)
    return told


def _ec2(facts: Facts) -> dict[str, object]:
    """`meta-data.json`, as EC2 names things. Its ids are Nova's: a number, in hexadecimal."""
    server = facts.server
    addresses = [address for port in facts.ports for address in port.addresses if address.version == 4]
    hostname = _hostname(facts)
    told: dict[str, object] = {
        "ami-id": f"ami-{(server.image_id or '')[:8]}",
        "ami-launch-index": server.launch_index,
        "ami-manifest-path": "FIXME",  # Nova answers this very word: nova/api/metadata/base.py, get_ec2_metadata
        "instance-id": f"i-{facts.number:08x}",
        "hostname": hostname,
        "local-hostname": hostname,
        "public-hostname": hostname,
        "local-ipv4": next((address.address for address in addresses), ""),
        "public-ipv4": next((address.floating for address in addresses if address.floating), ""),
        "reservation-id": server.reservation_id,
        "security-groups": sorted({name for port in facts.ports for name in port.security_groups}),
        "instance-type": server.flavor.name,
        "block-device-mapping": _block_devices(server, facts.devices),
        "placement": {"availability-zone": facts.zone},
        "instance-action": "none",
    }
    if server.key_name is not None:
        told["public-keys"] = {"0": {"_name": f"0={server.key_name}", "openssh-key": server.public_key}}
    return told


def _hostname(facts: Facts) -> str:
    return f"{facts.server.hostname}.{facts.domain}" if facts.domain else facts.server.hostname


def _random_seed(seed: str) -> str:
    """From the server's own secret: the same again wherever its drive is made again."""
    return base64.b64encode(hashlib.shake_256(f"random_seed {seed}".encode()).digest(SEED_BYTES)).decode()


def _user_data(server: Server) -> bytes | None:
    """Base64, which may be broken into lines, as many programs write it."""
    return None if server.user_data is None else base64.b64decode(server.user_data)


def _from(since: str, version: str) -> bool:
    """Versions are dates; ``latest`` is later than any."""
    return since <= version


def _json(content: object) -> bytes:
    return msgspec.json.encode(content, order="sorted")
