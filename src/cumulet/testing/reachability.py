"""`cloud.network`: whether packets reach a port, decided by the rules that hosts enforce, without a packet."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cumulet.compute.hosts import addresses
from cumulet.compute.packet_path import Path, path

if TYPE_CHECKING:
    from cumulet.db.engine import Database


class Network:
    """Of one cloud."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def reachable(self, sender: str, receiver: str, protocol: str, port: int | None = None) -> Path:
        """Whether the first packet of a connection from the port `sender` arrives at the port `receiver` (their ids).

        True or false, with `reason`, the `rule` that let it in, and each of the `hops`. Between ports of one network.
        """
        return self._db.read(lambda tx: path(tx, addresses(tx), sender, receiver, protocol, port))
