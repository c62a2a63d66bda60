"""A guest is made anew on a host that still has an earlier one of its server: that one's disk is not the new one's."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import msgspec
import pytest

from cumulet.agent.agent import Agent
from cumulet.drivers.simulated.guest import SimulatedGuest
from cumulet.host import messages as m
from cumulet.host.driver import DriverError, Guest, GuestState

from .test_welcome import GUEST, SERVER, Host

LATER = msgspec.structs.replace(GUEST, name="two")


def create(generation: int, step: int, guest: Guest = LATER) -> m.Create:
    return m.Create(server_id=SERVER, operation_id="later", generation=generation, step=step, guest=guest)


def found(host: Host) -> SimulatedGuest:
    return host.driver._guests[SERVER]


async def left(folder: Path, told: int) -> tuple[Host, Agent]:
    """A host with a stopped guest of generation 2, which was evacuated meanwhile; `told`: the present generation."""
    host = Host(folder)
    await host.made()
    agent = await host.boot("second")
    await agent.handle(m.Welcome(session="second", generations={SERVER: told}))
    return host, agent


@pytest.mark.parametrize("told", [2, 7], ids=["before the welcome's", "of the welcome's generation"])
def test_what_was_left_is_replaced(tmp_path: Path, told: int) -> None:
    async def story() -> None:
        host, agent = await left(tmp_path, told)
        before = found(host)
        made = await agent.handle(create(7, 2))
        assert made.name == "two"
        assert found(host) is not before
        assert host.driver._guests[SERVER].state is GuestState.RUNNING

    asyncio.run(story())


def test_what_was_just_made_is_kept_when_it_is_asked_for_again(tmp_path: Path) -> None:
    """Another conductor has taken over, or the answer was lost."""

    async def story() -> None:
        host, agent = await left(tmp_path, 7)
        await agent.handle(create(7, 2))
        mine = found(host)
        again = await (await host.boot("third")).driver.guests()
        assert [report.state for report in again] == [GuestState.RUNNING]
        await agent.handle(create(7, 2))
        assert found(host) is mine

    asyncio.run(story())


def test_an_earlier_command_removes_nothing(tmp_path: Path) -> None:
    async def story() -> None:
        host, agent = await left(tmp_path, 7)
        await agent.handle(create(7, 2))
        mine = found(host)
        for late in (create(7, 1), create(6, 5), create(2, 0, GUEST)):
            with pytest.raises(m.StaleGeneration):
                await agent.handle(late)
        assert found(host) is mine

    asyncio.run(story())


def test_what_cannot_be_removed_is_not_taken_for_the_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither now nor when the command is repeated."""

    async def hangs(server_id: str) -> None:
        raise DriverError("a test keeps this guest")

    async def story() -> None:
        host, agent = await left(tmp_path, 7)
        before = found(host)
        with monkeypatch.context() as patched:
            patched.setattr(host.driver, "destroy", hangs)
            for _ in range(2):
                with pytest.raises(m.VerbFailed):
                    await agent.handle(create(7, 2))
        assert found(host) is before
        await agent.handle(create(7, 2))
        assert found(host) is not before

    asyncio.run(story())


@pytest.mark.parametrize(
    "meanwhile",
    [
        m.CancelCopy(server_id=SERVER, operation_id="latest", generation=9, step=3),
        m.Welcome(session="second", generations={SERVER: 9}),
    ],
    ids=lambda message: type(message).__name__,
)
def test_what_becomes_out_of_date_while_the_earlier_one_is_removed_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, meanwhile: m.Message[object]
) -> None:
    """These do not wait for other commands. What they say is not forgotten."""

    async def story() -> None:
        host, agent = await left(tmp_path, 2)
        removing, goes_on = asyncio.Event(), asyncio.Event()
        destroy = host.driver.destroy

        async def slow(server_id: str) -> None:
            removing.set()
            await goes_on.wait()
            await destroy(server_id)

        monkeypatch.setattr(host.driver, "destroy", slow)
        making = asyncio.create_task(agent.handle(create(5, 2)))
        await removing.wait()
        with contextlib.suppress(m.VerbFailed):
            await agent.handle(meanwhile)
        latest = host.fence.mark(SERVER)
        goes_on.set()
        with pytest.raises(m.StaleGeneration):
            await making
        assert host.fence.mark(SERVER) == latest
        assert latest.generation == 9
        assert SERVER not in host.driver._guests

    asyncio.run(story())
