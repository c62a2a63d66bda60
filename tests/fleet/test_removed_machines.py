"""A machine that is taken away: what is said there and at the cloud names its folder, and what may still run."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from cumulet.cli.program import run
from cumulet.host.joining import Refused
from cumulet.processes.joined_agent import JoinedPlace, NoHost, run_joined_agent
from cumulet.testing import JsonObject
from tests.bus.nats_cloud import needs_nats
from tests.fleet.joined import HOSTS, JoinableCloud, agent_of, join, membership, tell, until

pytestmark = needs_nats


async def removed(cloud: JoinableCloud, name: str) -> int:
    file = str(cloud.cloud.settings.state_dir / "clouds.yaml")
    return await asyncio.to_thread(run, ["host", "remove", name, "--clouds-file", file])


def test_a_removed_machine_is_told_which_folder_is_in_the_way(tmp_path: Path) -> None:
    async def story(cloud: JoinableCloud) -> None:
        state = tmp_path / "rack1"
        await join(membership(state), await cloud.invite("rack1"))
        assert (await cloud.ask("DELETE", f"{HOSTS}/rack1")).status == 204
        made = await cloud.invite("rack1")
        alone = JoinedPlace(state=state, wire_guests=False)
        command = {"url": made["join"], "token": made["token"], "ca_fingerprint": made["ca_fingerprint"]}
        for place in (alone, msgspec.structs.replace(alone, **command)):
            with pytest.raises(NoHost, match="was removed, or the cloud was restored from a backup") as told:
                await run_joined_agent(place)
            said = str(told.value)
            assert f"cumulet host clean --state {state}`, and remove {state}; then" in said
            assert said.index("save what you need") < said.index(f"{state}/qemu/guests/") < said.index("host clean")

    tell(tmp_path, story)


def test_whoever_removes_a_host_that_has_not_joined_is_told_that_its_token_is_void(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def story(cloud: JoinableCloud) -> None:
        made = await cloud.invite("rack1")
        capsys.readouterr()
        assert await removed(cloud, "rack1") == 0
        assert capsys.readouterr().err == (
            "rack1 had not joined: its token is void now, and there is no machine to clean\n"
        )
        with pytest.raises(Refused, match="not one of the cloud's"):
            await join(membership(tmp_path / "rack1"), made)

    tell(tmp_path, story)


@pytest.mark.parametrize("verb", ["add", "remove"])
@pytest.mark.parametrize("name", ["", "a/b", "RACK1", "-a", "a-", "a" * 64, "a\n", "r\u0663", "."])
def test_what_is_no_name_of_a_host_is_a_sentence(verb: str, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["host", verb, "--", name]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "is no name of a host: it has lower-case letters, digits and hyphens, 1 to 63 of them" in said
    assert "[a-z" not in said


def test_whoever_removes_a_host_that_is_down_is_told_that_guests_may_run_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def story(cloud: JoinableCloud) -> None:
        for name in ("rack1", "rack2"):
            await join(membership(tmp_path / name), await cloud.invite(name))
        async with agent_of(membership(tmp_path / "rack2"), "second"):
            async with agent_of(membership(tmp_path / "rack1"), "first"):
                for name in ("rack1", "rack2"):
                    while not await cloud.up(name):
                        pass
            while await cloud.up("rack1"):
                pass
            said = []
            for name in ("rack1", "rack2"):
                capsys.readouterr()
                assert await removed(cloud, name) == 0
                said.append(" ".join(capsys.readouterr().err.split()))
        assert "it was down, so guests that were deleted meanwhile may still run there" in said[0]
        assert "was down" not in said[1]
        for words in said:
            assert "`cumulet host clean --state /var/lib/cumulet-host`" in words

    tell(tmp_path, story)


def test_a_removed_host_is_in_no_aggregate_and_one_that_joins_anew_under_its_name_neither(tmp_path: Path) -> None:
    async def story(cloud: JoinableCloud) -> None:
        async def aggregate(method: str, path: str = "", body: object | None = None) -> JsonObject:
            answer = await cloud.ask(method, f"/compute/v2.1/os-aggregates{path}", body)
            assert answer.status == 200, answer.text
            shown: JsonObject = answer.json["aggregate"] if answer.text else {}
            return shown

        async def zone() -> str:
            found = (await cloud.ask("GET", "/compute/v2.1/os-services?host=rack1")).json["services"]
            return str(found[0]["zone"])

        path = f"/{(await aggregate('POST', body={'aggregate': {'name': 'a', 'availability_zone': 'z'}}))['id']}"
        await join(membership(tmp_path / "first"), await cloud.invite("rack1"))
        async with agent_of(membership(tmp_path / "first"), "first"):
            await until(lambda: cloud.up("rack1"))
            await aggregate("POST", f"{path}/action", {"add_host": {"host": "rack1"}})
            assert await zone() == "z"
        assert (await cloud.ask("DELETE", f"{HOSTS}/rack1")).status == 204
        assert (await aggregate("GET", path))["hosts"] == []
        await join(membership(tmp_path / "second"), await cloud.invite("rack1"))
        async with agent_of(membership(tmp_path / "second"), "second"):
            await until(lambda: cloud.up("rack1"))
            assert (await aggregate("GET", path))["hosts"] == []
            assert await zone() == "nova"
            await aggregate("DELETE", path)

    tell(tmp_path, story)


def test_a_host_is_not_removed_while_placement_has_what_hangs_on_it(tmp_path: Path) -> None:
    """Allocations of an administrator's own, and child providers: no server's, and gone before the host is."""
    consumer = "5a0ff4ee-0b9c-4b3a-9d1d-6d3b7a0d7f5e"
    child = "0b9c5a0f-f4ee-4b3a-9d1d-6d3b7a0d7f5e"

    async def story(cloud: JoinableCloud) -> None:
        await join(membership(tmp_path / "rack1"), await cloud.invite("rack1"))
        async with agent_of(membership(tmp_path / "rack1"), "first"):
            await until(lambda: cloud.up("rack1"))
        providers = (await cloud.ask("GET", "/placement/resource_providers?name=rack1")).json["resource_providers"]
        provider = providers[0]["uuid"]
        allocation = {
            "allocations": {provider: {"resources": {"VCPU": 1}}},
            "project_id": "p",
            "user_id": "u",
            "consumer_generation": None,
            "consumer_type": "RESERVED",
        }
        new = {"name": "child", "uuid": child, "parent_provider_uuid": provider}
        for method, path, body, words in (
            (
                "PUT",
                f"/placement/allocations/{consumer}",
                allocation,
                "has allocations in placement that are no server",
            ),
            ("POST", "/placement/resource_providers", new, "has child resource providers in placement"),
        ):
            made = await cloud.ask(method, path, body)
            assert made.status < 300, made.text
            refused = await cloud.ask("DELETE", f"{HOSTS}/rack1")
            assert refused.status == 409
            assert words in refused.message
            there = path if method == "PUT" else f"{path}/{child}"
            assert (await cloud.ask("DELETE", there)).status == 204
        assert (await cloud.ask("DELETE", f"{HOSTS}/rack1")).status == 204

    tell(tmp_path, story)
