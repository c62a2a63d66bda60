"""What was so for a moment only, when a host was told its wiring, is put right, although nothing is written."""

from __future__ import annotations

import asyncio
from pathlib import Path
from unittest import mock

from cumulet.compute import hosts_in_memory
from cumulet.compute.descriptions import Reading
from cumulet.compute.hosts_in_memory import HostsInMemory
from cumulet.db.engine import Database
from cumulet.host.wiring import Group, Wiring
from tests.compute.test_hosts_in_memory import of_hosts
from tests.compute.test_wirings import NEVER, Cloud


def test_what_was_so_for_a_moment_only_is_put_right_although_nothing_was_written(tmp_path: Path) -> None:
    """A saga has told it meanwhile, such as that it has no routers because it was silent."""

    async def describe(revision: int) -> Wiring:
        group = Group(id="g", stateful=True, rules=(), members=())
        return Wiring(host="host1", revision=revision, groups=(group,))

    async def story(database: Database) -> None:
        database.keeper = memory = HostsInMemory()
        await memory.load(database)
        cloud = Cloud(tmp_path, database)
        cloud.wirings.seconds = NEVER
        await cloud.wirings.start()
        await cloud.wirings.round()
        cloud.clock.advance(1.0)
        await cloud.wirings.round()
        assert cloud.way.told == 1, "there is no news"
        await cloud.hosts.wire("host1", describe, now_us=cloud.clock.now_us())
        for _ in range(2):
            await cloud.wirings.round()
            assert cloud.way.told == 3
        assert cloud.driver.network.wiring is not None
        assert cloud.driver.network.wiring.groups == ()
        await cloud.wirings.stop()

    with of_hosts(tmp_path, {"host1": ("networks",)}) as database:
        asyncio.run(story(database))


def test_what_was_read_while_hosts_were_otherwise_for_a_moment_is_read_again(tmp_path: Path) -> None:
    """Such as a host that is back, and may have no routers until it has removed what it lost. It was told so."""

    async def story(database: Database) -> None:
        database.keeper = memory = HostsInMemory()
        await memory.load(database)
        cloud = Cloud(tmp_path, database)
        cloud.wirings.seconds = NEVER
        await cloud.wirings.start()
        await cloud.wirings.round()
        with mock.patch.object(hosts_in_memory, "as_wired", return_value="otherwise"):
            await cloud.wirings._tell("host1")
        for _ in range(2):
            told = len(read)
            await cloud.wirings.round()
        assert (told, len(read)) == (3, 3), "once more, and then there is no news"
        await cloud.wirings.stop()

    read: list[str] = []

    async def of(reading: Reading, host: str) -> Wiring:
        read.append(host)
        return await original(reading, host)

    original = Reading.of
    with of_hosts(tmp_path, {"host1": ("networks",)}) as database, mock.patch.object(Reading, "of", of):
        asyncio.run(story(database))
