"""How ports are made and removed, for the API, for compute and for routers alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import sqlalchemy as sa

from cumulet.clock import Clock
from cumulet.db.engine import Tx
from cumulet.errors import Conflict
from cumulet.network import (
    addresses,
    bindings,
    default_security_group,
    mac_addresses,
    topology,
    trunk_ports,
)
from cumulet.network.addresses import FixedIp
from cumulet.network.device_owners import OF_NETWORK
from cumulet.network.dhcp_options import port_dhcp_options
from cumulet.network.forwarding_records import port_forwardings
from cumulet.network.group_records import port_security_groups
from cumulet.network.many import change_many
from cumulet.network.store import (
    Network,
    Port,
    Subnet,
    change,
    delete,
    erase,
    find_by,
    floating_ips,
    insert,
    inserting,
    port_addresses,
    port_bindings,
)


class NewPort(msgspec.Struct, frozen=True, kw_only=True):
    """A new port. What is None follows from the network."""

    project_id: str
    name: str = ""
    description: str = ""
    admin_state_up: bool = True
    mac_address: str | None = None
    fixed_ips: Sequence[FixedIp] | None = None
    device_id: str = ""
    device_owner: str = ""
    status: str = "DOWN"
    port_security_enabled: bool | None = None
    security_group_ids: Sequence[str] | None = None
    allowed_address_pairs: Sequence[Mapping[str, str]] = ()
    """Those without a `mac_address` get the port's."""
    dns_name: str = ""
    qos_policy_id: str | None = None
    host: str = bindings.UNBOUND
    vnic_type: str = "normal"
    profile: Mapping[str, object] = msgspec.field(default_factory=dict)
    tags: Sequence[str] = ()
    server_id: str | None = None
    server_order: int = 0
    created_by_compute: bool = False
    server_tag: str | None = None


def with_mac(pair: Mapping[str, str], mac: str) -> dict[str, str]:
    """An address pair, with the port's MAC address where it has none."""
    return {"ip_address": pair["ip_address"], "mac_address": pair.get("mac_address", mac)}


def make(tx: Tx, clock: Clock, network: Network, new: NewPort, subnets: Sequence[Subnet] | None = None) -> Port:
    """Add a port with its addresses, groups and binding. The caller has checked what it refers to, and checks with
    `wiring_bounds.check_new` once all are made.

    `subnets`: all of the network's, if they are known already (`addresses.subnets_of`).
    """
    own_device = new.device_owner.startswith(OF_NETWORK)
    secured = new.port_security_enabled
    if secured is None:
        secured = network.port_security_enabled and not own_device
    mac = new.mac_address
    if mac is None:
        mac = mac_addresses.new_mac(tx, clock, network.id)
    elif mac_addresses.mac_in_use(tx, network.id, mac):
        raise Conflict(
            f"Unable to complete operation for network {network.id}. The mac address {mac} is in use.",
            reason="MacAddressInUse",
        )
    port = insert(
        tx,
        Port,
        clock,
        project_id=new.project_id,
        name=new.name,
        description=new.description,
        network_id=network.id,
        admin_state_up=new.admin_state_up,
        mac_address=mac,
        device_id=new.device_id,
        device_owner=new.device_owner,
        status=new.status,
        port_security_enabled=secured,
        allowed_address_pairs=[with_mac(pair, mac) for pair in new.allowed_address_pairs],
        dns_name=new.dns_name,
        qos_policy_id=new.qos_policy_id,
        server_id=new.server_id,
        server_order=new.server_order,
        created_by_compute=new.created_by_compute,
        server_tag=new.server_tag,
    )
    row = {
        "port_id": port.id,
        "host": new.host,
        "active": True,
        "vnic_type": new.vnic_type,
        "profile": dict(new.profile),
    }
    tx.run(inserting(port_bindings), row)
    addresses.claim(
        tx,
        port_id=port.id,
        network_id=network.id,
        mac=mac,
        device_owner=new.device_owner,
        wanted=new.fixed_ips,
        subnets=subnets,
    )
    groups = new.security_group_ids
    if groups is None:
        groups = [default_security_group.ensure(tx, clock, new.project_id).id] if secured else []
    _add_to_groups(tx, port.id, groups)
    topology.set_tags(tx, port.id, new.tags)
    return port


def join_groups(tx: Tx, port_id: str, group_ids: Sequence[str]) -> None:
    """Make the port a member of exactly these security groups."""
    erase(tx, port_security_groups, port_id=port_id)
    _add_to_groups(tx, port_id, group_ids)


def _add_to_groups(tx: Tx, port_id: str, group_ids: Sequence[str]) -> None:
    rows = [{"port_id": port_id, "security_group_id": group_id} for group_id in dict.fromkeys(group_ids)]
    if rows:
        tx.execute(inserting(port_security_groups), rows)


def release(tx: Tx, port: Port) -> None:
    """Take a port from its server: a port that compute made is removed, a user's is unplugged.

    A trunk's parent is the user's, whoever made it.
    """
    in_trunk = trunk_ports.trunk_of_parent(tx, port.id) is not None
    if port.created_by_compute and not in_trunk:
        end(tx, port.id)
        return
    unplug(tx, port.id)
    if in_trunk:
        change(tx, Port, port.id, None, created_by_compute=False)
        _leave_subports(tx, [port.id])


def unbind_server(tx: Tx, server_id: str) -> None:
    """Unbind the ports of a server that has no host any more: no guest is plugged into them."""
    bindings.bind(tx, bindings.Which.SERVER, server_id, bindings.UNBOUND)
    port_ids = [port.id for port in find_by(tx, Port, server_id=server_id)]
    change_many(tx, Port, port_ids, status="DOWN")
    _leave_subports(tx, port_ids)


def _leave_subports(tx: Tx, port_ids: Sequence[str]) -> None:
    """No guest carries the subports of these ports any more."""
    change_many(tx, Port, trunk_ports.subports_of(tx, port_ids), status="DOWN")


def unplug(tx: Tx, port_id: str) -> None:
    """Take a port from its device, with the device's name, and unbind it.

    It keeps its addresses, and the type and profile of its binding.
    """
    erase(tx, port_bindings, port_id=port_id, active=False)
    bindings.bind(tx, bindings.Which.PORT, port_id, bindings.UNBOUND)
    change(
        tx,
        Port,
        port_id,
        None,
        device_id="",
        device_owner="",
        status="DOWN",
        server_id=None,
        server_order=0,
        server_tag=None,
        dns_name="",
    )


_LET_GO = (
    sa.update(floating_ips)
    .where(floating_ips.c.port_id == sa.bindparam("of_port_id"))
    .values(port_id=None, fixed_ip_address=None, router_id=None, revision=floating_ips.c.revision + 1)
)


def stop_forwarding(tx: Tx, which: sa.ColumnElement[bool]) -> None:
    """Remove these port forwardings. A floating IP without any left is taken from its router."""
    statement = sa.select(port_forwardings.c.floating_ip_id).where(which)
    floating = {row[0] for row in tx.all(statement)}
    if not floating:
        return
    tx.execute(sa.delete(port_forwardings).where(which))
    left = sa.select(port_forwardings.c.floating_ip_id)
    emptied = sa.and_(floating_ips.c.id.in_(sorted(floating)), floating_ips.c.id.not_in(left))
    tx.execute(sa.update(floating_ips).where(emptied).values(router_id=None, revision=floating_ips.c.revision + 1))


def end(tx: Tx, port_id: str) -> None:
    """Remove a port with its addresses, bindings, memberships and forwardings. Floating IPs lead to it no longer."""
    tx.run(_LET_GO, {"of_port_id": port_id})
    stop_forwarding(tx, port_forwardings.c.internal_port_id == port_id)
    for table in (port_addresses, port_bindings, port_dhcp_options, port_security_groups):
        erase(tx, table, port_id=port_id)
    delete(tx, Port, port_id)
