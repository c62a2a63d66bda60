"""An agent behind a unix socket: answers and refusals arrive as they were meant, a lost connection is told at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from cumulet.agent.agent import Agent
from cumulet.agent.fence import MemoryFence
from cumulet.bus.unix_socket import UnixSocketLink, serve_agent
from cumulet.clock import SystemClock
from cumulet.drivers.simulated.driver import SimulatedDriver, World
from cumulet.host import messages as m
from cumulet.host.driver import GuestState
from cumulet.settings import Settings

SOCKET = Path("agent.sock")
"""Relative: the test's folder as a whole may be too long for a socket's name."""
SERVER = "00000000-0000-4000-8000-000000000001"


class SlowDriver(SimulatedDriver):
    """A hypervisor that is asked, and does not answer."""

    asked: asyncio.Event

    async def observe(self, server_id: str) -> GuestState:
        self.asked.set()
        await asyncio.Event().wait()
        raise AssertionError


@pytest.fixture(autouse=True)
def _in_the_tests_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def driver(kind: type[SimulatedDriver] = SimulatedDriver) -> SimulatedDriver:
    settings = Settings(state_dir=Path("state"), database_url="sqlite://")
    made = kind(name="host1", world=World(), clock=SystemClock(), settings=settings, directory=None)
    if isinstance(made, SlowDriver):
        made.asked = asyncio.Event()
    return made


@asynccontextmanager
async def agent(of: SimulatedDriver) -> AsyncIterator[None]:
    """An agent that listens; when the block ends it is as if its process had died: no connection is left open."""
    served = await serve_agent(Agent(name="host1", driver=of, fence=MemoryFence()), SOCKET)
    others = asyncio.all_tasks()
    try:
        yield
    finally:
        served.close()
        for task in asyncio.all_tasks() - others:
            if task.get_name() != "story" and "serve" in repr(task.get_coro()):
                task.cancel()


def test_answers_and_refusals_arrive_as_what_they_are() -> None:
    async def story() -> None:
        async with agent(driver()):
            link = UnixSocketLink(SOCKET)
            assert await link.send(m.Observe(server_id=SERVER)) is GuestState.ABSENT
            with pytest.raises(m.VerbFailed, match="no guest"):
                await link.send(m.Start(server_id=SERVER, operation_id="one", generation=2, step=0))
            with pytest.raises(m.StaleGeneration):
                await link.send(m.Destroy(server_id=SERVER, operation_id="one", generation=1, step=0))
            assert (await link.send(m.AskFacts())).name == "host1"
            await link.close()

    asyncio.run(story())


def test_an_agent_that_dies_is_noticed_at_once_and_the_next_one_is_found() -> None:
    async def story() -> None:
        link = UnixSocketLink(SOCKET)
        slow = driver(SlowDriver)
        assert isinstance(slow, SlowDriver)
        async with asyncio.timeout(10):
            async with agent(slow):
                asking = asyncio.create_task(link.send(m.Observe(server_id=SERVER)))
                await slow.asked.wait()
            with pytest.raises(m.HostUnreachable):
                await asking
            async with agent(driver()):
                assert await link.send(m.Observe(server_id=SERVER)) is GuestState.ABSENT
        await link.close()

    asyncio.run(story())


def test_where_no_agent_listens_it_is_unreachable() -> None:
    async def story() -> None:
        with pytest.raises(m.HostUnreachable):
            await UnixSocketLink(SOCKET).send(m.AskFacts())

    asyncio.run(story())
