"""Invariants of Placement after every commit: capacity, rules of server groups, claims that equal the flavors.

They read the tables and have formulas of their own, for the product's functions are what is tested.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from cumulet.host.driver import Guest
from cumulet.testing.simulation.foundation import FAST_HOST

Driver = Any
"""The connection of the SQLite driver."""

_OVER = """
SELECT p.name, i.resource_class, sum(a.used)
FROM inventories i
JOIN resource_providers p ON p.id = i.provider_id
JOIN allocations a ON a.provider_id = i.provider_id AND a.resource_class = i.resource_class
GROUP BY i.provider_id, i.resource_class
HAVING sum(a.used) > (i.total - i.reserved) * i.allocation_ratio
"""
_SERVERS = "SELECT id, host, flavor FROM servers WHERE deleted_at_us IS NULL AND host IS NOT NULL"
_SHARES = """
SELECT coalesce(m.server_id, a.consumer_uuid), a.consumer_uuid, p.name, a.resource_class, a.used
FROM allocations a JOIN resource_providers p ON p.id = a.provider_id LEFT JOIN migrations m ON m.uuid = a.consumer_uuid
"""
_MEMBERS = """
SELECT g.id, g.policy, g.rules, m.server_id FROM server_groups g JOIN server_group_members m ON m.group_id = g.id
JOIN servers s ON s.id = m.server_id
WHERE s.deleted_at_us IS NULL AND g.policy IN ('affinity', 'anti-affinity')
"""


def broken(driver: Driver) -> Iterator[tuple[str, str]]:
    """The kind and the story of each invariant that does not hold."""
    for host, resource, used in driver.execute(_OVER):
        yield "over capacity", f"allocations exceed capacity: {used} {resource} of {host}"
    shares: dict[str, dict[tuple[str, str], dict[str, int]]] = defaultdict(lambda: defaultdict(dict))
    for server_id, consumer, host, resource, used in driver.execute(_SHARES):
        shares[server_id][consumer, host][resource] = used
    owned = {server_id: (host, msgspec.json.decode(flavor)) for server_id, host, flavor in driver.execute(_SERVERS)}
    yield from _wrong_claims(owned, shares)
    places = {server_id: {host for _, host in held} for server_id, held in shares.items()}
    for server_id, (host, _) in owned.items():
        places.setdefault(server_id, set()).add(host)
    yield from _broken_groups(driver, places)
    for server_id, (_, flavor) in owned.items():
        specs, where = flavor["extra_specs"], places[server_id]
        if "hw:cpu_policy" in specs or ("trait:CUSTOM_FAST" in specs and FAST_HOST not in where):
            yield "broken promise", f"{server_id[:8]} of flavor {flavor['name']} is at {sorted(where)}"


_BEGUN = """
SELECT m.uuid, m.server_id, m.source_host FROM migrations m JOIN hosts h ON h.name = m.source_host
JOIN allocations a ON a.consumer_uuid = m.uuid
WHERE m.type != 'evacuation' AND (h.forced_down OR NOT h.up)
"""


def begun_off_dead_hosts(driver: Driver, known: set[str]) -> Iterator[tuple[str, str]]:
    """Moves that claimed a destination in this commit although their source was down. `known`: earlier moves."""
    begun = {uuid for (uuid,) in driver.execute("SELECT consumer_uuid FROM allocations")}
    for uuid, server_id, source in driver.execute(_BEGUN):
        if uuid not in known:
            yield "wrong move", f"a move of {server_id[:8]} has begun off {source}, which is down"
    known |= begun


def counted_twice(driver: Driver, memory_mib: int) -> Iterator[tuple[str, str]]:
    """Hosts of one machine that together offer more memory than it has."""
    offered = driver.execute("SELECT sum(total) FROM inventories WHERE resource_class = 'MEMORY_MB'").fetchone()[0]
    if offered is not None and offered > memory_mib:
        yield "counted twice", f"hosts of a machine of {memory_mib} MiB offer {offered} MiB"


def wrong_guests(driver: Driver, guests: Mapping[str, Mapping[str, Guest]]) -> Iterator[tuple[str, str]]:
    """Guests, by host and server, that differ from their server's flavor, on the host that owns the server."""
    for server_id, host, text in driver.execute(_SERVERS):
        guest = guests[host].get(server_id)
        if guest is None:
            continue  # The guest is not made yet, or lost: other invariants check that.
        flavor = msgspec.json.decode(text)
        has = (guest.vcpus, guest.memory_mib, guest.disk_gib)
        says = (flavor["vcpus"], flavor["memory_mib"], flavor["disk_gib"])
        if has != says:
            yield "wrong claim", f"the guest of {server_id[:8]} on {host} is {has}, its flavor says {says}"


def _wrong_claims(
    owned: Mapping[str, tuple[str, Any]], shares: Mapping[str, Mapping[tuple[str, str], Mapping[str, int]]]
) -> Iterator[tuple[str, str]]:
    """The share of a server equals its flavor, whether the server or its migration holds it."""
    for server_id, (host, flavor) in owned.items():
        says = {
            "VCPU": flavor["vcpus"],
            "MEMORY_MB": flavor["memory_mib"],
            "DISK_GB": flavor["disk_gib"] + flavor["ephemeral_gib"] + (flavor["swap_mib"] + 1023) // 1024,
        }
        held = [share for (_, at), share in shares.get(server_id, {}).items() if at == host]
        if held != [says]:
            yield "wrong claim", f"server {server_id[:8]} claims {held} of {host}, its flavor says {says}"


def _broken_groups(driver: Driver, places: Mapping[str, set[str]]) -> Iterator[tuple[str, str]]:
    members: dict[tuple[str, str, str], list[set[str]]] = defaultdict(list)
    for group_id, policy, rules, server_id in driver.execute(_MEMBERS):
        if places.get(server_id):
            members[group_id, policy, rules].append(places[server_id])
    for (group_id, policy, rules), where in members.items():
        if policy == "affinity" and len(where) > 1 and len(set().union(*where)) > 1:
            yield (
                "broken group",
                f"members of {group_id[:8]}, which belong together, are at {sorted(map(sorted, where))}",
            )
        most = msgspec.json.decode(rules).get("max_server_per_host", 1)
        crowd = Counter(host for hosts in where for host in hosts)
        if policy == "anti-affinity" and max(crowd.values()) > most:
            yield "broken group", f"{dict(sorted(crowd.items()))} members of {group_id[:8]}, which allows {most} a host"
