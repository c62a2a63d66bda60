"""What every bus does in the same way: answers, refusals, late, many and too long messages, agents that end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from cumulet.agent.agent import Agent
from cumulet.agent.fence import MemoryFence
from cumulet.bus.in_process import InProcessLink
from cumulet.bus.unix_socket import UnixSocketLink, serve_agent
from cumulet.clock import SystemClock
from cumulet.drivers.simulated.driver import SimulatedDriver, World
from cumulet.host import messages as m
from cumulet.host.driver import GuestState
from cumulet.host.link import Link
from cumulet.settings import Settings
from tests.bus.nats_cloud import nats_cloud, needs_nats

SERVER = "00000000-0000-4000-8000-000000000001"
HOST = "rack1.west"
BETWEEN_PROCESSES = ["unix", pytest.param("nats", marks=needs_nats)]
ALL = ["in-process", *BETWEEN_PROCESSES]


class Gate(SimulatedDriver):
    """A hypervisor that answers about a guest once it may; its console has as many bytes as are asked for."""

    asked: asyncio.Queue[str]
    let: dict[str, asyncio.Event]

    async def observe(self, server_id: str) -> GuestState:
        if server_id in self.let:
            self.asked.put_nowait(server_id)
            await self.let[server_id].wait()
        return GuestState.ABSENT

    async def console_output(self, server_id: str, *, max_bytes: int) -> bytes:
        return bytes(max_bytes)


def gate(*closed: str) -> Gate:
    settings = Settings(state_dir=Path("state"), database_url="sqlite://")
    made = Gate(name=HOST, world=World(), clock=SystemClock(), settings=settings, directory=None)
    made.asked, made.let = asyncio.Queue(), {server_id: asyncio.Event() for server_id in closed}
    return made


Kill = Callable[[], Awaitable[None]]


class Bus:
    """One transport: a link, and an agent that can be started at the other end and killed."""

    link: Link
    start: Callable[[Gate], Awaitable[Kill]]


@asynccontextmanager
async def bus(kind: str, folder: Path) -> AsyncIterator[Bus]:
    async with AsyncExitStack() as stack:
        made = Bus()
        if kind == "in-process":

            async def here(driver: Gate) -> Kill:
                made.link = InProcessLink(Agent(name=HOST, driver=driver, fence=MemoryFence()))
                return made.link.close

            made.start = here
        elif kind == "unix":
            made.link = UnixSocketLink(Path("agent.sock"))

            async def on_socket(driver: Gate) -> Kill:
                served = await serve_agent(Agent(name=HOST, driver=driver, fence=MemoryFence()), Path("agent.sock"))
                others = asyncio.all_tasks()

                async def kill() -> None:
                    served.close()
                    for task in asyncio.all_tasks() - others:
                        if "serve_agent.<locals>.serve" in repr(task.get_coro()):
                            task.cancel()

                stack.callback(served.close)
                return kill

            made.start = on_socket
            stack.push_async_callback(made.link.close)
        else:
            cloud = await stack.enter_async_context(nats_cloud(folder, HOST))
            control = cloud.bus()
            await control.start()
            stack.push_async_callback(control.close)
            await control.connected()
            made.link = control.link(HOST)

            async def on_nats(driver: Gate) -> Kill:
                answers = Agent(name=HOST, driver=driver, fence=MemoryFence())
                agent = cloud.agent(HOST, answers, incarnation=str(id(driver)))
                await agent.start()
                stack.push_async_callback(agent.close)
                await agent.connected()
                return agent.close

            made.start = on_nats
        yield made


def on(kinds: Sequence[object]) -> Callable[[Callable[[Bus], Awaitable[None]]], Callable[..., None]]:
    """Makes a test of a story, which runs on each of these kinds of bus."""

    def test_of(story: Callable[[Bus], Awaitable[None]]) -> Callable[..., None]:
        @pytest.mark.parametrize("kind", kinds)
        def test(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
            monkeypatch.chdir(tmp_path)  # A socket's name must not be long.

            async def told() -> None:
                async with asyncio.timeout(40), bus(kind, tmp_path) as made:
                    await story(made)

            asyncio.run(told())

        test.__name__ = test.__qualname__ = story.__name__
        return test

    return test_of


@on(ALL)
async def test_answers_and_refusals_arrive_as_what_they_are(bus: Bus) -> None:
    await bus.start(gate())
    assert await bus.link.send(m.Observe(server_id=SERVER)) is GuestState.ABSENT
    with pytest.raises(m.VerbFailed, match="no guest"):
        await bus.link.send(m.Start(server_id=SERVER, operation_id="one", generation=2, step=0))
    with pytest.raises(m.StaleGeneration) as stale:
        await bus.link.send(m.Destroy(server_id=SERVER, operation_id="one", generation=1, step=0))
    assert stale.value.accepted == 2
    assert (await bus.link.send(m.AskFacts())).name == HOST
    assert await bus.link.send(m.ConsoleOutput(server_id=SERVER, max_bytes=5)) == bytes(5)


@on(ALL)
async def test_answers_find_their_questions_in_whatever_order_they_come(bus: Bus) -> None:
    driver = gate(*(f"{SERVER[:-2]}{n}" for n in range(10, 40)))
    await bus.start(driver)
    order: list[str] = []

    async def ask(server_id: str) -> None:
        await bus.link.send(m.Observe(server_id=server_id))
        order.append(server_id)

    asking = [asyncio.create_task(ask(server_id)) for server_id in driver.let]
    for _ in driver.let:
        await driver.asked.get()
    for number, server_id in enumerate(reversed(driver.let), start=1):
        driver.let[server_id].set()
        await asking[-number]
    assert order == list(reversed(driver.let))


@on(ALL)
async def test_an_answer_that_nobody_waits_for_any_more_is_no_other_question_s(bus: Bus) -> None:
    driver = gate(SERVER)
    await bus.start(driver)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await bus.link.send(m.Observe(server_id=SERVER))
    driver.let[SERVER].set()
    facts = await asyncio.gather(*(bus.link.send(m.AskFacts()) for _ in range(20)))
    assert {one.name for one in facts} == {HOST}


@on(BETWEEN_PROCESSES)
async def test_what_is_too_long_is_told_in_words_and_disturbs_nothing(bus: Bus) -> None:
    await bus.start(gate())
    with pytest.raises(m.VerbFailed, match="MESSAGE_TOO_LONG"):
        await bus.link.send(m.Welcome(session="x" * 5_000_000, generations={}))
    with pytest.raises(m.VerbFailed, match="ANSWER_TOO_LONG"):
        await bus.link.send(m.ConsoleOutput(server_id=SERVER, max_bytes=5_000_000))
    whole: bytes = await bus.link.send(m.ConsoleOutput(server_id=SERVER, max_bytes=3_000_000))
    assert len(whole) == 3_000_000


@on(BETWEEN_PROCESSES)
async def test_where_no_agent_listens_that_is_known_at_once(bus: Bus) -> None:
    async with asyncio.timeout(2):
        with pytest.raises(m.HostUnreachable):
            await bus.link.send(m.AskFacts())


@on(BETWEEN_PROCESSES)
async def test_an_agent_that_dies_is_noticed_and_the_next_one_is_found(bus: Bus) -> None:
    driver = gate(SERVER)
    kill = await bus.start(driver)
    asking = asyncio.create_task(bus.link.send(m.Observe(server_id=SERVER)))
    await driver.asked.get()
    await kill()
    with pytest.raises(m.HostUnreachable):
        await asking
    await bus.start(gate())
    assert await bus.link.send(m.Observe(server_id=SERVER)) is GuestState.ABSENT
