"""Creating servers: everything a request asks for is checked here, then each server boots on its own."""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec
import sqlalchemy as sa

from cumulet.compute import block_devices, boot, image_devices, image_promises
from cumulet.compute import hosts as host_records
from cumulet.compute.block_devices import Asked
from cumulet.compute.flavors import find_flavor
from cumulet.compute.keypairs import public_key_of
from cumulet.compute.links import links, self_link
from cumulet.compute.model import BASE_IMAGE, Flavor, PowerState, Server, VmState
from cumulet.compute.quotas import how_many_servers, limits_of, require_group_member_room, require_limit
from cumulet.compute.rules import ADMIN, MEMBER
from cumulet.compute.server_creation_body import CreateServer, CreateServers, NetworkEntry
from cumulet.compute.service import COMPUTE
from cumulet.compute.store import hosts, insert_servers, server_group_members, server_groups, server_tags
from cumulet.compute.wiring import require_wiring_hosts
from cumulet.errors import BadRequest, Forbidden, NotYet
from cumulet.image.store import BootImage, boot_image
from cumulet.network import for_compute as network
from cumulet.network.for_compute import NetworkRequest, RequestedNetwork
from cumulet.web.operation import Call, Reply, Rule
from cumulet.web.policy import rule
from cumulet.web.schema import Unset

CREATE = rule("os_compute_api:servers:create", MEMBER)
FORCED_HOST = rule("os_compute_api:servers:create:forced_host", ADMIN)
REQUESTED_DESTINATION = rule("compute:servers:create:requested_destination", ADMIN)
ATTACH_NETWORK = rule("os_compute_api:servers:create:attach_network", MEMBER)
ATTACH_VOLUME = rule("os_compute_api:servers:create:attach_volume", MEMBER)
TRUSTED_CERTS = rule("os_compute_api:servers:create:trusted_certs", MEMBER)
ZERO_DISK = rule("os_compute_api:servers:create:zero_disk_flavor", ADMIN)
EXTERNAL_NETWORK = rule("network:attach_external_network", ADMIN)

GIB = 1024**3
SEED_BYTES = 32
"""Length of a server's secret, from which the random numbers in its metadata are made."""
LONGEST_ID = 36
"""Of an image."""


class Placing(msgspec.Struct, frozen=True, kw_only=True):
    """Where the servers are to be: a zone (None: any), or one host."""

    zone: str | None
    host: str | None


@COMPUTE.operation("POST", "/servers", rules=(Rule(CREATE),), body=CreateServers, success=202)
def create_servers(call: Call[None, CreateServers]) -> Reply:
    """Create one server or several. They are scheduled and booted after the answer."""
    body = call.body.server
    most = body.min_count if isinstance(body.max_count, Unset) else body.max_count
    if body.min_count > most:
        raise BadRequest("min_count must be <= max_count")
    _require_implemented(call)
    disks = _block_devices(call)
    placing = _placing(call)
    image_ref = body.image_ref
    if not image_ref:
        raise BadRequest("Missing imageRef attribute")
    request = _network_request(call)
    flavor = _flavor(call)
    _require_possible(call, most, placing)
    image = boot_image(call.tx, call.caller, image_ref)
    groups = _security_groups(body)
    most = network.validate_request(
        call.tx, caller_project_id=call.caller.project_id or "", is_admin=call.authorise(EXTERNAL_NETWORK, None),
        request=request, min_count=body.min_count, max_count=most, security_groups=groups,
    )  # fmt: skip
    key = public_key_of(call.tx, call.caller.user_id, body.key_name) if body.key_name is not None else None
    require_fit(call, flavor, image)
    image_devices.require_places(image.properties, len(request) if isinstance(request, tuple) else 0)
    block_devices.require_fit(disks, flavor)
    block_devices.require_bus(body.block_device_mapping_v2, image_devices.bus_of(image.properties))
    _require_room_for_metadata(call)
    group_id = _server_group(call)
    host_records.require_known(call.tx, body.host or body.hypervisor_hostname)
    most = how_many_servers(call.tx, call.caller.project_id or "", call.caller.user_id, flavor, body.min_count, most)
    if group_id is not None:
        require_group_member_room(call.tx, call.caller.project_id or "", call.caller.user_id, group_id, most)
    password = body.admin_password if body.admin_password is not None else new_password(call)
    created = _records(call, most, flavor, image, placing, key, password, disks)
    _store(call, created, group_id, request, groups)
    boot.begin_boot(call, created)
    return _answer(call, created[0], password)


def _answer(call: Call[None, CreateServers], first: Server, password: str) -> Reply:
    body = call.body.server
    if body.return_reservation_id:
        return Reply(body={"reservation_id": first.reservation_id})
    groups = body.security_groups
    view = {
        "id": first.id,
        "links": links(call, "servers", first.id),
        "OS-DCF:diskConfig": first.disk_config,
        "security_groups": [{"name": "default"}] if isinstance(groups, Unset) else
        [{} if isinstance(group.name, Unset) else {"name": group.name} for group in groups],
        "adminPass": password,
    }  # fmt: skip
    return Reply(body={"server": view}, headers={"Location": self_link(call, "servers", first.id)["href"]})


# -- what is asked for


def _require_implemented(call: Call[None, CreateServers]) -> None:
    body = call.body.server
    if body.personality:
        raise NotYet("Injecting files (personality) is not implemented; use user_data.")
    if body.trusted_image_certificates:
        call.require(TRUSTED_CERTS)
        raise NotYet("Validating image certificates is not implemented.")


def _block_devices(call: Call[None, CreateServers]) -> list[Asked]:
    body = call.body.server
    if body.block_device_mapping or body.block_device_mapping_v2:
        call.require(ATTACH_VOLUME)
    return block_devices.requested(body.block_device_mapping, body.block_device_mapping_v2, body.image_ref)


def _placing(call: Call[None, CreateServers]) -> Placing:
    """``zone``, ``zone:host``, ``zone:host:node``, ``zone::node``; or (2.74) `host` and `hypervisor_hostname`."""
    body = call.body.server
    zone, host, node = _parsed_zone(body.availability_zone)
    forced = host or node
    if forced is not None:
        call.require(FORCED_HOST)
        if host and node and host != node:
            # A host has one hypervisor here, of the same name.
            raise BadRequest(f"Compute host {host} has no hypervisor {node}.")
        known = call.tx.first(sa.select(hosts.c.zone).where(hosts.c.name == forced))
        zone = zone if known is not None and known.zone == zone else None
    requested = body.host or body.hypervisor_hostname
    if requested is not None:
        call.require(REQUESTED_DESTINATION)
        if forced is not None:
            raise BadRequest(
                "One mechanism with host and/or hypervisor_hostname and another mechanism with zone:host:node "
                "are mutually exclusive."
            )
    if body.host and body.hypervisor_hostname and body.host != body.hypervisor_hostname:
        raise BadRequest(f"Compute host {body.host} could not be found.")
    return Placing(zone=zone, host=forced or requested)


def _parsed_zone(text: str | None) -> tuple[str | None, str | None, str | None]:
    """Zone, host and node, each None where it is not named."""
    parts = (text or "").split(":")
    if len(parts) > 3:
        raise BadRequest("Invalid input received: Unable to parse availability_zone")
    zone, host, node = (part or None for part in (*parts, "", "")[:3])
    return zone, host, node


def _network_request(call: Call[None, CreateServers]) -> NetworkRequest:
    asked = call.body.server.networks
    request: NetworkRequest = asked if isinstance(asked, str) else tuple(_requested(asked or ())) or None
    if request is not None and request != "none":
        call.require(ATTACH_NETWORK)
    if request != "none":
        require_wiring_hosts(call.tx)
    return request


def _requested(entries: Sequence[NetworkEntry]) -> list[RequestedNetwork]:
    found: list[RequestedNetwork] = []
    used: set[str] = set()
    for entry in entries:
        if entry.port:
            if entry.port in used:
                raise BadRequest(
                    f"Port ID '{entry.port}' was specified twice: you cannot attach a port multiple times."
                )
            if entry.fixed_ip is not None:
                raise BadRequest(
                    f"Specified Fixed IP '{entry.fixed_ip}' cannot be used with port '{entry.port}': the two cannot "
                    "be specified together."
                )
            used.add(entry.port)
            found.append(RequestedNetwork(port_id=entry.port, tag=entry.tag))
        elif isinstance(entry.uuid, Unset):
            raise BadRequest("Bad network format: missing 'uuid'")
        else:
            if not _UUID_TEXT.match(entry.uuid):
                raise BadRequest(f"Bad networks format: network uuid is not in proper format ({entry.uuid})")
            found.append(RequestedNetwork(network_id=entry.uuid, fixed_ip=entry.fixed_ip, tag=entry.tag))
    return found


_UUID_TEXT = re.compile(r"[0-9a-fA-F]{8}-?([0-9a-fA-F]{4}-?){3}[0-9a-fA-F]{12}\Z")


def _flavor(call: Call[None, CreateServers]) -> Flavor:
    wanted = call.body.server.flavor_ref.split("/")[-1]
    flavor = find_flavor(call.tx, call.caller, wanted)
    if flavor is None:
        raise BadRequest(f"Flavor {wanted} could not be found.")
    return flavor


def _security_groups(body: CreateServer) -> list[str]:
    if isinstance(body.security_groups, Unset):
        return []
    return list(dict.fromkeys(g.name for g in body.security_groups if not isinstance(g.name, Unset)))


def _hints(call: Call[None, CreateServers]) -> dict[str, object]:
    given = call.body.hints if call.body.hints is not None else call.body.older_hints or {}
    return {key: value for key, value in given.items() if not key.startswith("_nova")}


def _server_group(call: Call[None, CreateServers]) -> str | None:
    """The id of the server group that the hints name, of the caller's own project; None: they name none."""
    hint = _hints(call).get("group")
    wanted = hint[0] if isinstance(hint, list) and hint else hint
    if not wanted:
        return None
    row = call.tx.first(
        sa.select(server_groups.c.id).where(
            server_groups.c.id == wanted, server_groups.c.project_id == call.caller.project_id
        )
    )
    if row is None:
        raise BadRequest(f"Instance group {wanted} could not be found.")
    return str(row.id)


# -- whether it can be had


def _require_possible(call: Call[None, CreateServers], most: int, placing: Placing) -> None:
    if most > 1 and not isinstance(call.body.server.hostname, Unset):
        raise BadRequest("Unable to allocate a single hostname to multiple instances")
    if placing.zone is not None and placing.host is None:
        known = sa.select(hosts.c.id).where(hosts.c.zone == placing.zone, hosts.c.disabled.is_(False))
        if call.tx.first(known) is None:
            raise BadRequest("The requested availability zone is not available")


def require_unencrypted(image: BootImage) -> None:
    if image.properties.get("cinder_encryption_key_id"):
        raise BadRequest(
            f"Image {image.id} is unacceptable: Direct booting of an image uploaded from an encrypted volume is "
            "unsupported."
        )


def require_fit(call: Call[object, object], flavor: Flavor, image: BootImage) -> None:
    require_unencrypted(image)
    if flavor.memory_mib < image.min_ram_mib:
        raise BadRequest("Flavor's memory is too small for requested image.")
    disk = flavor.disk_gib * GIB
    if not disk:
        if not call.authorise(ZERO_DISK, None):
            raise Forbidden("Only volume-backed servers are allowed for flavors with zero disk.")
        return
    if max(image.size_bytes, image.virtual_size_bytes) > disk:
        raise BadRequest(
            f"Flavor's disk is too small for requested image. Flavor disk is {disk} bytes, image is "
            f"{max(image.size_bytes, image.virtual_size_bytes)} bytes."
        )
    if image.min_disk_gib * GIB > disk:
        raise BadRequest(
            f"Flavor's disk is smaller than the minimum size specified in image metadata. Flavor disk is {disk} "
            f"bytes, minimum size is {image.min_disk_gib * GIB} bytes."
        )


def _require_room_for_metadata(call: Call[None, CreateServers]) -> None:
    metadata = call.body.server.metadata
    if not isinstance(metadata, Unset):
        require_limit(
            limits_of(call.tx, call.caller.project_id or ""), "metadata_items", len(metadata),
            words="Maximum number of metadata items exceeds {allowed}",
        )  # fmt: skip


# -- the records


def _records(
    call: Call[None, CreateServers], count: int, flavor: Flavor, image: BootImage, placing: Placing,
    key: tuple[str, str] | None, password: str, disks: Sequence[Asked],
) -> list[Server]:  # fmt: skip
    body, clock = call.body.server, call.cloud.clock
    ids = [clock.uuid() for _ in range(count)]
    names = [f"{body.name}-{n + 1}" if count > 1 else body.name for n in range(count)]
    described = body.name if not call.version.at_least("2.19") else body.description
    reservation_id = "r-" + _letters(call, 8)
    properties = image_promises.stored(image.properties)
    public_key, key_type = key if key is not None else (None, None)
    on_drive = body.config_drive or _drive_required(image)  # A host may give it one, too: `boot.claim_host`.
    return [
        Server(
            id=ids[n], project_id=call.caller.project_id or "", user_id=call.caller.user_id, name=names[n],
            hostname=_hostname(body, ids[n], n, count),
            description=None if isinstance(described, Unset) else described,
            reservation_id=reservation_id, launch_index=n, flavor=flavor, image_id=image.id,
            image_properties=properties, key_name=body.key_name, public_key=public_key,
            key_type=key_type, user_data=body.user_data, config_drive=on_drive,
            metadata={} if isinstance(body.metadata, Unset) else body.metadata,
            system_metadata={**block_devices.kept(disks), **_base_of(image), **image_promises.minimums(image)},
            availability_zone=placing.zone or "", requested_zone=placing.zone, pinned_host=placing.host,
            scheduler_hints=_hints(call), disk_config=body.disk_config, access_ipv4=body.access_ipv4,
            access_ipv6=body.access_ipv6, host=None, launched_on=None, generation=0, guest=None,
            guest_secrets={"admin_password": password, "seed": call.cloud.clock.token_bytes(SEED_BYTES).hex()},
            vm_state=VmState.BUILDING, task_state="scheduling", power_state=PowerState.NOSTATE, progress=0,
            locked=False, locked_by=None, locked_reason=None, fault_code=None, fault_message=None,
            fault_details=None, fault_at_us=None, created_at_us=call.now_us, updated_at_us=call.now_us,
            launched_at_us=None, terminated_at_us=None, deleted_at_us=None, revision=0,
        )
        for n in range(count)
    ]  # fmt: skip


def _base_of(image: BootImage) -> dict[str, str]:
    """Of a snapshot: the image that its server was made from."""
    base = image.properties.get(BASE_IMAGE, "")
    return {BASE_IMAGE: base} if 0 < len(base) <= LONGEST_ID else {}


def _store(
    call: Call[None, CreateServers], created: Sequence[Server], group_id: str | None, request: NetworkRequest,
    security_groups: Sequence[str],
) -> None:  # fmt: skip
    tx = call.tx
    insert_servers(tx, created)
    if tags := dict.fromkeys(call.body.server.tags or ()):
        tx.execute(sa.insert(server_tags), [{"server_id": s.id, "tag": tag} for s in created for tag in tags])
    if group_id is not None:
        tx.execute(sa.insert(server_group_members), [{"group_id": group_id, "server_id": s.id} for s in created])
    external = call.authorise(EXTERNAL_NETWORK, None)
    for server in created:
        network.allocate(
            tx, clock=call.cloud.clock, caller_project_id=server.project_id, is_admin=external, server_id=server.id,
            server_hostname=server.hostname, availability_zone=server.requested_zone or host_records.DEFAULT_ZONE,
            request=request, wire_mtu=call.cloud.settings.global_physnet_mtu, security_groups=security_groups,
        )  # fmt: skip


def _drive_required(image: BootImage) -> bool:
    """Whether the image says, as for Nova, that its guests need a config drive."""
    return image.properties.get("img_config_drive") == "mandatory"


def _hostname(body: CreateServer, server_id: str, index: int, count: int) -> str:
    if not isinstance(body.hostname, Unset):
        return body.hostname
    sanitised = sanitise_hostname(body.name)
    if not sanitised:
        return f"Server-{server_id}"
    return f"{sanitised}-{index + 1}" if count > 1 else sanitised


def sanitise_hostname(name: str) -> str:
    """A host name made of a server's name: at most 63 characters of letters, digits, ``_`` and ``-``."""
    latin = name.encode("latin-1", "ignore").decode("latin-1")[:63]
    return re.sub(r"[^\w.-]+", "", re.sub(r"[ _.]", "-", latin)).lower().strip(".-")


_ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"


def _letters(call: Call[object, object], count: int) -> str:
    return "".join(_ALPHABET[byte % len(_ALPHABET)] for byte in call.cloud.clock.token_bytes(count))


def new_password(call: Call[object, object]) -> str:
    """A random password. The guest finds it on its config drive, and sets it itself."""
    return _letters(call, 16)
