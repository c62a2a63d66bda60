"""A host whose certificate has ended joins again, as who it was, with its servers; nobody else does."""

from __future__ import annotations

import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import msgspec
import pytest

from cumulet.agent import joining
from cumulet.agent.joining import Joined, Membership, Unreachable
from cumulet.bus.nats_connection import SERVER_NAME
from cumulet.ca import CertificateAuthority
from cumulet.cli.program import run
from cumulet.conductor import findings
from cumulet.host.joining import Admitted, KnownKey, Refused, Renew
from cumulet.processes.joined_agent import _join_again
from cumulet.testing import AdvanceableClock, JsonObject
from tests.bus.nats_cloud import needs_nats
from tests.fleet.joined import HOSTS, JoinableCloud, agent_of, driver_of, join, membership, tell, until

pytestmark = needs_nats
DAY = 86_400
SERVERS = "/compute/v2.1/servers"


def told(folder: Path, story: Callable[[JoinableCloud, AdvanceableClock], Awaitable[None]]) -> None:
    clock = AdvanceableClock()
    tell(folder, lambda cloud: story(cloud, clock), clock, token_life_seconds=100 * DAY)


async def server_on(cloud: JoinableCloud, host: str) -> str:
    """The id of a server that runs there."""
    image = (await cloud.ask("GET", "/image/v2/images")).json["images"][0]["id"]
    flavor = (await cloud.ask("GET", "/compute/v2.1/flavors")).json["flavors"][0]["id"]
    body = {"name": "s", "imageRef": image, "flavorRef": flavor, "networks": "none", "host": host}
    made = await cloud.ask("POST", SERVERS, {"server": body})
    found: str = made.json["server"]["id"]

    async def active() -> bool:
        return bool((await server(cloud, found))["status"] == "ACTIVE")

    await until(active)
    return found


async def server(cloud: JoinableCloud, server_id: str) -> JsonObject:
    answer = await cloud.ask("GET", f"{SERVERS}/{server_id}")
    found: JsonObject = answer.json["server"]
    return found


async def down(cloud: JoinableCloud, name: str) -> None:
    async def is_down() -> bool:
        return not await cloud.up(name)

    await until(is_down)


async def ended(cloud: JoinableCloud, clock: AdvanceableClock, state: Path) -> Membership:
    """Of a machine that has joined as rack1, was up, and was then switched off for a month."""
    machine = membership(state, clock)
    await join(machine, await cloud.invite("rack1"))
    async with agent_of(machine, "first"):
        await until(lambda: cloud.up("rack1"))
    clock.advance(31 * DAY)
    await down(cloud, "rack1")
    return machine


def test_a_host_whose_certificate_has_ended_comes_back_with_its_servers(tmp_path: Path) -> None:
    driver = driver_of("rack1")

    async def story(cloud: JoinableCloud, clock: AdvanceableClock) -> None:
        machine = membership(tmp_path / "rack1", clock)
        await join(machine, await cloud.invite("rack1"))
        async with agent_of(machine, "first", driver):
            await until(lambda: cloud.up("rack1"))
            server_id = await server_on(cloud, "rack1")
            before = await server(cloud, server_id)
        shutil.copytree(tmp_path / "rack1", tmp_path / "copy")
        clock.advance(31 * DAY)
        await down(cloud, "rack1")
        with pytest.raises(Refused, match="cumulet host add rack1") as problem:
            await machine.claim("second")
        assert problem.value.refusal.code == "CERTIFICATE_ENDED"
        refused = await cloud.ask("DELETE", f"{HOSTS}/rack1")
        assert (refused.status, "cumulet host add rack1" in refused.message) == (409, True)

        made = await cloud.invite("rack1")
        assert made["joins_again"]
        shown = (await cloud.ask("GET", HOSTS)).json["hosts"][0]
        assert (shown["joins_again"], shown["token_ends_at"]) == (True, made["token_ends_at"])
        found = machine.joined()
        assert found is not None
        again = await _join_again(
            tmp_path / "rack1", machine, found, made["join"], made["token"], made["ca_fingerprint"]
        )
        assert again == machine.joined() == msgspec.structs.replace(found, commands=again.commands)
        assert not (tmp_path / "rack1" / "joining").exists()
        assert not (await cloud.ask("GET", HOSTS)).json["hosts"][0]["joins_again"]
        async with agent_of(machine, "second", driver):
            await until(lambda: cloud.up("rack1"))
            asked = await cloud.ask("POST", f"{SERVERS}/{server_id}/action", {"os-getConsoleOutput": {}})
            assert asked.status == 200, "its host answers for it"
            after = await server(cloud, server_id)
            changing = {"updated"}
            assert {k: v for k, v in after.items() if k not in changing} == {
                k: v for k, v in before.items() if k not in changing
            }
            copy = membership(tmp_path / "copy")  # A clock at which the certificate from before is still good.
            with pytest.raises(Refused, match="rack1 has joined with another key"):
                await joining._ask(copy._own_client(found), "/renew", Renew(request="-"), Admitted)
            assert not await bus_takes(copy, cloud), "the identity in the certificate from before is nobody's"

    told(tmp_path, story)


async def bus_takes(of: Membership, cloud: JoinableCloud) -> bool:
    """Whether its certificate opens the bus."""
    from nats.aio.client import Client
    from nats.errors import Error

    bus = getattr(cloud.cloud.context.door.changed, "__self__")._servers(ours=True)  # type: ignore[union-attr] # noqa: B009
    client = Client()
    try:
        await client.connect(list(bus), tls=of.tls(), tls_hostname=SERVER_NAME, allow_reconnect=False)
    except Error:
        return False
    await client.close()
    return True


def test_only_who_has_the_key_joins_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(cloud: JoinableCloud, clock: AdvanceableClock) -> None:
        machine = await ended(cloud, clock, tmp_path / "rack1")
        other = membership(tmp_path / "rack2", clock)
        await join(other, await cloud.invite("rack2"))
        made = await cloud.invite("rack1")
        for thief in (membership(tmp_path / "new", clock), other):
            with pytest.raises(Refused, match=r"a key that is not here: .* if that is lost, .*down rack1") as refused:
                await join(thief, made)
            assert "`openstack server evacuate`), run `cumulet host remove rack1`, and join anew" in str(refused.value)
            assert refused.value.refusal.code == "OTHER_KEY"
        assert not (tmp_path / "new").exists()

        def shows_it_without_having_it(token: str, request: str) -> KnownKey | None:
            known = machine._known("another token", request)
            assert known is not None
            return known

        with monkeypatch.context() as patched:
            patched.setattr(other, "_known", shows_it_without_having_it)
            with pytest.raises(Refused, match="not signed with the key that is shown"):
                await join(other, made)
        with pytest.raises(Refused, match="belongs to another host than rack3"):
            await join(machine, await cloud.invite("rack3"))
        await join(machine, made)
        async with agent_of(machine, "second"):
            await until(lambda: cloud.up("rack1"))

    told(tmp_path, story)


def test_a_machine_that_is_another_host_by_its_own_records_stays_as_it_is(tmp_path: Path) -> None:
    async def story(cloud: JoinableCloud, clock: AdvanceableClock) -> None:
        machine = await ended(cloud, clock, tmp_path / "rack1")
        joined, found = tmp_path / "rack1" / "joined.json", machine.joined()
        assert found is not None
        renamed = msgspec.json.encode(msgspec.structs.replace(found, name="rack0"))
        joined.write_bytes(renamed)
        with pytest.raises(Refused, match="takes this machine for rack1, but it is rack0"):
            await join(machine, await cloud.invite("rack1"))
        assert joined.read_bytes() == renamed

    told(tmp_path, story)


def test_wrong_used_and_expired_tokens_stay_refused_and_another_one_helps(tmp_path: Path) -> None:
    async def story(cloud: JoinableCloud, clock: AdvanceableClock) -> None:
        machine = await ended(cloud, clock, tmp_path / "rack1")
        shutil.copytree(tmp_path / "rack1", tmp_path / "copy")
        made = await cloud.invite("rack1")
        with pytest.raises(Refused, match="not one of the cloud's"):
            await join(machine, made | {"token": "x" * 43})
        clock.advance(15 * 60 + 1)
        with pytest.raises(Refused, match="older than 15 minutes"):
            await join(machine, made)
        made = await cloud.invite("rack1")
        await join(machine, made)
        with pytest.raises(Refused, match="good once"):
            await join(membership(tmp_path / "copy", clock), made)
        async with agent_of(machine, "second"):
            await until(lambda: cloud.up("rack1"))

    told(tmp_path, story)


def test_a_host_that_runs_does_not_join_again_elsewhere(tmp_path: Path) -> None:
    """The token was made while it was down."""

    async def story(cloud: JoinableCloud, clock: AdvanceableClock) -> None:
        machine = membership(tmp_path / "rack1", clock)
        await join(machine, await cloud.invite("rack1"))
        shutil.copytree(tmp_path / "rack1", tmp_path / "copy")
        clock.advance(1)
        made = await cloud.invite("rack1")
        async with agent_of(machine, "first"):
            with pytest.raises(Refused, match="rack1 runs, on this or another machine"):
                await join(membership(tmp_path / "copy", clock), made)
            noted = await cloud.cloud.db.read_async(findings.newest)
            assert ("rack1", "same-identity-twice") in {(row.host, row.finding) for row in noted}
            await until(lambda: cloud.up("rack1"))

    told(tmp_path, story)


def test_a_state_folder_that_was_moved_joins_again_on_its_new_machine_once_the_host_is_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(cloud: JoinableCloud, clock: AdvanceableClock) -> None:
        state = tmp_path / "rack1"
        machine = membership(state, clock)
        joined = await join(machine, await cloud.invite("rack1"))
        clock.advance(1)
        made = await cloud.invite("rack1")  # As while it is down.
        async with agent_of(machine, "first"):
            await until(lambda: cloud.up("rack1"))
        shutil.copytree(state, tmp_path / "kept")
        monkeypatch.setattr(joining, "machine_id", lambda: "another:machine")
        command = (state, machine, joined, made["join"], made["token"], made["ca_fingerprint"])
        with pytest.raises(Refused, match="was heard a moment ago on another machine"):
            await _join_again(*command)
        await down(cloud, "rack1")
        with pytest.raises(Refused, match=r"state folder is that of rack1 .* run `cumulet host add rack1`"):
            await machine.claim("second")
        assert (await _join_again(*command)).machine == "another:machine"
        async with agent_of(machine, "third"):
            await until(lambda: cloud.up("rack1"))
        monkeypatch.undo()
        with pytest.raises(Refused, match=r"from another machine, .* save what you need of their disks") as refused:
            await membership(tmp_path / "kept", clock).claim("fourth")
        assert refused.value.refusal.code == "OTHER_MEMBER"

    told(tmp_path, story)


def test_a_lost_answer_does_not_lock_a_host_out_even_if_its_token_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(cloud: JoinableCloud, clock: AdvanceableClock) -> None:
        machine, fetch = await ended(cloud, clock, tmp_path / "rack1"), joining._fetch
        made = await cloud.invite("rack1")

        async def lost(client: httpx.AsyncClient, method: str, path: str, body: bytes = b"") -> bytes:
            answer = await fetch(client, method, path, body)
            if path == "/join":
                raise Unreachable("cut off")
            return answer

        with monkeypatch.context() as patched:
            patched.setattr(joining, "_fetch", lost)
            with pytest.raises(Unreachable):
                await join(machine, made)
        clock.advance(15 * 60 + 1)
        with pytest.raises(Refused, match="older than 15 minutes"):
            await join(machine, made)
        await join(machine, await cloud.invite("rack1"))
        async with agent_of(machine, "second"):
            await until(lambda: cloud.up("rack1"))

    told(tmp_path, story)


def test_the_command_joins_again_only_where_the_certificate_has_ended(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = tmp_path / "rack1"
    state.mkdir()
    long_ago = AdvanceableClock()
    long_ago._returned_us = 40 * DAY * 1_000_000
    authority = CertificateAuthority.load_or_create(tmp_path / "ca", long_ago)
    request = joining._request(state / "bus")
    signed = authority.sign_joined("rack1", "cumulet://host/rack1/1", request.encode())
    (state / "bus" / "client-cert.pem").write_bytes(signed)
    shutil.copy(authority.certificate_file, state / "bus" / "ca-cert.pem")
    url = "https://127.0.0.1:1"
    known = Joined(url=url, ca_fingerprint=authority.fingerprint, name="rack1", machine="m")
    (state / "joined.json").write_bytes(msgspec.json.encode(known))
    alone = ["agent", "--no-networks", "--state", str(state)]
    assert run(alone) == 1
    assert "run `cumulet host add rack1` where the cloud runs" in capsys.readouterr().err
    assert run([*alone, "--join", url, "--token", "x" * 43, "--ca-fingerprint", authority.fingerprint]) == 1
    assert f"nothing answers at {url}" in capsys.readouterr().err
