"""How much the ports of one project may put into the wiring of a host, which is one message and has a bound.

A port stands there with its addresses and address pairs, and they stand there again for each of its security groups
that a rule names. A port with few of them is never refused: the quota of ports bounds those. A port with more is
counted together with all ports of its project. What was there before there was this bound stays, and may shrink.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import sqlalchemy as sa

from cumulet.db.engine import Tx
from cumulet.db.parts import OfMany
from cumulet.errors import OverQuota
from cumulet.network import limits
from cumulet.network.group_records import address_groups, port_security_groups, security_groups
from cumulet.network.store import port_addresses, ports

ADDRESSES_OF_A_PORT = 12
"""Addresses and address pairs, times security groups: for each port of a project's quota. With the default quota, and
with the bounds of DHCP options (`dhcp_options`) and of address groups, one project fills at most three quarters."""

_ADDRESSES = sa.select(sa.func.count()).where(port_addresses.c.port_id == ports.c.id).correlate(ports).scalar_subquery()
_GROUPS = (
    sa.select(sa.func.count()).where(port_security_groups.c.port_id == ports.c.id).correlate(ports).scalar_subquery()
)
_WEIGHT = (_ADDRESSES + sa.func.json_array_length(ports.c.allowed_address_pairs)) * sa.case(
    (_GROUPS < 1, 1), else_=_GROUPS
)
"""How often the wirings of hosts name an address of a port."""
_OF_PORT = sa.select(ports.c.project_id, _WEIGHT).where(ports.c.id == sa.bindparam("of"))
_OF_PORTS = OfMany(sa.select(ports.c.id, ports.c.project_id, _WEIGHT.label("weight")), ports.c.id)
_OF_PROJECT = sa.select(sa.func.sum(_WEIGHT)).where(ports.c.project_id == sa.bindparam("of"))
_HEAVIEST = (
    sa.select(ports.c.id)
    .where(ports.c.network_id == sa.bindparam("of"), ports.c.project_id == sa.bindparam("by"))
    .order_by(_WEIGHT.desc(), ports.c.id)
    .limit(1)
)
_OWNERS = [
    OfMany(sa.select(table.c.id, table.c.project_id), table.c.id) for table in (ports, security_groups, address_groups)
]


def of_port(tx: Tx, port_id: str) -> int:
    """The weight of a port that is there."""
    return int(tx.all(_OF_PORT, {"of": port_id})[0][1])


def check(tx: Tx, port_id: str, *, before: int = 0) -> None:
    """409 if this port weighs more than `before` and its project's ports too much."""
    project_id, weighs = tx.all(_OF_PORT, {"of": port_id})[0]
    if weighs <= max(before, ADDRESSES_OF_A_PORT):
        return
    quota = limits.limits_of(tx, project_id)["port"]
    most = ADDRESSES_OF_A_PORT * quota
    if quota >= 0 and tx.scalar(_OF_PROJECT, {"of": project_id}) > most:
        raise OverQuota(
            f"The ports of a project have at most {most} fixed_ips and allowed_address_pairs together, each counted "
            f"for each of its port's security_groups: {ADDRESSES_OF_A_PORT} for each port of the quota.",
            reason="QUOTA",
        )


def check_new(tx: Tx, port_ids: Sequence[str]) -> None:
    """The same for all ports that one request has made: those of a project are counted once."""
    heaviest: dict[str, tuple[int, str]] = {}
    for port_id, project_id, weighs in map(tuple, _OF_PORTS.rows(tx, port_ids)):
        heaviest[project_id] = max(heaviest.get(project_id, (0, "")), (weighs, port_id))
    for weighs, port_id in heaviest.values():
        if weighs > ADDRESSES_OF_A_PORT:
            check(tx, port_id)


def check_network(tx: Tx, network_id: str, project_id: str) -> None:
    """The same for the ports that a project has on a network of its own, after they have got addresses."""
    heaviest = tx.first(_HEAVIEST, {"of": network_id, "by": project_id})
    if heaviest is not None:
        check(tx, heaviest.id)


def largest_project(tx: Tx, sizes: Mapping[str, int]) -> tuple[str, int] | None:
    """Whose ports and groups are most of a wiring, and how many bytes they are; None where there are none.

    `sizes`: of each port and each group, in bytes, by id.
    """
    of_project: dict[str, int] = {}
    for owners in _OWNERS:
        for of, project_id in map(tuple, owners.rows(tx, sorted(sizes))):
            of_project[project_id] = of_project.get(project_id, 0) + sizes[of]
    return max(of_project.items(), key=lambda item: (item[1], item[0]), default=None)
