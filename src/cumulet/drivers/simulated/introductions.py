"""How the two ends of a simulated move know each other: numbers in place of certificates, by the same rules."""

from __future__ import annotations

from collections.abc import Iterator

from cumulet.drivers.simulated.copy import Copy
from cumulet.drivers.simulated.guest import ADDRESS, SimulatedGuest
from cumulet.host.driver import DriverError
from cumulet.host.endpoint import Endpoint, Peer


class Introductions:
    """Those of one host. What it has offered is lost with the process, as with an agent of a real host."""

    def __init__(self, host: str, words: Iterator[int]) -> None:
        self._host = host
        self._words = words
        self._offered: dict[str, Peer] = {}
        """By server id; until its copy begins."""

    def endpoint(self, move: str) -> Endpoint:
        """This host as the destination of a move. Each call answers another port."""
        return Endpoint(address=ADDRESS, port=next(self._words), nbd_port=None, peer=self._new(move))

    def _new(self, move: str) -> Peer:
        return Peer(host=self._host, move=move, authority=str(next(self._words)))

    def offer(self, server_id: str, move: str, copy: Copy | None) -> Peer:
        """What identifies this host as the source of `move`. `copy`: the guest's newest."""
        if copy is not None and copy.outcome is None and copy.source.move == move:
            return copy.source
        offered = self._offered.get(server_id)
        if offered is None or offered.move != move:
            offered = self._offered[server_id] = self._new(move)
        return offered

    def use(self, server_id: str, move: str, arrived: SimulatedGuest | None) -> Peer:
        """The offer of `move`, used up as its copy begins. `arrived`: the guest that waits at the destination."""
        offered = self._offered.get(server_id)
        if offered is None or offered.move != move:
            raise DriverError(f"{self._host} was not told of this move of guest {server_id}, or was restarted since")
        if arrived is not None and arrived.incoming_peer != offered:
            raise DriverError(f"the destination of guest {server_id} does not know {self._host} by this certificate")
        return self._offered.pop(server_id)
