"""Nothing the agent does below a folder that a guest's user may write follows a link, and no other file does it."""

from __future__ import annotations

import ast
import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cumulet.confined import user_ids, users
from cumulet.drivers import qemu
from cumulet.drivers.qemu import guest_files, sandbox
from cumulet.drivers.qemu.record import GuestFolder
from cumulet.drivers.qemu.sandbox import Sandbox
from cumulet.host.driver import DriverError

SERVER = "00000000-0000-4000-8000-000000000001"
SOURCES = Path(qemu.__file__).parent
HANDED_TO_THE_JAIL = {"sandbox.py": 2, "disks.py": 1}
"""Where the folder's own path (never one below it) is handed on: what is bound for QEMU and for qemu-img."""


@pytest.fixture
def folder(tmp_path: Path) -> GuestFolder:
    made = GuestFolder(tmp_path / "guests", SERVER)
    made.path.mkdir(parents=True)
    made.make()
    return made


def test_only_one_file_goes_below_a_guest_s_folder() -> None:
    for source in SOURCES.glob("*.py"):
        tree = ast.parse(source.read_text())
        used = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr == "vm"]
        if source.name not in ("guest_files.py", "record.py"):
            assert len(used) == HANDED_TO_THE_JAIL.get(source.name, 0), source.name
        below = [n for n in ast.walk(tree) if isinstance(n, ast.BinOp) and n.left in used]
        assert not below, source.name


def test_guest_files_opens_nothing_by_a_path_below_the_folder() -> None:
    tree = ast.parse((SOURCES / "guest_files.py").read_text())
    calls = [n for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute)]
    for call in calls:
        name = ast.unparse(call.func)
        given = {keyword.arg for keyword in call.keywords}
        if name in ("os.mkdir", "os.unlink", "os.stat", "shutil.rmtree"):
            assert "dir_fd" in given, ast.unparse(call)
        elif name == "os.replace":
            assert {"src_dir_fd", "dst_dir_fd"} <= given
        elif name == "os.open":
            assert "dir_fd" in given or ast.unparse(call.args[0]) == "folder.vm"
        else:
            assert name in (
                "os.fchown",
                "os.close",
                "os.fstat",
                "stat.S_ISDIR",
                "stat.S_ISREG",
                "secrets.token_hex",
                "file.write",
                "file.fileno",
                "files.items",
            ), name


@pytest.mark.parametrize("name", [guest_files.DISK, guest_files.CONFIG_DRIVE, "tls", ".config.iso.new"])
def test_a_link_in_the_place_of_a_file_leads_nowhere(folder: GuestFolder, tmp_path: Path, name: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("precious")
    for target in (outside, outside / "file"):
        (folder.vm / name).symlink_to(target)
        seen = guest_files.look(folder, name)
        assert seen is not None
        assert os.path.islink(folder.vm / name)
        assert seen.st_ino == os.lstat(folder.vm / name).st_ino
        guest_files.write_folder(folder, name, {"key": b"secret"}, uid=None)
        assert (folder.vm / name / "key").read_bytes() == b"secret"
        guest_files.remove_folder(folder, name)
        (folder.vm / name).symlink_to(target)
        guest_files.write(folder, name, b"new", mode=0o400, uid=None)
        assert (folder.vm / name).read_bytes() == b"new"
        assert not os.path.islink(folder.vm / name)
        guest_files.remove(folder, name)
        (folder.vm / name).symlink_to(target)
        guest_files.remove_folder(folder, name)
        assert guest_files.look(folder, name) is None
    assert sorted(path.name for path in outside.iterdir()) == ["file"]
    assert (outside / "file").read_text() == "precious"


def test_a_folder_that_is_a_link_is_not_entered(folder: GuestFolder, tmp_path: Path) -> None:
    folder.vm.rmdir()
    folder.vm.symlink_to(tmp_path)
    with pytest.raises(OSError, match=r"Not a directory|Too many levels"):
        guest_files.write(folder, "file", b"", mode=0o600, uid=None)
    assert not (tmp_path / "file").exists()


def test_no_two_guests_get_one_user_however_many_ask_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(users, "IN_USE", tmp_path / "uids")
    (tmp_path / "uids").mkdir()
    for uid in range(70_000, 70_020):
        (tmp_path / "uids" / str(uid)).write_text(str(tmp_path / "gone"))  # each of them free, at the same moment
    owners = [tmp_path / f"owner{n}" for n in range(24)]
    for owner in owners:
        owner.mkdir()

    def take(owner: Path) -> int | None:
        return Sandbox(host="h", as_root=True, uids=range(70_000, 70_025)).take_uid(owner)

    with ThreadPoolExecutor(12) as pool:
        taken = list(pool.map(take, owners))
    assert sorted(uid for uid in taken if uid is not None) == list(range(70_000, 70_024))
    with pytest.raises(DriverError, match="UIDS_EXHAUSTED"):
        take(tmp_path / "one more")


def test_a_user_that_the_machine_knows_is_given_to_no_guest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(users, "IN_USE", tmp_path / "uids")
    monkeypatch.setattr(user_ids, "known", lambda uid: uid == 70_000)
    (tmp_path / "owner").mkdir()
    assert Sandbox(host="h", as_root=True, uids=range(70_000, 70_003)).take_uid(tmp_path / "owner") == 70_001


@pytest.mark.parametrize(
    "uids",
    [
        range(61_000, 65_000),
        range(61_184, 61_190),
        range(60_000, 60_010),
        range(65_500, 65_600),
        range(500, 900),
        range(1_000, 1_010),
        range(60_001, 60_010),
        range(600_000, 600_100),
        range(70_000, 70_001),
    ],
)
def test_users_that_somebody_else_gives_out_are_refused(uids: range) -> None:
    assert user_ids.problem(uids) is not None


def test_users_of_others_containers_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_ids, "SUBORDINATE", tmp_path / "subuid")
    assert user_ids.problem(sandbox.UIDS) is None
    (tmp_path / "subuid").write_text("somebody:73999:10\n")
    assert "somebody" in (user_ids.problem(sandbox.UIDS) or "")


def test_what_the_machine_calls_by_name_is_known() -> None:
    assert user_ids.known(0)
    assert not user_ids.known(71_234)


def test_users_that_a_container_has_not_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(user_ids, "UID_MAP", tmp_path / "uid_map")
    (tmp_path / "uid_map").write_text("         0     100000      65536\n")
    assert "this user namespace has no" in (user_ids.problem(sandbox.UIDS) or "")
    assert user_ids.problem(range(60_706, 61_184)) is None


def test_guests_are_never_the_machines_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without users of their own they are who we are: in a user namespace that is somebody else."""
    without = Sandbox(host="h", as_root=True, uids=range(0))
    assert without.take_uid(tmp_path / "owner") is None
    for line, ours in (("0 0 4294967295", True), ("0 1000 1", False)):
        (tmp_path / "map").write_text(f"{line}\n")
        monkeypatch.setattr(user_ids, "UID_MAP", tmp_path / "map")
        assert user_ids.are_the_machines_own() is ours
    (tmp_path / "map").write_text("0 0 4294967295\n")
    with pytest.raises(DriverError, match="UIDS: guests would run as root"):
        asyncio.run(without.probe())


def test_a_group_that_has_no_number_here_is_kept_not_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "map").write_text("0 1000 1\n")
    monkeypatch.setattr(user_ids, "GID_MAP", tmp_path / "map")
    assert user_ids.usable_groups([0, 0]) == [0]
    assert user_ids.usable_groups([0, 65_534]) is None
    assert user_ids.usable_groups([]) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to others")
@pytest.mark.parametrize("uid", [None, 70_000])
def test_what_is_put_there_is_its_guests_alone(folder: GuestFolder, uid: int | None) -> None:
    """Without a user of its own a guest runs as the agent."""
    guest_files.hand_over(folder, uid)
    guest_files.write(folder, "plain", b"", mode=0o400, uid=uid)
    guest_files.write_folder(folder, "tls", {"key": b""}, uid=uid)
    owner = os.geteuid() if uid is None else uid
    for path, mode in (
        (folder.vm, None),
        (folder.vm / "plain", 0o400),
        (folder.vm / "tls", 0o700),
        (folder.vm / "tls" / "key", 0o600),
    ):
        seen = path.stat()
        assert (seen.st_uid, seen.st_gid) == (owner, owner if uid is not None else os.getegid())
        assert mode is None or seen.st_mode & 0o777 == mode, path
