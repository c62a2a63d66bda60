"""What was so for a moment only, when a host was told its wiring, is put right, although nothing is written."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from unittest import mock

from cumulet.compute import hosts_in_memory, wiring
from cumulet.compute.descriptions import Reading
from cumulet.compute.hosts_in_memory import HostsInMemory
from cumulet.host import messages as m
from cumulet.host.wiring import Group, Wiring
from tests.compute.test_hosts_in_memory import of_hosts
from tests.compute.test_wirings import NEVER, Cloud


def tell(folder: Path, story: Callable[[Cloud], Awaitable[None]]) -> None:
    """The story begins when its host has been told once, and no timer runs."""

    async def told() -> None:
        database.keeper = memory = HostsInMemory()
        await memory.load(database)
        cloud = Cloud(folder, database)
        cloud.wirings.seconds = NEVER
        await cloud.wirings.start()
        await cloud.wirings.round()
        await story(cloud)
        await cloud.wirings.stop()

    with of_hosts(folder, {"host1": ("networks",)}) as database:
        asyncio.run(told())


def test_what_was_so_for_a_moment_only_is_put_right_although_nothing_was_written(tmp_path: Path) -> None:
    """A saga has told it meanwhile, such as that it has no routers because it was silent."""

    async def describe(revision: int) -> Wiring:
        group = Group(id="g", stateful=True, rules=(), members=())
        return Wiring(host="host1", revision=revision, groups=(group,))

    async def story(cloud: Cloud) -> None:
        cloud.clock.advance(1.0)
        await cloud.wirings.round()
        assert cloud.way.told == 1, "there is no news"
        await cloud.hosts.wire("host1", describe, now_us=cloud.clock.now_us())
        for _ in range(2):
            await cloud.wirings.round()
            assert cloud.way.told == 3
        assert cloud.driver.network.wiring is not None
        assert cloud.driver.network.wiring.groups == ()

    tell(tmp_path, story)


def test_what_was_read_while_hosts_were_otherwise_for_a_moment_is_read_again(tmp_path: Path) -> None:
    """Such as a host that is back, and may have no routers until it has removed what it lost. It was told so."""
    read: list[str] = []

    async def of(reading: Reading, host: str) -> Wiring:
        read.append(host)
        return await original(reading, host)

    async def story(cloud: Cloud) -> None:
        with mock.patch.object(hosts_in_memory, "as_wired", return_value="otherwise"):
            await cloud.wirings._tell("host1")
        for _ in range(2):
            told = len(read)
            await cloud.wirings.round()
        assert (told, len(read)) == (3, 3), "once more, and then there is no news"

    original = Reading.of
    with mock.patch.object(Reading, "of", of):
        tell(tmp_path, story)


def test_a_host_that_is_removed_while_it_cannot_be_told_is_no_error(tmp_path: Path) -> None:
    async def story(cloud: Cloud) -> None:
        async def goes(*_: object, **__: object) -> None:
            cloud.wirings._told_of.clear()  # As a round does that finds no such host.
            raise m.HostUnreachable("it has gone")

        with mock.patch.object(wiring, "_wire", goes):
            await cloud.wirings._tell("host1")
        assert cloud.wirings._told_of == {}

    tell(tmp_path, story)
