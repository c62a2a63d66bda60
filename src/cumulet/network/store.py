"""Network's tables and records, and functions that read and change one record. Features have modules of their own."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import msgspec
import sqlalchemy as sa

from cumulet.clock import Clock
from cumulet.db.engine import Select, Tx, metadata
from cumulet.db.partial_index import unique_where
from cumulet.db.parts import in_parts
from cumulet.network.address_scope_records import AddressScope, address_scopes
from cumulet.network.flavor_records import FLAVOR_TABLES
from cumulet.network.forwarding_records import PortForwarding, port_forwardings
from cumulet.network.group_records import (
    AddressGroup,
    SecurityGroup,
    SecurityGroupRule,
    address_groups,
    security_group_rules,
    security_groups,
)
from cumulet.network.metering_records import MeteringLabel, MeteringRule, metering_label_rules, metering_labels
from cumulet.network.qos_records import QOS_TABLES
from cumulet.network.rbac_records import RbacPolicy, rbac_policies
from cumulet.network.resource_columns import Resource, resource_columns
from cumulet.network.segment_records import SEGMENT_TABLES, Segment, every_segment
from cumulet.network.subnet_pool_records import SubnetPool, subnet_pools
from cumulet.network.trunk_records import TRUNK_TABLES

RecordT = TypeVar("RecordT")
Record = type[Any]

networks = sa.Table(
    "networks",
    metadata,
    *resource_columns(),
    sa.Column("admin_state_up", sa.Boolean, nullable=False),
    # Read by control planes of the version before, which have no RBAC policies (`sharing.tell_older`).
    sa.Column("shared", sa.Boolean, nullable=False, default=False, index=True),
    sa.Column("external", sa.Boolean, nullable=False, index=True),
    sa.Column("is_default", sa.Boolean, nullable=False),
    sa.Column("mtu", sa.Integer, nullable=False),
    sa.Column("port_security_enabled", sa.Boolean, nullable=False),
    sa.Column("network_type", sa.String(32), nullable=False),
    sa.Column("physical_network", sa.String(64)),
    sa.Column("segmentation_id", sa.Integer),
    # Of its first segment, whose kind and number are above. Others are in `network_segments`.
    sa.Column("segment_name", sa.String(255)),
    sa.Column("segment_description", sa.String(255)),
    sa.Column("availability_zone_hints", sa.JSON, nullable=False),
    sa.Column("dns_domain", sa.String(255), nullable=False),
    sa.Column("qos_policy_id", sa.ForeignKey("qos_policies.id"), index=True),
    sa.Index("ix_networks_segment", "network_type", "physical_network", "segmentation_id"),
)

subnets = sa.Table(
    "subnets",
    metadata,
    *resource_columns(),
    sa.Column("network_id", sa.ForeignKey("networks.id"), nullable=False, index=True),
    sa.Column("subnetpool_id", sa.ForeignKey("subnet_pools.id"), index=True),
    sa.Column("ip_version", sa.Integer, nullable=False),
    sa.Column("cidr", sa.String(64), nullable=False),
    sa.Column("gateway_ip", sa.String(64)),
    sa.Column("enable_dhcp", sa.Boolean, nullable=False),
    sa.Column("ipv6_ra_mode", sa.String(16)),
    sa.Column("ipv6_address_mode", sa.String(16)),
    sa.Column("dns_publish_fixed_ip", sa.Boolean, nullable=False),
    sa.Column("allocation_pools", sa.JSON, nullable=False),
    sa.Column("dns_nameservers", sa.JSON, nullable=False),
    sa.Column("host_routes", sa.JSON, nullable=False),
    sa.Column("service_types", sa.JSON, nullable=False),
)

ports = sa.Table(
    "ports",
    metadata,
    *resource_columns(),
    sa.Column("network_id", sa.ForeignKey("networks.id"), nullable=False, index=True),
    sa.Column("admin_state_up", sa.Boolean, nullable=False),
    sa.Column("mac_address", sa.String(17), nullable=False),
    sa.Column("device_id", sa.String(255), nullable=False, index=True),
    sa.Column("device_owner", sa.String(255), nullable=False),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("port_security_enabled", sa.Boolean, nullable=False),
    sa.Column("allowed_address_pairs", sa.JSON, nullable=False),
    sa.Column("dns_name", sa.String(255), nullable=False),
    sa.Column("qos_policy_id", sa.ForeignKey("qos_policies.id"), index=True),
    # The server this port is plugged into. Users write `device_id` as they like; only compute writes this one.
    sa.Column("server_id", sa.String(36), index=True),
    sa.Column("server_order", sa.Integer, nullable=False),
    sa.Column("created_by_compute", sa.Boolean, nullable=False),
    sa.Column("server_tag", sa.String(60)),
    sa.UniqueConstraint("network_id", "mac_address"),
)

port_addresses = sa.Table(
    "port_addresses",
    metadata,
    sa.Column("port_id", sa.ForeignKey("ports.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("address", sa.String(64), primary_key=True),
    sa.Column("network_id", sa.ForeignKey("networks.id"), nullable=False),
    sa.Column("subnet_id", sa.ForeignKey("subnets.id"), nullable=False, index=True),
    # The address and its successor as hex of fixed width: text order is number order, so a gap is found in SQL.
    sa.Column("number", sa.String(32), nullable=False),
    sa.Column("successor", sa.String(32), nullable=False),
    sa.UniqueConstraint("network_id", "address"),
    sa.UniqueConstraint("subnet_id", "number", name="uq_port_addresses_subnet_number"),
    sa.Index("ix_port_addresses_successor", "subnet_id", "successor"),
)
"""A constraint refuses the same address twice in a network, also in a race."""

port_bindings = sa.Table(
    "port_bindings",
    metadata,
    sa.Column("port_id", sa.ForeignKey("ports.id", ondelete="CASCADE"), primary_key=True),
    # Empty: the port is not bound; the row holds what the user asked of a future binding.
    sa.Column("host", sa.String(255), primary_key=True, index=True),
    sa.Column("active", sa.Boolean, nullable=False),
    sa.Column("vnic_type", sa.String(64), nullable=False),
    sa.Column("profile", sa.JSON, nullable=False),
)
unique_where(port_bindings, "ix_port_bindings_active", "port_id", where="active")
"""A partial unique index refuses a second active binding of a port."""

routers = sa.Table(
    "routers",
    metadata,
    *resource_columns(),
    sa.Column("admin_state_up", sa.Boolean, nullable=False),
    sa.Column("gateway_port_id", sa.ForeignKey("ports.id"), index=True),
    sa.Column("enable_snat", sa.Boolean, nullable=False),
    sa.Column("routes", sa.JSON, nullable=False),
    sa.Column("availability_zone_hints", sa.JSON, nullable=False),
    sa.Column("ha", sa.Boolean, nullable=False),
    sa.Column("qos_policy_id", sa.ForeignKey("qos_policies.id"), index=True),
)

floating_ips = sa.Table(
    "floating_ips",
    metadata,
    *resource_columns(but=("name",)),
    sa.Column("floating_network_id", sa.ForeignKey("networks.id"), nullable=False, index=True),
    sa.Column("floating_port_id", sa.ForeignKey("ports.id"), nullable=False, index=True),
    sa.Column("floating_ip_address", sa.String(64), nullable=False, index=True),
    sa.Column("port_id", sa.ForeignKey("ports.id"), index=True),
    sa.Column("fixed_ip_address", sa.String(64)),
    sa.Column("router_id", sa.ForeignKey("routers.id"), index=True),
    sa.Column("dns_name", sa.String(255), nullable=False),
    sa.Column("dns_domain", sa.String(255), nullable=False),
    sa.Column("qos_policy_id", sa.ForeignKey("qos_policies.id"), index=True),
    sa.UniqueConstraint("port_id", "fixed_ip_address", "floating_network_id"),
)

network_tags = sa.Table(
    "network_tags",
    metadata,
    sa.Column("resource_id", sa.String(36), primary_key=True),
    sa.Column("tag", sa.String(255), primary_key=True, index=True),
)


class Network(Resource, frozen=True, kw_only=True):
    name: str
    admin_state_up: bool
    external: bool
    is_default: bool
    mtu: int
    port_security_enabled: bool
    network_type: str
    physical_network: str | None
    segmentation_id: int | None
    availability_zone_hints: list[str]
    dns_domain: str
    qos_policy_id: str | None = None
    segment_name: str | None = None
    segment_description: str | None = None


class Subnet(Resource, frozen=True, kw_only=True):
    name: str
    network_id: str
    subnetpool_id: str | None
    ip_version: int
    cidr: str
    gateway_ip: str | None
    enable_dhcp: bool
    ipv6_ra_mode: str | None
    ipv6_address_mode: str | None
    dns_publish_fixed_ip: bool
    allocation_pools: list[dict[str, str]]
    dns_nameservers: list[str]
    host_routes: list[dict[str, str]]
    service_types: list[str]


class Port(Resource, frozen=True, kw_only=True):
    name: str
    network_id: str
    admin_state_up: bool
    mac_address: str
    device_id: str
    device_owner: str
    status: str
    port_security_enabled: bool
    allowed_address_pairs: list[dict[str, str]]
    dns_name: str
    server_id: str | None
    server_order: int
    created_by_compute: bool
    server_tag: str | None
    qos_policy_id: str | None = None


class Binding(msgspec.Struct, frozen=True, kw_only=True):
    port_id: str
    host: str
    active: bool
    vnic_type: str
    profile: dict[str, object]


class Router(Resource, frozen=True, kw_only=True):
    name: str
    admin_state_up: bool
    gateway_port_id: str | None
    enable_snat: bool
    routes: list[dict[str, str]]
    availability_zone_hints: list[str]
    ha: bool
    """Kept as the user set it, without effect: a router here runs on one host."""
    qos_policy_id: str | None = None
    """Of its gateway."""


class FloatingIp(Resource, frozen=True, kw_only=True):
    floating_network_id: str
    floating_port_id: str
    floating_ip_address: str
    port_id: str | None
    fixed_ip_address: str | None
    router_id: str | None
    dns_name: str
    dns_domain: str
    qos_policy_id: str | None = None


TABLES: dict[Record, sa.Table] = {
    Network: networks,
    SubnetPool: subnet_pools,
    Subnet: subnets,
    Port: ports,
    Binding: port_bindings,
    SecurityGroup: security_groups,
    SecurityGroupRule: security_group_rules,
    AddressGroup: address_groups,
    Router: routers,
    FloatingIp: floating_ips,
    PortForwarding: port_forwardings,
    RbacPolicy: rbac_policies,
    AddressScope: address_scopes,
    MeteringLabel: metering_labels,
    MeteringRule: metering_label_rules,
    **QOS_TABLES,
    **FLAVOR_TABLES,
    **SEGMENT_TABLES,
    **TRUNK_TABLES,
}

SEGMENTS = every_segment(networks)
SOURCES: Mapping[Record, sa.FromClause] = TABLES | {Segment: SEGMENTS}
COLUMNS: Mapping[Record, tuple[str, ...]] = {record: record.__struct_fields__ for record in SOURCES}


def select(record: type[RecordT], *where: sa.ColumnElement[bool]) -> Select:
    """A SELECT of exactly the record's columns."""
    table = SOURCES[record]
    return sa.select(*(table.c[column] for column in COLUMNS[record])).where(*where)


def load(tx: Tx, record: type[RecordT], statement: Select, values: Mapping[str, object] | None = None) -> list[RecordT]:
    """Run a statement made by `select`, with its parameters."""
    return [record(**row._mapping) for row in tx.all(statement, values)]


def find(tx: Tx, record: type[RecordT], *where: sa.ColumnElement[bool]) -> list[RecordT]:
    return load(tx, record, select(record, *where))


@functools.cache
def _by(table: sa.FromClause, columns: tuple[str, ...], names: tuple[str, ...]) -> Select:
    """A SELECT by equality with parameters. Cached: building a statement costs more than running it."""
    wanted = (table.c[name] == sa.bindparam(name) for name in names)
    return sa.select(*(table.c[column] for column in columns)).where(*wanted)


def find_by(tx: Tx, record: type[RecordT], **values: object) -> list[RecordT]:
    """The records whose columns equal these values (which are not None)."""
    rows = tx.all(_by(SOURCES[record], COLUMNS[record], tuple(values)), values)
    return [record(**row._mapping) for row in rows]


def get(tx: Tx, record: type[RecordT], record_id: str | None) -> RecordT | None:
    """The record with this id, whoever asks. The calling code has checked sight."""
    if record_id is None:
        return None
    found = find_by(tx, record, id=record_id)
    return found[0] if found else None


def must_get(tx: Tx, record: type[RecordT], record_id: str) -> RecordT:
    """A record that must exist, because a foreign key refers to it."""
    found = get(tx, record, record_id)
    if found is None:
        raise LookupError(f"{record.__name__} {record_id}")
    return found


def insert(tx: Tx, record: type[RecordT], clock: Clock, **values: Any) -> RecordT:
    """Add a resource with a new id and both times. Returns it."""
    now = clock.now_us()
    row = {"id": clock.uuid(), "description": "", "revision": 0, "created_at_us": now, "updated_at_us": now} | values
    tx.run(inserting(TABLES[record]), row)
    return record(**row)


@functools.cache
def inserting(table: sa.Table) -> sa.Insert:
    """``INSERT INTO table``, to be run with a row or with several."""
    return sa.insert(table)


def change(
    tx: Tx, record: type[RecordT], record_id: str, now_us: int | None, touched: bool = False, /, **values: object
) -> None:
    """Set columns of a resource, and count its revision if one of them changes.

    touched: something that belongs to the resource has changed, so its revision counts in any case.
    now_us: the new `updated_at`; None, for a change that no user asked for, leaves it.
    """
    present = must_get(tx, record, record_id)
    new = {name: value for name, value in values.items() if getattr(present, name) != value}
    if new or touched:
        _set(tx, record, record_id, now_us, new)


def revise(tx: Tx, record: type[RecordT], record_id: str, now_us: int | None) -> None:
    """Count a resource's revision: something that belongs to it has changed, but none of its columns."""
    _set(tx, record, record_id, now_us, {})


def _set(tx: Tx, record: type[RecordT], record_id: str, now_us: int | None, values: dict[str, object]) -> None:
    if now_us is not None:
        values["updated_at_us"] = now_us
    parameters = {"of_id": record_id} | {f"new_{name}": value for name, value in values.items()}
    tx.run(_changing(TABLES[record], tuple(sorted(values))), parameters)


@functools.cache
def _changing(table: sa.Table, names: tuple[str, ...]) -> sa.Update:
    new: dict[str, object] = {name: sa.bindparam(f"new_{name}", type_=table.c[name].type) for name in names}
    return sa.update(table).where(table.c.id == sa.bindparam("of_id")).values(revision=table.c.revision + 1, **new)


def delete(tx: Tx, record: type[RecordT], record_id: str) -> None:
    """Remove a resource, its tags, and the RBAC policies on it."""
    erase(tx, network_tags, resource_id=record_id)
    erase(tx, rbac_policies, object_id=record_id)
    erase(tx, TABLES[record], id=record_id)


@functools.cache
def _erasing(table: sa.Table, names: tuple[str, ...]) -> sa.Delete:
    return sa.delete(table).where(*(table.c[name] == sa.bindparam(name) for name in names))


def erase(tx: Tx, table: sa.Table, **values: object) -> int:
    """Delete the rows whose columns equal these values. Returns their number."""
    return tx.changed(_erasing(table, tuple(values)), values)


_TAGS = (
    sa.select(network_tags.c.resource_id, network_tags.c.tag)
    .where(network_tags.c.resource_id.in_(sa.bindparam("of_ids", expanding=True)))
    .order_by(network_tags.c.tag)
)


def tags_of(tx: Tx, resource_ids: Sequence[str]) -> dict[str, list[str]]:
    """Tags of many resources, sorted, in one query per thousand."""
    found: dict[str, list[str]] = {}
    for part in in_parts(resource_ids):
        for resource_id, tag in map(tuple, tx.all(_TAGS, {"of_ids": list(part)})):
            found.setdefault(resource_id, []).append(tag)
    return found
