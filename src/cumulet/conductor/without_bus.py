"""A conductor that has lost the bus can ask no host on another machine. It gives what it holds to other conductors.

Theory of operation. It gives everything back after a tenth of a lease: most lost connections are there again before
that. From then on it takes only what nobody else has taken for a whole lease, so another one with a bus is faster. If
there is none, it goes on, because not all of its work needs a host; and gives everything back again after a while, in
case another one has come. One with hosts of its own machine keeps everything: nobody else reaches these.
"""

from __future__ import annotations

import asyncio

from cumulet.clock import Clock, sleep_unless_woken
from cumulet.fleet.hosts import Hosts

SHARE = 0.1
"""Of a lease: how long the bus is waited for before everything is given back."""
AGAIN_LEASES = 3
"""After so many leases without the bus, everything is given back again."""


class WithoutBus:
    """What a conductor does without its bus."""

    def __init__(self, hosts: Hosts, lease_seconds: float, *, alone: bool) -> None:
        """`alone`: there is no other conductor."""
        self._hosts = hosts
        self._lease_seconds = lease_seconds
        self._alone = alone
        self._woken = asyncio.Event()
        hosts.hear_bus_lost.append(self.wake)
        self._given_at: float | None = None
        """When everything was given back last, in seconds since the bus was lost."""

    @property
    def _cut_off(self) -> bool:
        seconds = self._hosts.cut_off_seconds()
        return not self._alone and seconds is not None and seconds >= SHARE * self._lease_seconds

    def is_due(self) -> bool:
        """Whether everything is to be given back now; `given` says that this was done."""
        if not self._cut_off:
            self._given_at = None
            return False
        since = (self._hosts.cut_off_seconds() or 0.0) - (self._given_at or 0.0)
        return self._given_at is None or not 0.0 <= since < AGAIN_LEASES * self._lease_seconds

    def given(self) -> None:
        self._given_at = self._hosts.cut_off_seconds() if self._cut_off else None

    def wake(self) -> None:
        """End a `pause` that is under way, or the next one."""
        self._woken.set()

    async def pause(self, clock: Clock, seconds: float) -> None:
        """Sleep for so long; less where the bus is lost, so that `is_due` is asked in time."""
        if self._hosts.cut_off_seconds() is not None:
            seconds = min(seconds, SHARE * self._lease_seconds)
        await sleep_unless_woken(clock, seconds, self._woken)

    def patience_seconds(self, *, held: bool) -> float:
        """For how long a lease must be seen as it is before it is taken; `held` by another conductor, or free."""
        return self._lease_seconds * (held + self._cut_off)

    @property
    def comes_back(self) -> bool:
        """Whether what nobody has answered is asked again: the bus has not been away for a whole lease."""
        return (self._hosts.lost_bus() or 0.0) < self._lease_seconds
