"""`fleet.host_door.Strangers`: bounds for each address, as at the API."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

from cumulet.web.connections import Connections
from cumulet.web.peer import peer_of
from cumulet.web.sampling import Sampling

CONNECTIONS = 64
"""At once, of all addresses, from before their TLS handshakes; then the oldest one of the address that has most is
dropped."""
CONNECTIONS_OF_ONE = 32
JOINS_PER_MINUTE = 300
"""Attempts of all addresses, right or wrong: a token cannot be guessed, but each attempt costs work."""
JOINS_PER_MINUTE_OF_ONE = 30


class Strangers:
    """The strangers at one door."""

    def __init__(self) -> None:
        self._connections = Connections(most=CONNECTIONS, most_of_one=CONNECTIONS_OF_ONE)
        self._joins = Sampling(of_one=JOINS_PER_MINUTE_OF_ONE, of_all=JOINS_PER_MINUTE, seconds=60.0)

    def admit(self, address: str, drop: Callable[[], object]) -> Callable[[], object]:
        connection = self._connections.admit(peer_of(address), drop)
        assert connection is not None, "all of them may be dropped"
        return functools.partial(self._connections.gone, connection)

    def may_join(self, address: str) -> bool:
        return self._joins.keep(peer_of(address), time.monotonic())
