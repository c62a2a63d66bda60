"""A host belongs to the machine on which it joined: copies of its state folder are refused, and noted."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from cumulet.agent import joining, machine_names
from cumulet.agent.joining import Membership
from cumulet.clock import SystemClock
from cumulet.conductor import findings
from cumulet.host.joining import Refused, same_machine, same_network
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
    patched.setattr(machine_names, "MACHINE_ID", folder / "machine-id")
    patched.setattr(machine_names, "BOARD", folder / "board")
    patched.setattr(machine_names, "_has_first_host_names", lambda: not contained)
    patched.setattr("os.uname", lambda: SimpleNamespace(nodename=host_name))
    found = machine_names.machine_id()
    patched.undo()
    return found


BOARD = "4c4c4544-0042-3510-8052-b3c04f4b4e32"
ANOTHER = "4c4c4544-0042-3510-8052-b3c04f4b4e33"


def test_a_machine_is_itself_under_another_host_name_and_a_clone_or_a_container_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def machine(host_name: str = "a", *, made: str = "m", board: str | None = BOARD, contained: bool = False) -> str:
        return _machine(tmp_path / "etc", monkeypatch, host_name, made=made, board=board, contained=contained)

    here = machine()
    assert same_machine(here, machine("renamed"))
    assert same_machine(here.split(":")[0], here), "of an agent of before"
    assert not same_machine(here, machine(board=ANOTHER)), "a clone of its disk"
    assert not same_machine(here, machine(made="another"))
    container = machine("a", contained=True)
    assert same_machine(container, machine("a", contained=True))
    assert not same_machine(container, machine("c", contained=True)), "two containers of one machine"
    assert not same_machine(machine(board=None), machine("c", board=None)), "all that differs"
    assert max(len(f"{one}@{2**32 - 1}") for one in (here, container)) <= 128, "as the message and the table have it"


@pytest.mark.parametrize(
    "board",
    [
        *sorted(machine_names._NO_BOARDS),
        "03000200-0400-0500-0006-000700080009".upper(),
        "00000000-0000-0000-0000-000000000000",
        "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF",
        "fefefefe-fefe-fefe-fefe-fefefefefefe",
        "",
        None,
    ],
)
def test_what_vendors_leave_in_many_boards_tells_no_machines_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, board: str | None
) -> None:
    """Two of a series, with clones of one disk, differ by their host names alone."""

    def machine(host_name: str, *, made: str = "m", board: str | None = board) -> str:
        return _machine(tmp_path / "etc", monkeypatch, host_name, made=made, board=board)

    assert same_machine(machine("a"), machine("a"))
    assert not same_machine(machine("a"), machine("b"))
    assert not same_network(f"{machine('a')}@4026531840", f"{machine('b')}@4026531840"), "both may join"
    assert not same_machine(machine("a"), machine("a", made="another"))
    of_before = machine_names.digest("cumulet", "a", "m", board)
    assert machine("a").split(":")[0] == of_before, "agents and clouds of before know this one only"


@pytest.mark.parametrize("contained", [False, True])
def test_a_machine_is_itself_also_where_its_board_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, contained: bool
) -> None:
    """Root reads it. The agent may be started as root once, and as another user then."""

    def machine(host_name: str = "a", *, made: str = "m", board: str | None = BOARD) -> str:
        return _machine(tmp_path / "etc", monkeypatch, host_name, made=made, board=board, contained=contained)

    as_root, as_another = machine(), machine(board=None)
    assert same_machine(as_root, as_another)
    assert same_machine(as_another, as_root)
    assert same_network(f"{as_root}@1", f"{as_another}@1")
    for other in (machine("b", board=None), machine(made="another", board=None)):
        assert not same_machine(as_root, other)
        assert not same_machine(other, as_root)
    assert not same_machine(as_root, machine(board=ANOTHER)), "root sees that they differ"
