"""On which host a router is: a pure function of the router and of the hosts that can have one.

Nothing is recorded. Each host ranks each router by a hash of both names (rendezvous hashing), and the highest has it: a
host that leaves gives its routers to the others evenly, one that comes gets its share, and no other router moves.
"""

from __future__ import annotations

import functools
import hashlib


@functools.lru_cache(maxsize=4096)
def host_of(router_id: str, hosts: tuple[str, ...]) -> str | None:
    """The host of a router; None where there is no host for one. Remembered: it is asked for each host that is told."""
    return max(hosts, key=lambda host: _rank(router_id, host), default=None)


def _rank(router_id: str, host: str) -> bytes:
    return hashlib.sha256(f"{router_id} {host}".encode()).digest()
