"""Where a server wants to be, relative to others: scheduler hints ``same_host``, ``different_host`` and ``group``.

Other servers count at every place where they may come to be (`compute.places`), so that a rule holds whichever moves
succeed. While a server moves, no place is surely beside it, so affinity with it is refused until it has arrived.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

import msgspec
import sqlalchemy as sa

from cumulet.compute.model import Server
from cumulet.compute.places import places_of
from cumulet.compute.store import server_group_members, server_groups, servers
from cumulet.db.engine import Tx

_GROUP = (
    sa.select(server_groups)
    .join(server_group_members, server_group_members.c.group_id == server_groups.c.id)
    .where(server_group_members.c.server_id == sa.bindparam("of_server"))
)
_OTHERS = (
    sa.select(server_group_members.c.server_id)
    .join(servers, servers.c.id == server_group_members.c.server_id)
    .where(
        server_group_members.c.group_id == sa.bindparam("of_group"),
        server_group_members.c.server_id != sa.bindparam("of_server"),
        servers.c.deleted_at_us.is_(None),
    )
)


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What the hints of a server's request, and its group, demand of hosts."""

    together: frozenset[str] | None = None
    """Hosts it must be on; None: any."""
    apart: frozenset[str] = frozenset()
    """Hosts it must not be on."""
    liked: Mapping[str, int] = msgspec.field(default_factory=dict)
    """By host, what the soft policies make of it: the higher the better."""


def wanted(tx: Tx, server: Server) -> Wanted:
    """If a hint names a server that does not exist, or is of another project, no host is left."""
    beside = _ids(server.scheduler_hints.get("same_host"))
    of_group = _of_group(tx, server)
    together = of_group.together
    if beside:
        sure = _sure(_places(tx, beside, server))
        together = sure if together is None else together & sure
    apart = _places(tx, _ids(server.scheduler_hints.get("different_host")), server)
    return Wanted(together=together, apart=of_group.apart.union(*apart), liked=of_group.liked)


def _of_group(tx: Tx, server: Server) -> Wanted:
    group = tx.first(_GROUP, {"of_server": server.id})
    if group is None:
        return Wanted()
    others = tx.all(_OTHERS, {"of_group": group.id, "of_server": server.id})
    places = list(places_of(tx, [row.server_id for row in others]).values())
    members = Counter(host for hosts in places for host in hosts)
    if group.policy == "affinity":
        return Wanted(together=frozenset.intersection(*map(_surely, places)) if places else None)
    if group.policy == "anti-affinity":
        most = int(group.rules.get("max_server_per_host", 1))
        return Wanted(apart=frozenset(host for host, count in members.items() if count >= most))
    sign = 1 if group.policy == "soft-affinity" else -1
    return Wanted(liked={host: sign * count for host, count in members.items()})


def _surely(hosts: frozenset[str]) -> frozenset[str]:
    """The hosts at which a server that is in these places certainly is, whatever becomes of its move."""
    return hosts if len(hosts) == 1 else frozenset()


def _sure(places: Iterable[frozenset[str]]) -> frozenset[str]:
    return frozenset().union(*map(_surely, places))


def _ids(hint: object) -> list[str]:
    if isinstance(hint, str):
        return [hint]
    return [item for item in hint if isinstance(item, str)] if isinstance(hint, list) else []


def _places(tx: Tx, ids: list[str], server: Server) -> list[frozenset[str]]:
    """The places of those of `ids` that belong to the server's project: others' servers do not count by their ids."""
    if not ids:
        return []
    own = sa.select(servers.c.id).where(
        servers.c.id.in_(ids), servers.c.id != server.id, servers.c.project_id == server.project_id
    )
    return list(places_of(tx, [row.id for row in tx.all(own)]).values())
