"""The verb by which an operation that is undone sees what has become of its guest."""

from __future__ import annotations

from cumulet.host.driver import GuestState
from cumulet.host.messages import Command, OnHost

SINCE_PROTOCOL = 2
"""Agents know it whose `HostFacts.protocol` is no lower."""


class Look(Command[GuestState], frozen=True, tag="look"):
    """As `messages.Observe`, and the last word of the steps before: what they have told this host and it does not know
    yet, it refuses from now on; what it is at, it ends first. So what is seen stays so."""

    needs_lease = False

    async def do(self, host: OnHost) -> GuestState:
        return await host.driver.observe(self.server_id)
