"""Planted mistakes about several processes on one database: the leader, and copies in memory."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from unittest import mock

from cumulet.compute import agreed, drift, restored
from cumulet.compute import hosts as host_records
from cumulet.compute.hosts_in_memory import HostsInMemory
from cumulet.conductor.leadership import Leadership
from cumulet.conductor.saga import Saga
from cumulet.conductor.without_bus import WithoutBus
from cumulet.db.transaction import Tx
from cumulet.host.driver import GuestReport
from cumulet.testing.simulation.database import TxBesideOthers


def not_renewing_while_it_starts() -> AbstractContextManager[object]:
    """A new leader renews its lease only after everything it leads has started."""

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
    """A leader that was stopped leads on without checking its lease."""

    async def renewed(self: Leadership, now: float) -> bool | None:
        return True

    return mock.patch.multiple(Leadership, _renewed=renewed, require=lambda self, tx: None)


def keeping_everything_without_the_bus() -> AbstractContextManager[object]:
    """A conductor that has lost the bus leads on, and holds its operations."""
    return mock.patch.object(WithoutBus, "is_due", return_value=False)


def remembering_what_hosts_had() -> AbstractContextManager[object]:
    """The copies of hosts in memory are not corrected after commits."""
    return mock.patch.object(HostsInMemory, "correction", return_value=lambda: None)


def comparing_only_what_hosts_say_anew() -> AbstractContextManager[object]:
    """An unchanged report of a host is not compared again, although the records have changed."""

    def still_agreed(
        known: agreed.Agreed | None, reports: Sequence[GuestReport], _linked: object, _asked: drift.Before
    ) -> bool:
        return known is not None and known.reports == tuple(reports)

    return mock.patch.object(agreed, "still_agreed", still_agreed)


def reading_hosts_only_once() -> AbstractContextManager[object]:
    """What a process has read of all hosts counts for good, as if no other process wrote to the database."""
    return mock.patch.object(host_records, "version", return_value=())


def overlooking_an_abort_at_the_line() -> AbstractContextManager[object]:
    """Once all steps above its line are done, an operation goes on, also if it was asked to abort before that."""
    return mock.patch.object(Saga, "may_unwind_at", lambda saga, position: position < len(saga.steps))


def taking_what_is_as_old_as_the_records_for_newer() -> AbstractContextManager[object]:
    """A guest that was left over by a move is taken for one that came after a backup, and stays."""
    return mock.patch.object(restored, "is_newer", lambda reported, recorded: reported >= recorded)


def notices_that_the_database_refuses() -> AbstractContextManager[object]:
    """A commit sends its notice with a function that the database does not have."""
    return mock.patch.object(TxBesideOthers, "say", Tx.say)


PLANTS = (
    notices_that_the_database_refuses,
    comparing_only_what_hosts_say_anew,
    keeping_everything_without_the_bus,
    leading_on_after_a_stop,
    not_renewing_while_it_starts,
    overlooking_an_abort_at_the_line,
    reading_hosts_only_once,
    remembering_what_hosts_had,
    taking_what_is_as_old_as_the_records_for_newer,
)
