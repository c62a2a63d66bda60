"""A host belongs to the machine on which it joined: copies of its state folder are refused, and noted."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from cumulet.agent import joining
from cumulet.agent.joining import Membership
from cumulet.clock import SystemClock
from cumulet.conductor import findings
from cumulet.host.joining import Refused, same_machine
from tests.bus.nats_cloud import needs_nats
from tests.fleet.joined import JoinableCloud, agent_of, join, membership, tell, until

pytestmark = needs_nats


def test_a_copied_machine_is_noticed_and_refused_while_the_other_one_runs(tmp_path: Path) -> None:
    async def story(cloud: JoinableCloud) -> None:
        machine = membership(tmp_path / "rack1")
        await join(machine, await cloud.invite("rack1"))
        shutil.copytree(tmp_path / "rack1", tmp_path / "copy")
        copy = membership(tmp_path / "copy")
        async with agent_of(machine, "first"):
            with pytest.raises(Refused, match="one of the two seems to be a copy"):
                await copy.claim("second")
            assert await twice(cloud) == {("rack1", "the agent at 127.0.0.1 was refused: another one answers")}
            await machine.claim("first")  # Itself it may ask again.
        async with agent_of(copy, "second"):
            with pytest.raises(Refused, match="remove neither state folder before you know"):
                await machine.claim("third")

    tell(tmp_path, story)


async def twice(cloud: JoinableCloud) -> set[tuple[str, str]]:
    noted = await cloud.cloud.db.read_async(findings.newest)
    return {(row.host, row.done) for row in noted if row.finding == "same-identity-twice"}


def test_a_copy_on_another_machine_is_refused_while_the_agent_is_away_and_the_original_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(cloud: JoinableCloud) -> None:
        machine = membership(tmp_path / "rack1")
        await join(machine, await cloud.invite("rack1"))
        async with agent_of(machine, "first"):
            await until(lambda: cloud.up("rack1"))
        shutil.copytree(tmp_path / "rack1", tmp_path / "copy")
        with monkeypatch.context() as other_machine:
            other_machine.setattr(joining, "machine_id", lambda: "another:machine")
            with pytest.raises(Refused, match="if rack1 is still there, leave it as it is") as refused:
                await membership(tmp_path / "copy").claim("second")
            assert refused.value.refusal.code == "OTHER_MACHINE"
            assert not refused.value.refusal.again
            await machine.claim("first")  # It runs on: its host name may have changed meanwhile.
        assert await twice(cloud) == {("rack1", "the agent at 127.0.0.1 was refused: it is on another machine")}
        async with agent_of(machine, "third"):
            await until(lambda: cloud.up("rack1"))

    tell(tmp_path, story)


def test_a_machine_that_is_a_host_of_the_cloud_joins_as_no_second_one_and_the_token_stays_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wires(name: str) -> Membership:
        return Membership(tmp_path / name, SystemClock(), driver="simulated", wires=True)

    async def story(cloud: JoinableCloud) -> None:
        await join(wires("rack1"), await cloud.invite("rack1"))
        made = await cloud.invite("rack2")
        with pytest.raises(Refused, match="this machine is the host rack1 of this cloud already") as refused:
            await join(wires("rack2"), made)
        assert refused.value.refusal.code == "MACHINE_TAKEN"
        assert "`cumulet host remove rack1`, and then run this again" in str(refused.value)
        assert not (tmp_path / "rack2").exists()
        with monkeypatch.context() as another_network:
            another_network.setattr(joining, "own_number", lambda: 1)
            assert (await join(wires("rack2"), made)).name == "rack2"
        await join(membership(tmp_path / "rack3"), await cloud.invite("rack3"))  # It makes no network.
        await wires("rack1").claim("first")

    tell(tmp_path, story)


def _machine(
    folder: Path, patched: pytest.MonkeyPatch, host_name: str, *, made: str, board: str | None, contained: bool = False
) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "machine-id").write_text(made)
    (folder / "board").unlink(missing_ok=True)
    if board is not None:
        (folder / "board").write_text(board)
    patched.setattr(joining, "MACHINE_ID", folder / "machine-id")
    patched.setattr(joining, "BOARD", folder / "board")
    patched.setattr(joining, "_has_first_host_names", lambda: not contained)
    patched.setattr("os.uname", lambda: SimpleNamespace(nodename=host_name))
    found = joining.machine_id()
    patched.undo()
    return found


def test_a_machine_is_itself_under_another_host_name_and_a_clone_or_a_container_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def machine(host_name: str = "a", *, made: str = "m", board: str | None = "b", contained: bool = False) -> str:
        return _machine(tmp_path / "etc", monkeypatch, host_name, made=made, board=board, contained=contained)

    here = machine()
    assert same_machine(here, machine("renamed"))
    assert same_machine(here.split(":")[0], here), "of an agent of before"
    assert not same_machine(here, machine(board="another")), "a clone of its disk"
    assert not same_machine(here, machine(made="another"))
    container = machine("a", contained=True)
    assert same_machine(container, machine("a", contained=True))
    assert not same_machine(container, machine("c", contained=True)), "two containers of one machine"
    assert not same_machine(machine(board=None), machine("c", board=None)), "all that differs"
    assert max(map(len, (here, container))) <= 128, "as the message and the table have it"
