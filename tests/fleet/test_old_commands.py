"""A command to join that was run long ago, as in a unit of systemd, does no harm; a new one says where the cloud is."""

from __future__ import annotations

import shutil
from pathlib import Path

import httpx
import msgspec
import pytest

from cumulet.agent import joining
from cumulet.agent.joining import Joined
from cumulet.compute import joined_hosts
from cumulet.host.joining import Refused
from cumulet.processes.joined_agent import _join_again
from cumulet.testing import AdvanceableClock
from tests.bus.nats_cloud import needs_nats
from tests.fleet.joined import JoinableCloud, agent_of, driver_of, join, membership, until
from tests.fleet.test_joining_again import DAY, SERVERS, down, server_on, told

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


def test_a_cloud_that_has_moved_is_asked_where_a_new_command_says_if_it_is_there(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    machine = membership(tmp_path / "rack1")

    async def story(cloud: JoinableCloud, clock: AdvanceableClock) -> None:
        made = await cloud.invite("rack1")
        door, authority, api = made["join"], made["ca_fingerprint"], cloud.cloud.url
        before = is_kept(tmp_path / "rack1", msgspec.structs.replace(await join(machine, made), url=AWAY))
        certificate = (machine.identity / "client-cert.pem").read_bytes()
        for not_there in ("https://127.0.0.1:2", api):  # The second has a certificate of this authority, but no door's.
            for _ in range(2):  # What was not followed is tried again.
                again = await _join_again(tmp_path / "rack1", machine, before, not_there, "second", authority)
                assert again == before == machine.joined()
            assert caplog.text.count(f"{not_there}") >= 2
        assert f"is asked at {AWAY}, as before" in caplog.text
        capsys.readouterr()
        again = await _join_again(tmp_path / "rack1", machine, before, door, "second", authority)
        assert capsys.readouterr().out == f"the cloud of rack1 is at {door} now\n"
        assert again == machine.joined() == msgspec.structs.replace(before, url=door, commands=again.commands)
        assert (machine.identity / "client-cert.pem").read_bytes() == certificate
        async with agent_of(machine, "first"):
            await until(lambda: cloud.up("rack1"))

    told(tmp_path, story)


def test_a_host_that_is_up_is_told_another_door_and_nobody_joins_with_that_token_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The API at which it joined is gone for good, and the bus is not."""
    state, driver = tmp_path / "rack1", driver_of("rack1")

    async def story(cloud: JoinableCloud, clock: AdvanceableClock) -> None:
        machine = membership(state, clock)
        joined = await join(machine, await cloud.invite("rack1"))
        clock.advance(1)
        async with agent_of(machine, "first", driver):
            await until(lambda: cloud.up("rack1"))
            server_id = await server_on(cloud, "rack1")
            before = is_kept(state, msgspec.structs.replace(joined, url=AWAY))
            shutil.copytree(state, tmp_path / "copy")
            made = await cloud.invite("rack1")
            command = (made["join"], made["token"], made["ca_fingerprint"])
            for other in ("copy", "new"):
                with pytest.raises(Refused, match="rack1 runs, on this or another machine"):
                    await membership(tmp_path / other, clock).join(*command)
            assert not (tmp_path / "new").exists()
            assert await cloud.up("rack1")
        with monkeypatch.context() as elsewhere:  # Its agent is stopped, and the host is not down yet.
            elsewhere.setattr(joining, "machine_id", lambda: "another:machine")
            with pytest.raises(Refused, match="was heard a moment ago on another machine"):
                await membership(tmp_path / "copy", clock).join(*command)
        certificate = (machine.identity / "client-cert.pem").read_bytes()
        again = await _join_again(state, machine, before, *command)
        assert again == machine.joined() == msgspec.structs.replace(before, url=made["join"], commands=again.commands)
        assert (machine.identity / "client-cert.pem").read_bytes() == certificate, "it is the host that it was"
        async with agent_of(machine, "second", driver):
            await until(lambda: cloud.up("rack1"))
            asked = await cloud.ask("POST", f"{SERVERS}/{server_id}/action", {"os-getConsoleOutput": {}})
            assert asked.status == 200, "its host answers for it"

    told(tmp_path, story)


AWAY = "https://127.0.0.1:1"


def is_kept(state: Path, joined: Joined) -> Joined:
    """As if a host had these records."""
    (state / "joined.json").write_bytes(msgspec.json.encode(joined))
    return joined


@pytest.mark.parametrize("of_before", [False, True])
def test_the_command_in_a_unit_does_not_send_a_host_back_to_where_its_cloud_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, of_before: bool
) -> None:
    """Though a cloud answers there still. `of_before`: it has joined with a version that remembered no commands."""
    state = tmp_path / "rack1"

    async def story(cloud: JoinableCloud, clock: AdvanceableClock) -> None:
        machine, made = membership(state, clock), await cloud.invite("rack1")
        old, new, authority = made["join"], made["join"].replace("127.0.0.1", "localhost"), made["ca_fingerprint"]
        joined = await join(machine, made)
        if of_before:
            is_kept(state, msgspec.structs.replace(joined, commands=()))

        asked: list[str] = []
        fetch = joining._fetch

        async def noted(client: httpx.AsyncClient, method: str, path: str, body: bytes = b"") -> bytes:
            asked.append(str(client.base_url))
            return await fetch(client, method, path, body)

        async def started(url: str, token: str) -> tuple[str, list[str]]:
            """With this command: where its cloud is asked from then on, and what was asked before."""
            found = machine.joined()
            assert found is not None
            asked.clear()
            again = await _join_again(state, machine, found, url, token, authority)
            assert again == machine.joined()
            return again.url, [*asked]

        monkeypatch.setattr(joining, "_fetch", noted)
        unit = made["token"]
        assert await started(old, unit) == (old, [])
        assert await started(new, "by hand") == (new, [new])
        assert await started(old, unit) == (new, []), "nobody waits for it, where nothing answers"
        assert await started(new, "by hand") == (new, [])
        assert await started(old, "by hand, as it moved back") == (old, [old])
        assert await started(new, "by hand") == (old, [])
        assert await started(new, unit) == (new, [new]), "the unit was changed by hand"
        assert await started(old, unit) == (new, [])
        async with agent_of(machine, "first"):
            await until(lambda: cloud.up("rack1"))
        clock.advance(31 * DAY)
        assert machine.has_ended()
        assert await started(old, unit) == (new, []), "then the claim says what to do"

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
