"""Who may be on the bus, as the records say. With PostgreSQL each process looks every second."""

from __future__ import annotations

from cumulet.compute import joined_hosts as records
from cumulet.db.engine import Tx
from cumulet.fleet.nats_server import BusUser


class BusUsers:
    """They are read again only once they have changed: there may be 10,000."""

    def __init__(self) -> None:
        self._mark: tuple[int, int] | None = None
        self._users: frozenset[BusUser] = frozenset()

    def read(self, tx: Tx) -> frozenset[BusUser]:
        """All members, in a transaction for reading."""
        if (mark := records.mark_of_members(tx)) != self._mark:
            self._users = frozenset(map(bus_user, records.members(tx)))
            self._mark = mark
        return self._users


def bus_user(member: records.Member) -> BusUser:
    """What the bus knows of a member."""
    return BusUser(identity=member.identity, host=member.name)
