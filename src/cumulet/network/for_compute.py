"""What compute asks of Network, in compute's own transactions: ports for servers, how they are shown, their removal.

Refusals have Nova's statuses and words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from typing import Any, Literal

import msgspec
import sqlalchemy as sa
from msgspec.structs import asdict, replace

from cumulet.clock import Clock
from cumulet.db.engine import Select, Tx
from cumulet.db.parts import in_parts
from cumulet.errors import ApiError, BadRequest, Conflict, Forbidden, OverQuota
from cumulet.network import addresses, dns, groups_for_compute, limits, port_life, sharing, trunk_ports, wiring_bounds
from cumulet.network.addresses import FixedIp
from cumulet.network.auto_topology import ensure_topology
from cumulet.network.device_owners import OF_COMPUTE
from cumulet.network.group_records import port_security_groups, security_groups
from cumulet.network.refusals import Refused
from cumulet.network.sharing import Shareable
from cumulet.network.sight import networks_for
from cumulet.network.store import (
    Network,
    Port,
    Subnet,
    change,
    find,
    find_by,
    floating_ips,
    networks,
    port_addresses,
    port_bindings,
    ports,
    subnets,
)


class RequestedNetwork(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of a server's `networks`: a network to make a port on, or a port that exists."""

    network_id: str | None = None
    port_id: str | None = None
    fixed_ip: str | None = None
    tag: str | None = None


NetworkRequest = Literal["auto", "none"] | tuple[RequestedNetwork, ...] | None
"""None: the field was absent, as may be before 2.37. The server then gets a port on the project's one network."""


class PortAddress(msgspec.Struct, frozen=True, kw_only=True):
    """An address of a port. `cidr` is its subnet's; `floating` the floating IP that leads to it."""

    address: str
    subnet_id: str
    cidr: str
    version: int
    floating: str | None

    @property
    def with_prefix(self) -> str:
        """``10.0.0.5/24``: as hosts want it."""
        return f"{self.address}/{self.cidr.rpartition('/')[2]}"


class PortView(msgspec.Struct, frozen=True, kw_only=True):
    """A port as compute shows and plugs it."""

    id: str
    network_id: str
    network_name: str
    mac: str
    mtu: int
    status: str
    addresses: tuple[PortAddress, ...]
    security_groups: tuple[str, ...]
    """Names."""
    created_by_compute: bool
    tag: str | None


# -- asking


def validate_request(
    tx: Tx,
    *,
    caller_project_id: str,
    is_admin: bool,
    request: NetworkRequest,
    min_count: int,
    max_count: int,
    security_groups: Sequence[str] = (),
) -> int:
    """Check a request for `min_count` to `max_count` servers. Returns how many of them the port quota allows.

    Changes nothing. Raises what `allocate` would raise for the first server, and 403 if fewer than `min_count` fit.
    """
    groups_for_compute.ids_of(tx, caller_project_id, security_groups)
    if request == "none":
        return max_count
    if isinstance(request, tuple):
        if max_count > 1:
            _refuse_what_only_one_can_have(request)
        for wanted in request:
            if wanted.port_id is not None:
                _usable_port(tx, caller_project_id, is_admin, wanted.port_id)
            else:
                _named_network(tx, caller_project_id, is_admin, wanted)
        needed = sum(wanted.port_id is None for wanted in request)
    else:
        found = _available(tx, caller_project_id, is_admin, automatic=request == "auto")
        # Like Nova: without a network there will be no port, but "auto" makes both.
        needed = 1 if found is not None or request == "auto" else 0
    left = limits.remaining(tx, caller_project_id, "port")
    fitting = max_count if left is None or not needed else min(max_count, left // needed)
    if fitting < min_count:
        raise OverQuota("Maximum number of ports exceeded", reason="PORT_QUOTA")
    return fitting


def _refuse_what_only_one_can_have(request: tuple[RequestedNetwork, ...]) -> None:
    if any(wanted.port_id for wanted in request):
        raise BadRequest(
            "Failed to launch instances: Unable to launch multiple instances with a single configured port ID. "
            "Please launch your instance one by one with different ports."
        )
    if any(wanted.fixed_ip for wanted in request):
        raise BadRequest("Failed to launch instances: max_count cannot be greater than 1 if an fixed_ip is specified.")


def _available(tx: Tx, project_id: str, is_admin: bool, *, automatic: bool) -> Network | None:
    """The network for a server that names none; None if there is none. 409 if there are several."""
    own = sa.and_(networks.c.project_id == project_id, networks.c.admin_state_up if automatic else sa.true())
    shared = sharing.with_project(Shareable.NETWORK, project_id)
    found = find(tx, Network, sa.or_(sa.and_(own, networks.c.id.not_in(shared)), networks.c.id.in_(shared)))
    if len(found) > 1:
        message = "Multiple possible networks found, use a Network ID to be more specific."
        raise Conflict(message, reason=Refused.SEVERAL_NETWORKS)
    if not found:
        return None
    _refuse_external(tx, found[0], project_id, is_admin)
    return found[0]


def _refuse_external(tx: Tx, network: Network, project_id: str, is_admin: bool) -> None:
    if network.external and not is_admin and not sharing.among(tx, Shareable.NETWORK, [network.id], project_id):
        raise Forbidden(f"It is not allowed to create an interface on external network {network.id}")


def _named_network(tx: Tx, project_id: str, is_admin: bool, wanted: RequestedNetwork) -> Network:
    in_sight = sa.true() if is_admin else networks_for(project_id)
    found = find(tx, Network, networks.c.id == wanted.network_id, in_sight)
    if not found:
        raise BadRequest(f"Network {wanted.network_id} could not be found.", reason=Refused.NO_SUCH_NETWORK)
    network = found[0]
    if not find_by(tx, Subnet, network_id=network.id):
        raise BadRequest(f"Network {network.id} requires a subnet in order to boot instances on.")
    _refuse_external(tx, network, project_id, is_admin)
    if wanted.fixed_ip is not None:
        address = str(ip_address(wanted.fixed_ip))
        addresses.subnet_holding(addresses.usable_subnets(tx, network.id, OF_COMPUTE), network.id, address, None)
        if addresses.is_held(tx, network.id, address):
            raise BadRequest(f"Fixed IP address {address} is already in use.", reason=Refused.ADDRESS_IN_USE)
    return network


def _usable_port(tx: Tx, project_id: str, is_admin: bool, port_id: str) -> Port:
    """A port that the server can have. Another project's is not found, even on a network of the caller's."""
    found = find_by(tx, Port, id=port_id, project_id=project_id)
    if not found:
        raise BadRequest(f"Port id {port_id} could not be found.", reason=Refused.NO_SUCH_PORT)
    port = found[0]
    if port.device_id or port.server_id or trunk_ports.is_subport(tx, port.id):
        raise Conflict(f"Port {port_id} is still in use.")
    if not addresses.of_port(tx, port_id):
        raise BadRequest(f"Port {port_id} requires a FixedIP in order to be used.")
    return port


# -- making


def allocate(
    tx: Tx,
    *,
    clock: Clock,
    caller_project_id: str,
    is_admin: bool,
    server_id: str,
    server_hostname: str,
    availability_zone: str,
    request: NetworkRequest,
    wire_mtu: int,
    security_groups: Sequence[str] = (),
) -> list[PortView]:
    """Give a server its ports in the wanted order: make them, or plug existing ones. All get its name."""
    if request == "none":
        return []
    if isinstance(request, tuple):
        wanted_ports: Sequence[RequestedNetwork] = request
    else:
        network = _available(tx, caller_project_id, is_admin, automatic=request == "auto")
        if network is None and request == "auto":
            network = ensure_topology(tx, clock, caller_project_id, wire_mtu)
        wanted_ports = [] if network is None else [RequestedNetwork(network_id=network.id)]
    groups = groups_for_compute.ids_of(tx, caller_project_id, security_groups)
    last = max((port.server_order for port in find_by(tx, Port, server_id=server_id)), default=-1)
    for order, wanted in enumerate(wanted_ports, start=last + 1):
        plug = _Plug(
            device_id=server_id,
            device_owner=OF_COMPUTE + availability_zone,
            server_id=server_id,
            server_order=order,
            server_tag=wanted.tag,
            dns_name=dns.of_server(server_hostname),
        )
        if wanted.port_id is not None:
            port = _usable_port(tx, caller_project_id, is_admin, wanted.port_id)
            dns.refuse_another(port, server_id, server_hostname)
            change(tx, Port, port.id, clock.now_us(), **asdict(plug))
        else:
            network = _named_network(tx, caller_project_id, is_admin, wanted) if isinstance(request, tuple) else network
            assert network is not None
            _make(tx, clock, network, caller_project_id, plug, wanted, groups)
    return ports_of(tx, [server_id]).get(server_id, [])


class _Plug(msgspec.Struct, frozen=True, kw_only=True):
    """What a port says of the server that has it."""

    device_id: str
    device_owner: str
    server_id: str
    server_order: int
    server_tag: str | None
    dns_name: str


def _make(
    tx: Tx,
    clock: Clock,
    network: Network,
    project_id: str,
    plug: _Plug,
    wanted: RequestedNetwork,
    groups: list[str] | None,
) -> None:
    left = limits.remaining(tx, project_id, "port")
    if left == 0:
        raise OverQuota("Maximum number of ports exceeded", reason="PORT_QUOTA")
    if groups and not network.port_security_enabled:
        raise BadRequest(
            "Network requires port_security_enabled and subnet associated in order to apply security groups."
        )
    new = port_life.NewPort(
        project_id=project_id,
        fixed_ips=None if wanted.fixed_ip is None else [FixedIp(address=wanted.fixed_ip)],
        security_group_ids=groups if network.port_security_enabled else [],
        created_by_compute=True,
        **asdict(plug),
    )
    try:
        made = port_life.make(tx, clock, network, new)
    except Conflict as error:
        raise _as_nova_says(error, network, wanted) from error
    wiring_bounds.check_new(tx, [made.id])


def _as_nova_says(error: Conflict, network: Network, wanted: RequestedNetwork) -> ApiError:
    if wanted.fixed_ip is not None:
        taken = f"Fixed IP address {wanted.fixed_ip} is already in use."
        return BadRequest(taken, private=error.public, reason=Refused.ADDRESS_IN_USE)
    message = f"No fixed IP addresses available for network: {network.id}"
    return BadRequest(message, private=error.public, reason="NO_FIXED_IPS")


# -- showing


def _ports_statement() -> Select:
    """A row for each address of each port, and one for a port without address, in the order of each server's ports."""
    held, port = port_addresses.c, ports.c
    leads_here = sa.and_(floating_ips.c.port_id == held.port_id, floating_ips.c.fixed_ip_address == held.address)
    return (
        sa.select(
            port.server_id, port.id, port.network_id, networks.c.name, port.mac_address, networks.c.mtu, port.status,
            port.created_by_compute, port.server_tag, held.address, held.subnet_id, subnets.c.cidr,
            subnets.c.ip_version, floating_ips.c.floating_ip_address,
        )
        .join(networks, networks.c.id == port.network_id)
        .outerjoin(port_addresses, held.port_id == port.id)
        .outerjoin(subnets, subnets.c.id == held.subnet_id)
        .outerjoin(floating_ips, leads_here)
        .where(port.server_id.in_(sa.bindparam("server_ids", expanding=True)))
        .order_by(port.server_order, port.created_at_us, port.id, held.number)
    )  # fmt: skip


_PORTS = _ports_statement()
_GROUPS = (
    sa.select(port_security_groups.c.port_id, security_groups.c.name)
    .join(ports, ports.c.id == port_security_groups.c.port_id)
    .join(security_groups, security_groups.c.id == port_security_groups.c.security_group_id)
    .where(ports.c.server_id.in_(sa.bindparam("server_ids", expanding=True)))
    .order_by(security_groups.c.name)
)


_ANY = sa.select(ports.c.id).where(ports.c.server_id == sa.bindparam("of_server_id")).limit(1)


def any_port_of(server_id: sa.ColumnElement[object]) -> sa.Exists:
    """Whether a server has ports, for compute's own statements."""
    return sa.exists().where(ports.c.server_id == server_id)


def has_ports(tx: Tx, server_id: str) -> bool:
    return tx.first(_ANY, {"of_server_id": server_id}) is not None


_VNIC_TYPES = (
    sa.select(port_bindings.c.vnic_type)
    .join(ports, ports.c.id == port_bindings.c.port_id)
    .where(ports.c.server_id == sa.bindparam("of_server_id"))
    .distinct()
)


def vnic_types(tx: Tx, server_id: str) -> frozenset[str]:
    """Which kinds of NIC the server's ports ask for. Hosts offer `normal` ones. Empty: it has no port."""
    return frozenset(str(row[0]) for row in tx.all(_VNIC_TYPES, {"of_server_id": server_id}))


def ports_of(tx: Tx, server_ids: Sequence[str]) -> dict[str, list[PortView]]:
    """The ports of many servers, each server's in its own order. Servers without ports are not in the answer."""
    found: dict[str, list[PortView]] = {}
    for part in in_parts(server_ids):
        parameters = {"server_ids": list(part)}
        rows = tx.all(_PORTS, parameters)
        if not rows:
            continue
        groups: dict[str, tuple[str, ...]] = {}
        for port_id, name in map(tuple, tx.all(_GROUPS, parameters)):
            groups[port_id] = (*groups.get(port_id, ()), name)
        for server_id, *columns in map(tuple, rows):
            views = found.setdefault(str(server_id), [])
            _add_row(views, columns, groups)
    return found


def _add_row(views: list[PortView], columns: list[Any], groups: Mapping[str, tuple[str, ...]]) -> None:
    port_id, network_id, label, mac, mtu, status, by_compute, tag, address, subnet_id, cidr, version, floating = columns
    held: tuple[PortAddress, ...] = ()
    if address is not None:
        held = (PortAddress(address=address, subnet_id=subnet_id, cidr=cidr, version=version, floating=floating),)
    if views and views[-1].id == port_id:
        views[-1] = replace(views[-1], addresses=(*views[-1].addresses, *held))
        return
    views.append(
        PortView(
            id=port_id,
            network_id=network_id,
            network_name=label,
            mac=mac,
            mtu=mtu,
            status=status,
            addresses=held,
            security_groups=groups.get(port_id, ()),
            created_by_compute=by_compute,
            tag=tag,
        )
    )


# -- ending


def release(tx: Tx, server_id: str) -> None:
    """Take all ports from a server that is gone, or will never run. Repeating does nothing."""
    for port in find_by(tx, Port, server_id=server_id):
        port_life.release(tx, port)
