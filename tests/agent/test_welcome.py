"""An agent that has just started lets no guest run before its welcome, which tells it the present generations."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from cumulet.agent import agent as agents
from cumulet.agent.agent import Agent, HostLease, Unleased
from cumulet.agent.fence import MemoryFence
from cumulet.clock import SystemClock
from cumulet.drivers.simulated.driver import SimulatedDriver, World
from cumulet.host import messages as m
from cumulet.host.driver import Guest, GuestState
from cumulet.settings import Settings

SERVER = "3f1b6a1e-6f0e-4b51-9d0e-1c2f5a7c9e10"
GUEST = Guest(server_id=SERVER, name="one", vcpus=1, memory_mib=64, disk_gib=1, image=None)


class Host:
    """A machine after a power failure: its agent starts again, and a guest is stopped on its disk."""

    def __init__(self, folder: Path) -> None:
        settings = Settings(state_dir=folder, database_url="sqlite://")
        self.fence = MemoryFence()
        self.driver = SimulatedDriver(
            name="host1", world=World(), clock=SystemClock(), settings=settings, directory=None
        )

    async def boot(self, session: str, lease: HostLease | None = None) -> Agent:
        return Agent(name="host1", driver=self.driver, fence=self.fence, lease=lease, session=session)

    async def made(self) -> None:
        first = await self.boot("first")
        await first.handle(m.Welcome(session="first", generations={}))
        await first.handle(
            m.Create(server_id=SERVER, operation_id="boot", generation=2, step=0, guest=GUEST, run=False)
        )


def start(generation: int) -> m.Start:
    return m.Start(server_id=SERVER, operation_id="late", generation=generation, step=0)


async def returned(folder: Path) -> Agent:
    """Its agent at the second start, without a welcome so far."""
    host = Host(folder)
    await host.made()
    return await host.boot("second")


async def waiting(agent: Agent, message: m.Message[object]) -> asyncio.Task[Any]:
    """The outcome of a message that came before the welcome."""
    task = asyncio.create_task(agent.handle(message))
    await asyncio.sleep(0)
    return task


def test_what_comes_late_is_refused_once_the_agent_knows_that_its_server_went_elsewhere(tmp_path: Path) -> None:
    async def story() -> None:
        agent = await returned(tmp_path)
        late = await waiting(agent, start(2))
        assert await agent.handle(m.Observe(server_id=SERVER)) is GuestState.STOPPED, "it waits"
        await agent.handle(m.Welcome(session="second", generations={SERVER: 4}))
        with pytest.raises(m.StaleGeneration):
            await late
        assert await agent.handle(m.Observe(server_id=SERVER)) is GuestState.STOPPED

    asyncio.run(story())


def test_what_still_holds_is_done_once_it_is_welcomed(tmp_path: Path) -> None:
    async def story() -> None:
        agent = await returned(tmp_path)
        due = await waiting(agent, start(2))
        await agent.handle(m.Welcome(session="second", generations={SERVER: 2}))
        await due
        assert await agent.handle(m.Observe(server_id=SERVER)) is GuestState.RUNNING

    asyncio.run(story())


def test_a_welcome_for_an_earlier_start_of_it_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agents, "WELCOME_SECONDS", 0.05)

    async def story() -> None:
        agent = await returned(tmp_path)
        await agent.handle(m.Welcome(session="first", generations={SERVER: 2}))
        with pytest.raises(m.VerbFailed, match="NOT_WELCOMED"):
            await agent.handle(start(2))
        await agent.handle(m.Destroy(server_id=SERVER, operation_id="o", generation=2, step=0))
        assert await agent.handle(m.Observe(server_id=SERVER)) is GuestState.ABSENT, "ending guests waits for nobody"

    asyncio.run(story())


class Welcomed(Unleased):
    """A lease that notes how often its host was welcomed."""

    times = 0

    async def welcomed(self) -> None:
        self.times += 1


def test_its_lease_hears_of_its_own_welcome_only(tmp_path: Path) -> None:
    """A host that has no lease any more ends its watchdog then, and not before: its guests would end with it."""

    async def story() -> None:
        lease = Welcomed()
        agent = await Host(tmp_path).boot("second", lease)
        await agent.handle(m.Welcome(session="first", generations={}))
        assert lease.times == 0
        await agent.handle(m.Welcome(session="second", generations={}))
        assert lease.times == 1

    asyncio.run(story())


def test_each_start_of_an_agent_is_told_from_the_one_before(tmp_path: Path) -> None:
    async def story() -> None:
        host = Host(tmp_path)
        first, second = await host.boot("first"), await host.boot("second")
        answers = [await one.handle(m.AskFacts()) for one in (first, second)]
        assert [facts.session for facts in answers] == ["first", "second"]

    asyncio.run(story())
