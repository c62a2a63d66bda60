"""Gives back shares in placement and bindings of ports that no server and no operation holds any more.

Sagas leave nothing behind; this is for a mistake in them, or a change by hand in the database. It looks only at what
Compute knows: consumers that are servers or migrations, and ports of servers. Servers with a running operation are
left to it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from enum import StrEnum
from functools import partial

import msgspec
import sqlalchemy as sa

from cumulet.clock import Clock
from cumulet.compute.per_server import PerServer
from cumulet.compute.resized import resized_servers
from cumulet.compute.store import migrations, servers
from cumulet.conductor import findings
from cumulet.conductor.saga import operations
from cumulet.db.engine import Database, Tx
from cumulet.network import bindings_for_compute as bindings
from cumulet.network import for_compute as network
from cumulet.placement import allocations as placement
from cumulet.placement.store import allocations, resource_providers
from cumulet.settings import Settings

log = logging.getLogger(__name__)


class Finding(StrEnum):
    """What was found."""

    SHARE_OF_NOBODY = "share-of-nobody"
    SHARE_ELSEWHERE = "share-elsewhere"
    BINDING_ELSEWHERE = "binding-elsewhere"
    PORT_OF_NOBODY = "port-of-nobody"


class Leftover(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was left over at `host` and was given back in the same transaction."""

    finding: Finding
    server_id: str
    host: str


_AT_WORK = sa.exists().where(operations.c.subject == servers.c.id, operations.c.ended_at_us.is_(None))
_SERVER = servers.c.id.label("server_id")
_OWN, _HOME = allocations.alias("own"), resource_providers.alias("home")
_HELD = sa.select(_SERVER, allocations.c.consumer_uuid, resource_providers.c.name.label("provider")).join(
    resource_providers, resource_providers.c.id == allocations.c.provider_id
)
# The only share of a server is never given back: it says that there is a guest somewhere.
_ITS_OWN = sa.exists().where(
    _OWN.c.consumer_uuid == servers.c.id, _OWN.c.provider_id == _HOME.c.id, _HOME.c.name == servers.c.host
)
_OF_SERVERS = (
    _HELD.join(servers, servers.c.id == allocations.c.consumer_uuid)
    .add_columns(servers.c.host, servers.c.deleted_at_us)
    .where(
        ~_AT_WORK,
        sa.or_(
            servers.c.deleted_at_us.is_not(None),
            servers.c.host.is_(None),
            sa.and_(servers.c.host != resource_providers.c.name, _ITS_OWN),
        ),
    )
    .distinct()
)
_OF_MIGRATIONS = (
    _HELD.join(migrations, migrations.c.uuid == allocations.c.consumer_uuid)
    .join(servers, servers.c.id == migrations.c.server_id)
    .where(~_AT_WORK, ~sa.exists().where(resized_servers.c.migration_uuid == migrations.c.uuid))
    .distinct()
)
_NEVER_RAN = sa.and_(servers.c.host.is_(None), servers.c.launched_at_us.is_(None))
"""Of a server at which nobody works: its boot has failed."""
_PORTS_OF_NOBODY = sa.select(_SERVER).where(
    ~_AT_WORK, sa.or_(servers.c.deleted_at_us.is_not(None), _NEVER_RAN), network.any_port_of(servers.c.id)
)
_BOUND_ELSEWHERE = sa.select(_SERVER, servers.c.host).where(
    ~_AT_WORK,
    servers.c.deleted_at_us.is_(None),
    servers.c.host.is_not(None),
    bindings.bound_elsewhere(servers.c.id, servers.c.host),
)
_ALL = (_OF_SERVERS, _OF_MIGRATIONS, _PORTS_OF_NOBODY, _BOUND_ELSEWHERE)
_SHARES_OF, _MIGRATIONS_SHARES_OF, _PORTS_OF, _BOUND_ELSEWHERE_OF = (
    found.where(servers.c.id == sa.bindparam("of_server")) for found in _ALL
)


def holders(tx: Tx) -> list[str]:
    """The servers of which something is left over. It looks at the records of all servers."""
    return sorted({row.server_id for found in _ALL for row in tx.all(found, {})})


def give_back(tx: Tx, server_id: str, now_us: int) -> list[Leftover]:
    """Give back what is left over of a server, and return it."""
    return [*_shares(tx, server_id, now_us), *_ports(tx, server_id)]


def _shares(tx: Tx, server_id: str, now_us: int) -> Iterator[Leftover]:
    for row in tx.all(_SHARES_OF, {"of_server": server_id}):
        nobody = row.deleted_at_us is not None or row.host is None
        placement.release(tx, consumer=row.consumer_uuid, provider=row.provider, now_us=now_us)
        finding = Finding.SHARE_OF_NOBODY if nobody else Finding.SHARE_ELSEWHERE
        yield Leftover(finding=finding, server_id=server_id, host=row.provider)
    for row in tx.all(_MIGRATIONS_SHARES_OF, {"of_server": server_id}):
        placement.release(tx, consumer=row.consumer_uuid, provider=row.provider, now_us=now_us)
        yield Leftover(finding=Finding.SHARE_OF_NOBODY, server_id=server_id, host=row.provider)


def _ports(tx: Tx, server_id: str) -> Iterator[Leftover]:
    if tx.first(_PORTS_OF, {"of_server": server_id}) is not None:
        network.release(tx, server_id)
        yield Leftover(finding=Finding.PORT_OF_NOBODY, server_id=server_id, host="")
    if (row := tx.first(_BOUND_ELSEWHERE_OF, {"of_server": server_id})) is not None:
        bound = bindings.hosts_of(tx, server_id).values()
        others = {host for port in bound for host in (port.active, *port.inactive)} - {row.host}
        bindings.activate(tx, server_id, row.host)
        yield Leftover(finding=Finding.BINDING_ELSEWHERE, server_id=server_id, host=", ".join(sorted(others)))


class Leftovers(PerServer):
    """Gives back on a timer what is left over in the records."""

    def __init__(self, *, db: Database, clock: Clock, settings: Settings) -> None:
        super().__init__(db=db, name="leftovers", clock=clock, seconds=settings.host_silent_seconds * 3)

    def find(self, tx: Tx) -> Sequence[str]:
        return holders(tx)

    def see_to(self, tx: Tx, server_id: str) -> None:
        now_us = self._clock.now_us()
        for one in give_back(tx, server_id, now_us):
            findings.note(
                tx, "leftovers", one.finding.value, "given back", now_us=now_us, host=one.host[:255], subject=server_id
            )
            tx.after_commit(partial(_tell, one))


def _tell(one: Leftover) -> None:
    log.warning("%s of server %s at %s: given back", one.finding, one.server_id, one.host)
