"""A command to join that was run long ago, as in a unit of systemd, does no harm; a new one says where the cloud is."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from cumulet.agent import joining
from cumulet.compute import joined_hosts
from cumulet.processes.joined_agent import _join_again
from cumulet.testing import AdvanceableClock
from tests.bus.nats_cloud import needs_nats
from tests.fleet.joined import JoinableCloud, agent_of, join, membership, until
from tests.fleet.test_joining_again import down, told

pytestmark = needs_nats


def test_a_command_that_was_run_long_ago_does_no_harm_while_the_certificate_is_good(tmp_path: Path) -> None:
    machine = membership(tmp_path / "rack1")

    async def story(cloud: JoinableCloud, clock: AdvanceableClock) -> None:
        made = await cloud.invite("rack1")
        joined = await join(machine, made)
        before = (machine.identity / "client-cert.pem").read_bytes()
        again = await _join_again(
            tmp_path / "rack1", machine, joined, made["join"], made["token"], made["ca_fingerprint"]
        )
        assert again == joined
        assert (machine.identity / "client-cert.pem").read_bytes() == before

    told(tmp_path, story)


def test_an_old_command_does_no_harm_where_the_cloud_knows_the_machine_better_than_its_folder(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its host name has changed since it joined, and agents of before have told the cloud."""

    async def story(cloud: JoinableCloud, clock: AdvanceableClock) -> None:
        machine, made = membership(tmp_path / "rack1", clock), await cloud.invite("rack1")
        await join(machine, made)
        kept = tmp_path / "rack1" / "joined.json"
        found = machine.joined()
        assert found is not None
        kept.write_bytes(msgspec.json.encode(msgspec.structs.replace(found, machine="as-it-was-called")))
        before = machine.joined()
        assert before is not None
        clock.advance(15 * 60 + 1)
        again = await _join_again(
            tmp_path / "rack1", machine, before, made["join"], made["token"], made["ca_fingerprint"]
        )
        assert again == before == machine.joined()
        assert "if the cloud knows this machine, no token is needed" in caplog.text
        async with agent_of(machine, "first"):
            await until(lambda: cloud.up("rack1"))

    told(tmp_path, story)


def test_a_hosts_folder_knows_its_machine_as_the_cloud_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once its agent has started under another host name, an old command does not even try its token."""

    def is_called(names: str) -> None:
        monkeypatch.setattr(joining, "machine_id", lambda: names)

    async def story(cloud: JoinableCloud, clock: AdvanceableClock) -> None:
        machine, made = membership(tmp_path / "rack1", clock), await cloud.invite("rack1")
        is_called("first")
        await join(machine, made)
        is_called("second:first")
        await machine.claim("session 1")
        is_called("third:second")
        await machine.claim("session 1")  # The cloud keeps what it was told first.
        known = machine.joined()
        assert known is not None
        assert {known.machine} == {"second:first"} == {one.machine for one in await members(cloud)}
        await down(cloud, "rack1")
        restarted = membership(tmp_path / "rack1", clock)
        with monkeypatch.context() as full:
            full.setattr(joining, "write_whole", _no_room)
            await restarted.claim("session 2")
        assert restarted.joined() == known, "the disk was full"
        await restarted.claim("session 3")
        found = restarted.joined()
        assert found == msgspec.structs.replace(known, machine="third:second")
        assert [one.machine for one in await members(cloud)] == ["third:second"]
        is_called("third")
        with monkeypatch.context() as patched:
            patched.setattr(restarted, "join", _not_asked)
            command = (tmp_path / "rack1", restarted, found, made["join"], made["token"], made["ca_fingerprint"])
            assert await _join_again(*command) == found

    told(tmp_path, story)


async def members(cloud: JoinableCloud) -> list[joined_hosts.Member]:
    return await cloud.cloud.db.read_async(joined_hosts.members)


def _no_room(*_: object) -> None:
    raise OSError(28, "No space left on device")


async def _not_asked(*_: object) -> None:
    raise AssertionError("it must not join")


def test_a_cloud_that_has_moved_is_asked_where_the_command_says_if_it_is_there(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    machine = membership(tmp_path / "rack1")

    async def story(cloud: JoinableCloud, clock: AdvanceableClock) -> None:
        made = await cloud.invite("rack1")
        await join(machine, made)
        kept = tmp_path / "rack1" / "joined.json"
        kept.write_bytes(kept.read_bytes().replace(made["join"].encode(), b"https://127.0.0.1:1"))
        before = machine.joined()
        assert before is not None
        certificate = (machine.identity / "client-cert.pem").read_bytes()
        api = cloud.cloud.url  # With a certificate of the same authority, which is no door's.
        for not_there in ("https://127.0.0.1:2", api):
            again = await _join_again(
                tmp_path / "rack1", machine, before, not_there, made["token"], made["ca_fingerprint"]
            )
            assert again == before == machine.joined()
            assert f"{not_there}" in caplog.text
        assert "is asked at https://127.0.0.1:1, as before" in caplog.text
        again = await _join_again(
            tmp_path / "rack1", machine, before, made["join"], made["token"], made["ca_fingerprint"]
        )
        assert again == machine.joined() == msgspec.structs.replace(before, url=made["join"])
        assert (machine.identity / "client-cert.pem").read_bytes() == certificate
        async with agent_of(machine, "first"):
            await until(lambda: cloud.up("rack1"))

    told(tmp_path, story)


def test_another_clouds_door_is_not_where_a_host_is_sent(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It shows the authority that the host knows, which anybody may, but has no certificate of it."""
    machine = membership(tmp_path / "rack1")

    async def first(cloud: JoinableCloud, clock: AdvanceableClock) -> None:
        await join(machine, await cloud.invite("rack1"))

    async def second(cloud: JoinableCloud, clock: AdvanceableClock) -> None:
        made, before = await cloud.invite("rack1"), machine.joined()
        assert before is not None
        again = await _join_again(
            tmp_path / "rack1", machine, before, made["join"], made["token"], before.ca_fingerprint
        )
        assert again == before == machine.joined()
        assert "is not this host's cloud" in caplog.text

    told(tmp_path / "one", first)
    told(tmp_path / "other", second)
