"""The name of a host that joins is nobody else's: at its invitation, when its token is redeemed, and at each start."""

from __future__ import annotations

from pathlib import Path

import pytest
import sqlalchemy as sa

from cumulet.compute.joined_hosts import joined_hosts
from cumulet.db.schema import OtherState
from cumulet.host.joining import Refused
from cumulet.testing import JsonObject
from tests.bus.nats_cloud import needs_nats
from tests.fleet.joined import HOSTS, JoinableCloud, agent_of, join, membership, tell, until

pytestmark = needs_nats


async def _nothing(cloud: JoinableCloud) -> None:
    pass


def test_names_that_are_taken_or_would_pass_for_the_cloud_are_refused(tmp_path: Path) -> None:
    async def story(cloud: JoinableCloud) -> None:
        for name in ("host1", "localhost"):
            assert (await cloud.ask("POST", HOSTS, {"host": {"name": name}})).status == 409
        for name in ("Rack", "a.b", "-a", "", "a" * 64, "rack\n"):
            assert (await cloud.ask("POST", HOSTS, {"host": {"name": name}})).status == 400
        assert (await cloud.ask("DELETE", f"{HOSTS}/nobody")).status == 404
        machine = membership(tmp_path / "rack1")
        first, second = await cloud.invite("rack1"), await cloud.invite("rack1")
        with pytest.raises(Refused, match="not one of"):
            await join(machine, first)
        await join(machine, second)
        async with agent_of(machine, "first"):
            await until(lambda: cloud.up("rack1"))
            for _ in range(2):  # Whoever gives a new machine a name that is taken learns it there.
                with pytest.raises(Refused, match="a new machine needs another name"):
                    await join(membership(tmp_path / "rack2"), await cloud.invite("rack1"))
                assert not (tmp_path / "rack2").exists()
            assert await cloud.up("rack1")

    tell(tmp_path, story, public_url="https://localhost")


def test_no_host_of_the_cloud_s_machine_has_the_name_of_one_that_joined(tmp_path: Path) -> None:
    async def story(cloud: JoinableCloud) -> None:
        await join(membership(tmp_path / "other"), await cloud.invite("host2"))

    tell(tmp_path, story)
    with pytest.raises(OtherState, match=r"host2 has joined from another machine.* --hosts 1 at most"):
        tell(tmp_path, _nothing, host_names=("host1", "host2", "host3"))
    tell(tmp_path, _nothing)


def test_a_token_is_worthless_once_the_cloud_s_machine_has_a_host_of_its_name(tmp_path: Path) -> None:
    made: JsonObject = {}

    async def first(cloud: JoinableCloud) -> None:
        made.update(await cloud.invite("host1"))

    async def second(cloud: JoinableCloud) -> None:
        door = cloud.cloud.context.door
        assert door is not None
        session = (await cloud.cloud.hosts.facts("host1")).session
        with pytest.raises(Refused, match="has a host host1 of its own"):
            await join(membership(tmp_path / "other"), made | {"join": door.url})
        assert not (tmp_path / "other").exists()
        assert (await cloud.ask("DELETE", f"{HOSTS}/host1")).status == 204
        assert await cloud.up("host1"), "only the invitation is gone"
        assert (await cloud.cloud.hosts.facts("host1")).session == session

    tell(tmp_path, first, host_names=())
    tell(tmp_path, second)


def test_a_member_of_another_process_takes_no_link_of_a_host_of_this_machine(tmp_path: Path) -> None:
    """Two processes may decide at the same moment."""

    async def story(cloud: JoinableCloud) -> None:
        link = cloud.cloud.hosts.link("host1")
        values = {"name": "host1", "identity": "cumulet://host/host1/1", "added_at_us": 1, "joined_at_us": 1}
        await cloud.cloud.db.write_async(lambda tx: tx.execute(sa.insert(joined_hosts).values(**values)))
        await join(membership(tmp_path / "rack1"), await cloud.invite("rack1"))
        assert set(cloud.cloud.hosts.names) == {"host1", "rack1"}
        assert cloud.cloud.hosts.link("host1") is link

    tell(tmp_path, story)
