"""One command at a time for each server; what orders them is kept only while somebody uses it."""

from __future__ import annotations

import asyncio
from pathlib import Path

from cumulet.agent.agent import Agent
from cumulet.agent.fence import MemoryFence
from cumulet.clock import SystemClock
from cumulet.drivers.simulated.driver import SimulatedDriver, World
from cumulet.host import messages as m
from cumulet.settings import Settings
from tests.drivers.qemu_host import qemu_host


class Slow(SimulatedDriver):
    """Removes a guest only after `go` is set."""

    go: asyncio.Event
    inside = 0
    most_inside = 0

    async def destroy(self, server_id: str) -> None:
        self.inside += 1
        self.most_inside = max(self.most_inside, self.inside)
        await self.go.wait()
        await super().destroy(server_id)
        self.inside -= 1


def destroy(server_id: str) -> m.Destroy:
    return m.Destroy(server_id=server_id, operation_id="gone", generation=1, step=0)


def test_an_agent_does_one_command_at_a_time_for_a_server_and_keeps_nothing_of_servers_that_went(
    tmp_path: Path,
) -> None:
    settings = Settings(state_dir=tmp_path, database_url="sqlite://")
    driver = Slow(name="host1", world=World(), clock=SystemClock(), settings=settings, directory=None)
    agent = Agent(name="host1", driver=driver, fence=MemoryFence())

    async def story() -> None:
        driver.go = asyncio.Event()
        several = [asyncio.create_task(agent.handle(destroy("one"))) for _ in range(3)]
        for _ in range(5):
            await asyncio.sleep(0)
        assert driver.inside == 1, "the others wait"
        driver.go.set()
        await asyncio.gather(*several)
        assert driver.most_inside == 1
        for number in range(100):
            await agent.handle(destroy(f"server-{number}"))

    asyncio.run(story())
    assert not agent._busy


def test_the_qemu_driver_keeps_a_lock_only_while_somebody_holds_or_awaits_it(tmp_path: Path) -> None:
    host = qemu_host(tmp_path)
    held: list[int] = []

    async def verb() -> None:
        async with host.lock("one"):
            held.append(1)
            await asyncio.sleep(0)
            assert sum(held) == 1, "no other holds it, even if it came while one waited"
            held.pop()

    async def story() -> None:
        await asyncio.gather(*(verb() for _ in range(5)))
        for number in range(100):
            async with host.lock(f"server-{number}"):
                assert len(host._locks) == 1

    asyncio.run(story())
    assert not host._locks
