"""Where servers are, or may come to be: every rule about places of servers counts these.

A server is at the host that owns it, and wherever it or one of its migrations holds a share in placement: a
destination that is claimed, a source that may have it back (also of a resize that can be reverted). Asked in the
transaction that claims, so that of two moves at once the second sees what the first has taken.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import sqlalchemy as sa

from cumulet.compute.store import migrations, servers
from cumulet.db.engine import Tx
from cumulet.db.parts import in_parts
from cumulet.placement.store import allocations, resource_providers

_IDS: sa.BindParameter[list[str]] = sa.bindparam("of_ids", expanding=True)
_NAMES: sa.BindParameter[list[str]] = sa.bindparam("of_names", expanding=True)
_LIVING = servers.c.deleted_at_us.is_(None)
_OWNED = sa.select(servers.c.id, servers.c.host).where(_LIVING, servers.c.host.is_not(None))
_PROVIDED = resource_providers.c.id == allocations.c.provider_id
_CLAIMED = (
    sa.select(servers.c.id, resource_providers.c.name.label("host"))
    .join(allocations, allocations.c.consumer_uuid == servers.c.id)
    .join(resource_providers, _PROVIDED)
    .where(_LIVING)
)
_HELD_FOR_IT = (
    sa.select(servers.c.id, resource_providers.c.name.label("host"))
    .join(migrations, migrations.c.server_id == servers.c.id)
    .join(allocations, allocations.c.consumer_uuid == migrations.c.uuid)
    .join(resource_providers, _PROVIDED)
    .where(_LIVING)
)
_OF_SERVERS = tuple(one.where(servers.c.id.in_(_IDS)) for one in (_OWNED, _CLAIMED, _HELD_FOR_IT))
_ON_HOSTS = (
    _OWNED.where(servers.c.host.in_(_NAMES)).limit(1),
    _CLAIMED.where(resource_providers.c.name.in_(_NAMES)).limit(1),
    _HELD_FOR_IT.where(resource_providers.c.name.in_(_NAMES)).limit(1),
)


def places_of(tx: Tx, server_ids: Collection[str]) -> Mapping[str, frozenset[str]]:
    """By server id, its hosts. A server without hosts, such as a deleted one, is left out."""
    found: dict[str, set[str]] = {}
    for part in in_parts(list(server_ids)):
        for statement in _OF_SERVERS:
            for row in tx.all(statement, {"of_ids": list(part)}):
                found.setdefault(row.id, set()).add(row.host)
    return {server_id: frozenset(hosts) for server_id, hosts in found.items()}


def any_on(tx: Tx, hosts: Collection[str]) -> bool:
    """Whether a server is, or may come to be, on one of these hosts."""
    return any(tx.first(statement, {"of_names": list(hosts)}) is not None for statement in _ON_HOSTS)
