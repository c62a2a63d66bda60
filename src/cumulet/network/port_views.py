"""Ports as the API shows them, and filters of lists of ports."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from cumulet.db.engine import Tx
from cumulet.db.one_of import one_of
from cumulet.db.part_of_text import has_part
from cumulet.db.parts import in_parts
from cumulet.network import (
    addresses,
    bindings,
    dhcp_options,
    dns,
    filtering,
    refusals,
    resource,
    trunk_details,
    trunk_ports,
)
from cumulet.network.addresses import FixedIp
from cumulet.network.group_records import port_security_groups
from cumulet.network.many import find_many
from cumulet.network.resource import View
from cumulet.network.store import Binding, Network, Port, port_addresses, port_bindings, ports, tags_of

MOST_PARTS = 16
"""Parts of one address that a list of ports is asked for: each makes the statement longer."""


def port_views(tx: Tx, records: Sequence[Port]) -> list[View]:
    """Ports as the API shows them."""
    ids = [port.id for port in records]
    tags, held, bound = tags_of(tx, ids), addresses.held_by(tx, ids), trunk_ports.bindings_of(tx, ids)
    groups: dict[str, list[str]] = {}
    table = port_security_groups.c
    for part in in_parts(ids):
        statement = sa.select(table.port_id, table.security_group_id).where(table.port_id.in_(part))
        for port_id, group_id in map(tuple, tx.all(statement.order_by(table.security_group_id))):
            groups.setdefault(port_id, []).append(group_id)
    options = dhcp_options.of_ports(tx, ids)
    trunks = trunk_details.details(tx, records)
    networks = {network.id: network for network in find_many(tx, Network, "id", {port.network_id for port in records})}
    return [
        _view(port, tags.get(port.id, []), held.get(port.id, []), bound[port.id][0], groups.get(port.id, []))
        | _by_network(port, networks[port.network_id], held.get(port.id, []))
        | {"extra_dhcp_opts": options.get(port.id, [])}
        | ({"trunk_details": trunks[port.id]} if port.id in trunks else {})
        for port in records
    ]


def _view(port: Port, tags: list[str], held: Sequence[FixedIp], binding: Binding, groups: list[str]) -> View:
    vif_type, vif_details = bindings.vif(binding)
    return resource.resource_view(port, tags) | {
        "name": port.name,
        "network_id": port.network_id,
        "admin_state_up": port.admin_state_up,
        "mac_address": port.mac_address,
        "fixed_ips": [{"subnet_id": fixed.subnet_id, "ip_address": fixed.address} for fixed in held],
        "device_id": port.device_id,
        "device_owner": port.device_owner,
        "status": port.status,
        "port_security_enabled": port.port_security_enabled,
        "security_groups": groups,
        "allowed_address_pairs": port.allowed_address_pairs,
        "ip_allocation": "immediate" if held else "none",
        "dns_name": port.dns_name,
        "qos_policy_id": port.qos_policy_id,
        "binding:vnic_type": binding.vnic_type,
        "binding:host_id": binding.host,
        "binding:profile": binding.profile,
        "binding:vif_type": vif_type,
        "binding:vif_details": vif_details,
    }


def _by_network(port: Port, network: Network, held: Sequence[FixedIp]) -> View:
    """What follows from the port's network."""
    return {
        "qos_network_policy_id": network.qos_policy_id,
        "dns_assignment": [dns.assignment(port.dns_name, fixed.address or "", network.dns_domain) for fixed in held],
    }


def has_fixed_ip(values: Sequence[str]) -> sa.ColumnElement[bool]:
    """``fixed_ips=ip_address=10.0.0.3``, ``fixed_ips=subnet_id=...``: matches every key given, by any of its values."""
    wanted: dict[str, list[str]] = {}
    for value in values:
        name, equals, text_ = value.partition("=")
        if not equals or name not in ("ip_address", "subnet_id", "ip_address_substr"):
            raise refusals.invalid(f"'{value}' is not of the form <key>=[value].")
        wanted.setdefault(name, []).append(text_)
    conditions = [port_addresses.c.port_id == ports.c.id]
    if "ip_address" in wanted:
        conditions.append(one_of(port_addresses.c.address, map(filtering.address, wanted["ip_address"])))
    if "subnet_id" in wanted:
        conditions.append(one_of(port_addresses.c.subnet_id, wanted["subnet_id"]))
    if len(parts := sorted(set(wanted.get("ip_address_substr", [])))) > MOST_PARTS:
        raise refusals.invalid(f"ip_address_substr is asked for more than {MOST_PARTS} times.")
    for part in parts:
        conditions.append(has_part(port_addresses.c.address, part))
    return sa.exists().where(*conditions)


def in_groups(values: Sequence[str]) -> sa.ColumnElement[bool]:
    return sa.exists().where(
        port_security_groups.c.port_id == ports.c.id, one_of(port_security_groups.c.security_group_id, values)
    )


def of_active_binding(column: sa.ColumnElement[str], values: Sequence[str]) -> sa.ColumnElement[bool]:
    return sa.exists().where(
        port_bindings.c.port_id == trunk_ports.BOUND_BY, port_bindings.c.active, one_of(column, values)
    )


IP_ALLOCATION = sa.case(
    (sa.exists().where(port_addresses.c.port_id == ports.c.id), sa.literal("immediate")), else_=sa.literal("none")
)
