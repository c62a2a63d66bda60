"""`cloud.network`: whether packets reach a port, decided by the rules that hosts enforce, without a packet."""

from __future__ import annotations

import contextlib
from ipaddress import ip_address
from typing import TYPE_CHECKING

from cumulet.compute.hosts import all_hosts
from cumulet.compute.packet_path import PROTOCOLS, Path, path
from cumulet.network.store import Port, get
from cumulet.testing.faults import one_of

if TYPE_CHECKING:
    from cumulet.db.engine import Database, Tx


class Network:
    """The network of one cloud."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def reachable(self, sender: str, receiver: str, protocol: str, port: int | None = None) -> Path:
        """Whether the first packet of a connection from `sender` arrives at `receiver`: ids of ports, or addresses.

        The result is true or false, and has the `reason`, the `rule` that let the packet in, and each of the `hops`. A
        sender given as an address is outside the cloud.

        KeyError for a port that does not exist. TypeError and ValueError for a `protocol` other than tcp, udp or icmp,
        and for a `port` that is not a number from 1 to 65535.
        """
        one_of("protocol", protocol, PROTOCOLS)
        if port is not None:
            if isinstance(port, bool) or not isinstance(port, int):
                raise TypeError(f"port is a whole number, not {port!r}")
            if not 1 <= port <= 65535:
                raise ValueError(f"port is from 1 to 65535, not {port}")
        return self._db.read(
            lambda tx: path(tx, all_hosts(tx).for_routers, _end(tx, sender), _end(tx, receiver), protocol, port)
        )


def _end(tx: Tx, named: str) -> Port | str:
    with contextlib.suppress(ValueError):
        return str(ip_address(named))
    found = get(tx, Port, named) if isinstance(named, str) else None
    if found is None:
        raise KeyError(f"there is no port {named!r}: ports are named by their ids, what is outside by its address")
    return found
