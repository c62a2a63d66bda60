"""How servers are shown, at every microversion: bulk loads first, then plain dictionaries; long lists are fast."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Sequence

import msgspec
import sqlalchemy as sa

from cumulet.clock import iso_z
from cumulet.compute import image_devices, image_promises
from cumulet.compute.links import bookmark_root
from cumulet.compute.model import Flavor, PowerState
from cumulet.compute.rules import ADMIN, READER
from cumulet.compute.server_shapes import (
    COLUMNS,
    HOST_COLUMNS,
    Address,
    Fault,
    HostRow,
    ImageOfServer,
    ServerRow,
    ServerView,
    host_row,
    server_row,
)
from cumulet.compute.server_status import host_status, status_of
from cumulet.compute.sight import project_in_sight
from cumulet.compute.store import hosts, require_found, server_group_members, server_groups, server_tags, servers
from cumulet.db.engine import Row, Tx
from cumulet.db.parts import OfMany
from cumulet.network import for_compute as network
from cumulet.network.for_compute import PortView
from cumulet.web.operation import Call
from cumulet.web.policy import rule

EXTENDED = rule("os_compute_api:os-extended-server-attributes", ADMIN)
FLAVOR_EXTRA_SPECS = rule("os_compute_api:servers:show:flavor-extra-specs", READER)
HOST_STATUS = rule("os_compute_api:servers:show:host_status", ADMIN)
HOST_STATUS_UNKNOWN = rule("os_compute_api:servers:show:host_status:unknown-only", ADMIN)

ROOT_DEVICE = "/dev/vda"
SCSI_ROOT_DEVICE = "/dev/sda"
"""Of images that ask for another bus than virtio."""
_WITH_PROGRESS = frozenset({"ACTIVE", "BUILD", "REBUILD", "RESIZE", "VERIFY_RESIZE", "MIGRATING"})
_POWER_NUMBERS = {state.value: state.number for state in PowerState}


@functools.lru_cache(maxsize=4096)
def host_id(project_id: str, host: str | None) -> str:
    """An opaque name of the host, different for every project."""
    return hashlib.sha224((project_id + host).encode()).hexdigest() if host else ""


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """What an answer shows of a server. It depends on the microversion, the operation and what the caller may see."""

    full: bool
    """All attributes; else what PUT answers before 2.75."""
    groups: bool
    """Server groups (2.71): not in lists."""
    extended: bool
    extra_specs: bool
    host_status: bool | None
    """True: any; False: only UNKNOWN; None: none."""


def shown(call: Call[object, object], *, full: bool = True, groups: bool = False) -> Shown:
    """What `call` shows, asking the policy once per answer."""
    at_least = call.version.at_least
    host_status: bool | None = None
    if full and at_least("2.16"):
        if call.authorise(HOST_STATUS, None):
            host_status = True
        elif call.authorise(HOST_STATUS_UNKNOWN, None):
            host_status = False
    return Shown(
        full=full,
        groups=groups and at_least("2.71"),
        extended=full and call.authorise(EXTENDED, None),
        extra_specs=at_least("2.47") and call.authorise(FLAVOR_EXTRA_SPECS, None),
        host_status=host_status,
    )


class Viewer:
    """Renders servers for one answer. All that it needs is loaded when it is made."""

    def __init__(
        self, call: Call[object, object], what: Shown, found: Sequence[Row], only: ServerToShow | None = None
    ) -> None:
        """`found`: rows of `select_for_views`. `only`: the one server to show, which was read already."""
        self.call = call
        self.what = what
        self.rows = [server_row(*row) for row in found] if only is None else [only.row]
        ids = [row.id for row in self.rows]
        at_least = call.version.at_least
        has_tags, has_groups, has_ports = (only.has_tags, only.has_groups, only.has_ports) if only else (True,) * 3
        self.ports: dict[str, list[PortView]] = network.ports_of(call.tx, ids) if has_ports else {}
        self.tags = _tags(call.tx, ids) if has_tags and at_least("2.26") else {}
        self.groups = _groups(call.tx, ids) if has_groups and what.groups else {}
        on_hosts = {row.host for row in self.rows if row.host is not None}
        self.hosts = _hosts(call.tx, on_hosts) if only is None else {only.row.host: only.host}
        self._root = bookmark_root(call)
        self._flavors: dict[str, dict[str, object]] = {}
        self._service_url = call.service_url
        self._steps = [step for since, step in _STEPS if at_least(since)]
        self._with_properties = at_least("2.98")
        self._with_more_extended = at_least("2.3")

    @classmethod
    def of_one(cls, call: Call[object, object], what: Shown, server: ServerToShow) -> ServerView:
        return cls(call, what, (), server).views()[0]

    def views(self) -> list[ServerView]:
        """All of them, in the order found."""
        return [self._view(row) for row in self.call.tx.in_pieces(self.rows)]

    def _view(self, row: ServerRow) -> ServerView:
        deleted = row.deleted_at_us is not None
        status = status_of(row.vm_state, row.task_state, deleted=deleted)
        ports = self.ports.get(row.id, ())
        server_id = row.id
        view: ServerView = {
            "id": server_id,
            "name": row.name,
            "status": status,
            "tenant_id": row.project_id,
            "user_id": row.user_id,
            "metadata": _decoded(row.metadata_text),
            "hostId": host_id(row.project_id, row.host),
            "image": self._image(row),
            "flavor": self._flavor(row.flavor_text),
            "created": _whole_second(row.created_at_us // 1_000_000) + "Z",
            "updated": _whole_second(row.updated_at_us // 1_000_000) + "Z",
            "addresses": {} if row.vm_state == "building" else addresses(ports, extended=self.what.full),
            "accessIPv4": row.access_ipv4 or "",
            "accessIPv6": row.access_ipv6 or "",
            "links": [
                {"rel": "self", "href": f"{self._service_url}/servers/{server_id}"},
                {"rel": "bookmark", "href": f"{self._root}/servers/{server_id}"},
            ],
            "OS-DCF:diskConfig": row.disk_config,
        }
        if status in _WITH_PROGRESS:
            view["progress"] = row.progress
        elif status in ("ERROR", "DELETED", "SHELVED", "SHELVED_OFFLOADED") and row.fault_code is not None:
            view["fault"] = self._fault(row, row.fault_code)
        for step in self._steps:
            step(self, row, view)
        if self.what.full:
            self._add_full(row, view, ports)
        return view

    def _image(self, row: ServerRow) -> ImageOfServer | str:
        if row.image_id is None:
            return ""
        image: ImageOfServer = {
            "id": row.image_id,
            "links": [{"rel": "bookmark", "href": f"{self._root}/images/{row.image_id}"}],
        }
        if self._with_properties:
            image["properties"] = image_promises.shown(_decoded(row.image_properties_text))
        return image

    def _flavor(self, text: str) -> dict[str, object]:
        """Servers of one flavor share one rendering."""
        view = self._flavors.get(text)
        if view is None:
            view = self._flavors[text] = self._render_flavor(msgspec.json.decode(text, type=Flavor))
        return view

    def _render_flavor(self, flavor: Flavor) -> dict[str, object]:
        if not self.call.version.at_least("2.47"):
            href = f"{self._root}/flavors/{flavor.flavor_id}"
            return {"id": flavor.flavor_id, "links": [{"rel": "bookmark", "href": href}]}
        view: dict[str, object] = {
            "vcpus": flavor.vcpus, "ram": flavor.memory_mib, "disk": flavor.disk_gib,
            "ephemeral": flavor.ephemeral_gib, "swap": flavor.swap_mib, "original_name": flavor.name,
        }  # fmt: skip
        if self.what.extra_specs:
            view["extra_specs"] = flavor.extra_specs
        return view

    def _fault(self, row: ServerRow, code: int) -> Fault:
        fault: Fault = {"code": code, "created": iso_z(row.fault_at_us), "message": row.fault_message or ""}
        if row.fault_details and (code != 500 or self.call.caller.is_admin):
            fault["details"] = row.fault_details
        return fault

    def _add_full(self, row: ServerRow, view: ServerView, ports: Sequence[PortView]) -> None:
        host = self.hosts.get(row.host)
        view["OS-EXT-AZ:availability_zone"] = host.zone if host is not None else (row.requested_zone or "")
        view["config_drive"] = "True" if row.config_drive else ""
        view["key_name"] = row.key_name
        view["OS-SRV-USG:launched_at"] = _moment(row.launched_at_us)
        view["OS-SRV-USG:terminated_at"] = _moment(row.terminated_at_us)
        view["OS-EXT-STS:task_state"] = row.task_state
        view["OS-EXT-STS:vm_state"] = row.vm_state
        view["OS-EXT-STS:power_state"] = _POWER_NUMBERS[row.power_state]
        view["os-extended-volumes:volumes_attached"] = []
        if names := dict.fromkeys(name for port in ports for name in port.security_groups):
            view["security_groups"] = [{"name": name} for name in names]
        if self.what.extended:
            self._add_extended(row, view)
        if self.what.host_status is not None:
            status = host_status(host, row)
            if self.what.host_status or status == "UNKNOWN":
                view["host_status"] = status

    def _add_extended(self, row: ServerRow, view: ServerView) -> None:
        view["OS-EXT-SRV-ATTR:host"] = row.host
        view["OS-EXT-SRV-ATTR:instance_name"] = instance_name(row.number)
        view["OS-EXT-SRV-ATTR:hypervisor_hostname"] = row.host
        if self._with_more_extended:
            view["OS-EXT-SRV-ATTR:hostname"] = row.hostname
            view["OS-EXT-SRV-ATTR:kernel_id"] = ""
            view["OS-EXT-SRV-ATTR:ramdisk_id"] = ""
            view["OS-EXT-SRV-ATTR:launch_index"] = row.launch_index
            view["OS-EXT-SRV-ATTR:reservation_id"] = row.reservation_id
            view["OS-EXT-SRV-ATTR:root_device_name"] = _root_device(row.image_properties_text)
            view["OS-EXT-SRV-ATTR:user_data"] = row.user_data


def _root_device(image_properties: str) -> str:
    other = "hw_disk_bus" in image_properties and image_devices.of(_decoded(image_properties)).disk_bus
    return SCSI_ROOT_DEVICE if other else ROOT_DEVICE


# -- what microversions have added


def _locked(_viewer: Viewer, row: ServerRow, view: ServerView) -> None:
    view["locked"] = row.locked


def _description(_viewer: Viewer, row: ServerRow, view: ServerView) -> None:
    view["description"] = row.description


def _show_tags(viewer: Viewer, row: ServerRow, view: ServerView) -> None:
    view["tags"] = viewer.tags.get(row.id, [])


def _certificates(_viewer: Viewer, _row: ServerRow, view: ServerView) -> None:
    view["trusted_image_certificates"] = None


def _show_groups(viewer: Viewer, row: ServerRow, view: ServerView) -> None:
    if viewer.what.groups:
        view["server_groups"] = viewer.groups.get(row.id, [])


def _locked_reason(_viewer: Viewer, row: ServerRow, view: ServerView) -> None:
    view["locked_reason"] = row.locked_reason


def _hostname(_viewer: Viewer, row: ServerRow, view: ServerView) -> None:
    view["OS-EXT-SRV-ATTR:hostname"] = row.hostname


def _pinned_zone(_viewer: Viewer, row: ServerRow, view: ServerView) -> None:
    view["pinned_availability_zone"] = row.requested_zone


def _hints(_viewer: Viewer, row: ServerRow, view: ServerView) -> None:
    hints = _decoded(row.scheduler_hints_text)
    view["scheduler_hints"] = {key: value if isinstance(value, list) else [value] for key, value in hints.items()}


_STEPS: tuple[tuple[str, Callable[[Viewer, ServerRow, ServerView], None]], ...] = (
    ("2.9", _locked),
    ("2.19", _description),
    ("2.26", _show_tags),
    ("2.63", _certificates),
    ("2.71", _show_groups),
    ("2.73", _locked_reason),
    ("2.90", _hostname),
    ("2.96", _pinned_zone),
    ("2.100", _hints),
)


# -- parts other features show too


def addresses(ports: Sequence[PortView], *, extended: bool) -> dict[str, list[Address]]:
    """Addresses by network name. A floating address follows its fixed one."""
    by_network: dict[str, list[Address]] = {}
    for port in ports:
        entries = by_network.setdefault(port.network_name, [])
        for held in port.addresses:
            for address, kind in ((held.address, "fixed"), (held.floating, "floating")):
                if address is None:
                    continue
                entry: Address = {"version": held.version, "addr": address}
                if extended:
                    entry["OS-EXT-IPS:type"] = kind
                    entry["OS-EXT-IPS-MAC:mac_addr"] = port.mac
                entries.append(entry)
    return by_network


def instance_name(number: int) -> str:
    """The hypervisor's name for a server, by Nova's template."""
    return f"instance-{number:08x}"


_ONE = (
    sa.select(
        *COLUMNS,
        sa.exists().where(server_tags.c.server_id == servers.c.id).label("has_tags"),
        sa.exists().where(server_group_members.c.server_id == servers.c.id).label("has_groups"),
        network.any_port_of(servers.c.id).label("has_ports"),
        *(column.label(f"host_{column.name}") for column in HOST_COLUMNS),
    )
    .select_from(servers.outerjoin(hosts, hosts.c.name == servers.c.host))
    .where(servers.c.id == sa.bindparam("of_id"))
)


def view_server(call: Call[object, object], server_id: str, what: Shown) -> ServerView:
    """One server, freshly read."""
    return Viewer.of_one(call, what, ServerToShow(require_found(call.tx.first(_ONE, {"of_id": server_id}), server_id)))


class ServerToShow:
    """A server's row with its host's row, and whether other tables have something about it."""

    __slots__ = ("has_groups", "has_ports", "has_tags", "host", "row")

    def __init__(self, found: Row) -> None:
        columns = tuple(found)
        self.row = server_row(*columns[: len(COLUMNS)])
        self.has_tags, self.has_groups, self.has_ports = columns[len(COLUMNS) : len(COLUMNS) + 3]
        name, *host = columns[len(COLUMNS) + 3 :]
        self.host = host_row(name, *host) if name is not None else None

    @property
    def project_id(self) -> str:
        return self.row.project_id

    @property
    def user_id(self) -> str:
        return self.row.user_id


def server_to_show(call: Call[object, object]) -> ServerToShow:
    """As `sight.server_in_sight`, for showing it: one statement."""
    server_id = call.path["server_id"]
    found = call.tx.first(_ONE, {"of_id": server_id})
    return ServerToShow(require_found(found, server_id, project_id=project_in_sight(call)))


@functools.lru_cache(maxsize=4096)
def _whole_second(second: int) -> str:
    text = iso_z(second * 1_000_000)
    assert text is not None
    return text[:-1]


def _moment(time_us: int | None) -> str | None:
    """As `clock.iso_us`, but quicker for a list: many of its servers were launched in the same second."""
    if time_us is None:
        return None
    return f"{_whole_second(time_us // 1_000_000)}.{time_us % 1_000_000:06}"


def _decoded(text: str) -> dict[str, object]:
    if text == "{}":
        return {}
    value: dict[str, object] = msgspec.json.decode(text)
    return value


_IDS: sa.BindParameter[object] = sa.bindparam("of_ids", expanding=True)
_TAGS = sa.select(server_tags).where(server_tags.c.server_id.in_(_IDS)).order_by(server_tags.c.tag)
_GROUPS = (
    sa.select(server_group_members.c.server_id, server_groups.c.id)
    .join(server_groups, server_groups.c.id == server_group_members.c.group_id)
    .where(server_group_members.c.server_id.in_(_IDS))
)
_HOSTS = OfMany(sa.select(*HOST_COLUMNS), hosts.c.name)


def _tags(tx: Tx, ids: Sequence[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for server_id, tag in map(tuple, tx.all(_TAGS, {"of_ids": ids})):
        found.setdefault(server_id, []).append(tag)
    return found


def _groups(tx: Tx, ids: Sequence[str]) -> dict[str, list[str]]:
    return {server_id: [group_id] for server_id, group_id in map(tuple, tx.all(_GROUPS, {"of_ids": ids}))}


def _hosts(tx: Tx, names: set[str]) -> dict[str | None, HostRow]:
    return {row.name: host_row(*row) for row in _HOSTS.rows(tx, sorted(names))}
