"""What Network is told of hosts."""

from __future__ import annotations

import sqlalchemy as sa

from cumulet.compute import hosts
from cumulet.compute.store import hosts as table
from cumulet.db.engine import Tx
from cumulet.network.hosts import Host, told_by


@told_by
def for_network(tx: Tx) -> list[Host]:
    """All hosts with what they have said they are."""
    kinds = dict(hosts.kinds(tx))
    serving = set(hosts.all_hosts(tx).for_routers)
    return [
        Host(
            name=row.name,
            id=row.service_uuid,
            zone=row.zone,
            up=row.up and not row.forced_down,
            enabled=not row.disabled,
            features=kinds[row.name].features,
            created_at_us=row.created_at_us,
            seen_at_us=row.seen_at_us or row.created_at_us,
            started_at_us=int((row.facts or {}).get("booted_at_us", 0)),
            may_have_routers=row.name in serving,
        )
        for row in tx.all(sa.select(table))
    ]
