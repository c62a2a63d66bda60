"""The host of a router: a pure function of the router and of the hosts that can have one.

Nothing is recorded. A hash of both names ranks the hosts for each router, and the highest has it (rendezvous hashing).
The routers of a host that leaves spread evenly over the others, a host that comes gets its share, and no other router
moves.
"""

from __future__ import annotations

import functools
import hashlib


@functools.lru_cache(maxsize=4096)
def host_of(router_id: str, hosts: tuple[str, ...]) -> str | None:
    """The host of a router; None without hosts. Cached: it is computed for each wiring."""
    return max(hosts, key=lambda host: _rank(router_id, host), default=None)


def _rank(router_id: str, host: str) -> bytes:
    return hashlib.sha256(f"{router_id} {host}".encode()).digest()
