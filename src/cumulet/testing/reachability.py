"""`cloud.network`: whether packets reach a port, decided by the rules that hosts enforce, without a packet."""

from __future__ import annotations

import contextlib
from ipaddress import ip_address
from typing import TYPE_CHECKING

from cumulet.compute.hosts import for_routers
from cumulet.compute.packet_path import Path, path
from cumulet.network.store import Port, get

if TYPE_CHECKING:
    from cumulet.db.engine import Database, Tx


class Network:
    """Of one cloud."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def reachable(self, sender: str, receiver: str, protocol: str, port: int | None = None) -> Path:
        """Whether the first packet of a connection from `sender` arrives at `receiver`: ids of ports, or addresses.

        True or false, with `reason`, the `rule` that let it in, and each of the `hops`. An address as the sender is one
        outside the cloud. KeyError for a port that there is not.
        """
        return self._db.read(lambda tx: path(tx, for_routers(tx), _end(tx, sender), _end(tx, receiver), protocol, port))


def _end(tx: Tx, named: str) -> Port | str:
    with contextlib.suppress(ValueError):
        return str(ip_address(named))
    found = get(tx, Port, named)
    if found is None:
        raise KeyError(named)
    return found
