"""Mistakes to plant that are about several processes on one database: who leads, what is kept in memory."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from unittest import mock

from cumulet.compute import drift
from cumulet.compute.hosts_in_memory import HostsInMemory
from cumulet.conductor.leadership import Leadership
from cumulet.host.driver import GuestReport


def not_renewing_while_it_starts() -> AbstractContextManager[object]:
    """Whoever has got the lease first starts all that it leads, however long that takes, and then renews it."""

    async def round_(self: Leadership) -> None:
        now = self._clock.monotonic()
        if self.leads:
            await real(self)
        elif await self._db.write_async(lambda tx: self._take(tx, now)):
            self._held_until = now + self._seconds
            await self._begin()

    real = Leadership._round
    return mock.patch.object(Leadership, "_round", round_)


def leading_on_after_a_stop() -> AbstractContextManager[object]:
    """A process that led when it was stopped leads on: nobody asks whether another has begun since."""

    async def renewed(self: Leadership, now: float) -> bool | None:
        return True

    return mock.patch.multiple(Leadership, _renewed=renewed, require=lambda self, tx: None)


def remembering_what_hosts_had() -> AbstractContextManager[object]:
    """What is kept in memory of hosts does not hear of what is committed."""
    return mock.patch.object(HostsInMemory, "correction", return_value=lambda: None)


def comparing_only_what_hosts_say_anew() -> AbstractContextManager[object]:
    """A host that says what it said is taken to agree with the records, although those have changed."""

    def still_agreed(
        known: drift.Agreed | None, reports: Sequence[GuestReport], _linked: object, _asked: drift.Before
    ) -> bool:
        return known is not None and known.reports == tuple(reports)

    return mock.patch.object(drift, "still_agreed", still_agreed)


PLANTS = (
    comparing_only_what_hosts_say_anew,
    leading_on_after_a_stop,
    not_renewing_while_it_starts,
    remembering_what_hosts_had,
)
