"""A command that fails has done what it should only where the guest is gone."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from cumulet.compute import operations
from cumulet.conductor.saga import Context
from cumulet.host import messages as m
from cumulet.host.driver import GuestState


class Failing:
    """A context whose host can do nothing, and says this of its guest."""

    def __init__(self, seen: GuestState) -> None:
        self.hosts = self
        self._seen = seen

    async def send(self, host: str, message: m.Message[object]) -> GuestState:
        if isinstance(message, m.Observe):
            return self._seen
        raise m.VerbFailed("it cannot")


@pytest.mark.parametrize("seen", GuestState)
def test_only_of_a_guest_that_is_gone_a_failed_command_is_done(seen: GuestState) -> None:
    command = m.StandDown(server_id="s", operation_id="o", generation=1, step=1)
    sent = operations.unless_gone(cast("Context", Failing(seen)), "host1", command)
    if seen is GuestState.ABSENT:
        asyncio.run(sent)
    else:
        with pytest.raises(m.VerbFailed):
            asyncio.run(sent)
