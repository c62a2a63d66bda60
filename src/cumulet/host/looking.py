"""The verb by which an operation that is undone learns what its guest is."""

from __future__ import annotations

from cumulet.host.driver import GuestState
from cumulet.host.messages import Command, OnHost

SINCE_PROTOCOL = 2
"""Agents with this `HostFacts.protocol` or a higher one know the verb."""


class Look(Command[GuestState], frozen=True, tag="look"):
    """Answers as `messages.Observe`, but as a command: the host first ends a command of an earlier step, and refuses
    those that come later. So the answer stays true."""

    needs_lease = False

    async def do(self, host: OnHost) -> GuestState:
        return await host.driver.observe(self.server_id)
