"""Ports in hosts' wirings, read from the tables with all that is theirs."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable, Mapping, Sequence

import msgspec
import sqlalchemy as sa

from cumulet.db.engine import Tx
from cumulet.db.parts import OfMany
from cumulet.host import wiring as w
from cumulet.network import dhcp_options, qos, router_wiring, trunk_ports
from cumulet.network.dhcp_option_codes import NotAnOption, encoded
from cumulet.network.group_records import port_security_groups
from cumulet.network.group_wiring import short
from cumulet.network.store import ports
from cumulet.network.trunk_ports import Carrier

KEPT = 65_536
"""Ports that are made of the same rows as before are the same: so many are kept. With ten thousand, making them again,
and comparing them, would be most of what a change of a rule costs."""
_NO_PAIRS = "[]"


class Plain(msgspec.Struct, frozen=True, gc=False):
    """A port's own row: what hosts are told of it."""

    id: str
    network_id: str
    mac: str
    up: bool
    secured: bool
    pairs: str
    """As JSON."""
    hostname: str
    qos_policy_id: str | None


COLUMNS = (
    ports.c.id,
    ports.c.network_id,
    ports.c.mac_address,
    ports.c.admin_state_up,
    ports.c.port_security_enabled,
    sa.cast(ports.c.allowed_address_pairs, sa.Text).label("pairs"),
    ports.c.dns_name,
    ports.c.qos_policy_id,
)
"""Those of a `Plain`."""
_GROUPS_OF_PORTS = OfMany(
    sa.select(port_security_groups.c.port_id, port_security_groups.c.security_group_id), port_security_groups.c.port_id
)


class Plugged(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A port, as on the host where its binding is the active one, and the ids of its groups."""

    port: w.Port
    groups: Sequence[str]


def plugged(tx: Tx, plain: Iterable[Plain], held: Mapping[str, Sequence[str]]) -> dict[str, Plugged]:
    """By id, in the order of the ids. `held`: the addresses of each port, as `addresses.texts_of`."""
    rows = sorted(plain, key=lambda row: row.id)
    ids = [row.id for row in rows]
    groups_of: dict[str, list[str]] = {}
    for port_id, group_id in map(tuple, _GROUPS_OF_PORTS.rows(tx, ids)):
        groups_of.setdefault(port_id, []).append(group_id)
    options = _dhcp_options(tx, ids)
    policies = _policies(tx, rows)
    carriers = trunk_ports.carriers(tx, ids)
    limits, marks = qos.limits(tx, set(policies.values())), qos.marks(tx, set(policies.values()))
    found = {}
    for row in rows:
        groups, policy = sorted(groups_of.get(row.id, ())), policies.get(row.id)
        port = _port(
            row,
            tuple(held.get(row.id, ())),
            tuple(groups) if row.secured else (),
            options.get(row.id, ()),
            router_wiring.limit(limits, policy, w.Direction.OUT),
            router_wiring.limit(limits, policy, w.Direction.IN),
            marks.get(policy or ""),
            _carried(carriers.get(row.id)),
        )
        found[row.id] = Plugged(port=port, groups=groups)
    return found


@functools.lru_cache(maxsize=KEPT)
def _port(
    row: Plain,
    held: tuple[str, ...],
    groups: tuple[str, ...],
    options: tuple[w.DhcpOption, ...],
    egress_limit: w.Limit | None,
    ingress_limit: w.Limit | None,
    mark: int | None,
    carrier: w.Carried | None,
) -> w.Port:
    return w.Port(
        id=row.id,
        network_id=row.network_id,
        mac=row.mac,
        addresses=held,
        up=row.up,
        active=True,
        secured=row.secured,
        pairs=() if row.pairs == _NO_PAIRS else _pairs(row),
        groups=groups,
        hostname=row.hostname,
        dhcp_options=options,
        egress_limit=egress_limit,
        ingress_limit=ingress_limit,
        dscp_mark=mark,
        carried=carrier,
    )


def _pairs(row: Plain) -> tuple[w.Pair, ...]:
    pairs = msgspec.json.decode(row.pairs, type=list[dict[str, str]])
    return tuple(
        w.Pair(mac=(pair.get("mac_address") or row.mac).lower(), prefix=short(pair["ip_address"])) for pair in pairs
    )


def _carried(carrier: Carrier | None) -> w.Carried | None:
    return None if carrier is None else w.Carried(parent=carrier.parent_id, tag=carrier.segmentation_id)


def _policies(tx: Tx, plugged: Sequence[Plain]) -> dict[str, str]:
    """The QoS policy in force for each port that has one: its own, else its network's."""
    of_networks = qos.of_networks(tx, plugged)
    found = {port.id: port.qos_policy_id or of_networks.get(port.network_id) for port in plugged}
    return {port_id: policy_id for port_id, policy_id in found.items() if policy_id is not None}


def _dhcp_options(tx: Tx, port_ids: Sequence[str]) -> dict[str, tuple[w.DhcpOption, ...]]:
    found: dict[str, list[w.DhcpOption]] = {}
    for port_id, options in dhcp_options.of_ports(tx, port_ids).items():
        for option in options:
            # A name that was accepted before names were checked may be no option.
            with contextlib.suppress(NotAnOption):
                code, content = encoded(option["opt_name"], option["opt_value"], option["ip_version"])
                found.setdefault(port_id, []).append(
                    w.DhcpOption(version=option["ip_version"], code=code, content=content.hex())
                )
    return {port_id: tuple(options) for port_id, options in found.items()}
