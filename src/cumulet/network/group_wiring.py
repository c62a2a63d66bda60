"""Security groups in hosts' wirings, read from the tables: their rules, and the members of those that rules name."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from ipaddress import ip_network

import msgspec
import sqlalchemy as sa

from cumulet.db.engine import Tx
from cumulet.db.parts import OfMany
from cumulet.host import wiring as w
from cumulet.network.group_records import AddressGroup, SecurityGroup, SecurityGroupRule, port_security_groups
from cumulet.network.many import find_many
from cumulet.network.rule_meaning import protocol_number
from cumulet.network.store import port_addresses, ports

_MEMBERS = OfMany(
    sa.select(port_security_groups.c.security_group_id, port_addresses.c.address).join(
        port_addresses, port_addresses.c.port_id == port_security_groups.c.port_id
    ),
    port_security_groups.c.security_group_id,
)
_ALLOWED = OfMany(
    sa.select(port_security_groups.c.security_group_id, ports.c.allowed_address_pairs)
    .join(ports, ports.c.id == port_security_groups.c.port_id)
    .where(sa.cast(ports.c.allowed_address_pairs, sa.Text) != "[]"),
    port_security_groups.c.security_group_id,
)
"""Most ports have none, and reading the JSON of thousands takes long."""


class Groups(msgspec.Struct, frozen=True, kw_only=True):
    """The groups of some ports, and what their rules name. Each host is told those of its own ports."""

    stateful: Mapping[str, bool]
    rules: Mapping[str, tuple[w.Rule, ...]]
    members: Mapping[str, tuple[str, ...]]
    """Of the groups that rules name."""
    listed: Mapping[str, tuple[str, ...]]
    """The addresses of address groups."""

    def of(self, group_ids: Collection[str]) -> tuple[w.Group, ...]:
        """These groups with their rules, and the groups and address groups that the rules name, with their members."""
        named = {rule.remote_group for group_id in group_ids for rule in self.rules.get(group_id, ())}
        found = [
            w.Group(
                id=group_id,
                stateful=stateful,
                rules=self.rules.get(group_id, ()) if group_id in group_ids else (),
                members=self.members.get(group_id, ()) if group_id in named else (),
            )
            for group_id, stateful in self.stateful.items()
            if group_id in group_ids or group_id in named
        ]
        found += [
            w.Group(id=group_id, stateful=True, rules=(), members=addresses)
            for group_id, addresses in self.listed.items()
            if group_id in named
        ]
        return tuple(sorted(found, key=lambda group: group.id))


def groups(tx: Tx, group_ids: Collection[str]) -> Groups:
    rules: dict[str, list[SecurityGroupRule]] = {}
    for rule in find_many(tx, SecurityGroupRule, "security_group_id", group_ids):
        rules.setdefault(rule.security_group_id, []).append(rule)
    all_rules = [rule for of_group in rules.values() for rule in of_group]
    named = {rule.remote_group_id for rule in all_rules if rule.remote_group_id}
    listed = {rule.remote_address_group_id for rule in all_rules if rule.remote_address_group_id}
    return Groups(
        stateful={group.id: group.stateful for group in find_many(tx, SecurityGroup, "id", {*group_ids, *named})},
        rules={
            group_id: tuple(_rule(rule) for rule in sorted(of_group, key=lambda rule: rule.id))
            for group_id, of_group in rules.items()
        },
        members={group_id: tuple(sorted(members)) for group_id, members in _members(tx, named).items()},
        listed={
            group.id: tuple(sorted(map(short, group.addresses))) for group in find_many(tx, AddressGroup, "id", listed)
        },
    )


def _members(tx: Tx, group_ids: Iterable[str]) -> dict[str, set[str]]:
    """The members of each group: its ports' addresses and allowed address pairs."""
    found: dict[str, set[str]] = {}
    wanted = sorted(group_ids)
    for group_id, address in map(tuple, _MEMBERS.rows(tx, wanted)):
        found.setdefault(group_id, set()).add(address)
    for row in _ALLOWED.rows(tx, wanted):
        for pair in row.allowed_address_pairs:
            found.setdefault(row.security_group_id, set()).add(short(pair["ip_address"]))
    return found


def _rule(rule: SecurityGroupRule) -> w.Rule:
    version = 4 if rule.ethertype == "IPv4" else 6
    prefix = None if rule.remote_ip_prefix is None else short(rule.remote_ip_prefix)
    return w.Rule(
        id=rule.id,
        direction=w.Direction(rule.direction),
        version=version,
        protocol=protocol_number(rule.protocol, rule.ethertype),
        range_min=rule.port_range_min,
        range_max=rule.port_range_max,
        remote_prefix=prefix,
        remote_group=rule.remote_group_id or rule.remote_address_group_id,
    )


def short(text: str) -> str:
    """``10.0.0.0/24``; for a prefix of one address that address alone."""
    prefix = ip_network(text, strict=False)
    return str(prefix.network_address if prefix.num_addresses == 1 else prefix)
