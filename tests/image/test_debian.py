"""What building an image of Debian refuses, and what is on a disk that it makes. A whole one: `make debian`."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import tarfile
from pathlib import Path

import pytest

from cumulet import rootless
from cumulet.image import debian
from tests.cli.conftest import cumulet

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to others")
needs_mke2fs = pytest.mark.skipif(
    shutil.which("mke2fs", path="/usr/sbin:/sbin:/usr/bin") is None, reason="e2fsprogs is not installed"
)


@pytest.mark.parametrize(
    ("arguments", "words", "status"),
    [
        (("gentoo",), "'gentoo' is not 'debian'", 2),
        (("debian", "--output", "{there}"), "is there already", 2),
        (("debian", "--output", "{folder}/no/such/debian.qcow2"), "there is no folder", 1),
        (("debian", "--output", "{folder}/new", "--package", "vim; reboot"), "'vim; reboot' is no package's name", 2),
        (("debian", "--output", "{folder}/new", "--mirror", "file:///etc"), "is no address of a mirror", 2),
    ],
)
def test_what_cannot_be_built_is_refused_at_once(
    tmp_path: Path, arguments: tuple[str, ...], words: str, status: int
) -> None:
    there = tmp_path / "there"
    there.write_text("an image")
    filled = [argument.format(there=there, folder=tmp_path) for argument in arguments]
    done = cumulet("image", "build", *filled)
    assert (done.status, words in done.err) == (status, True), done.err
    assert there.read_text() == "an image"
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_a_missing_cloud_is_reported_before_anything_is_built(tmp_path: Path) -> None:
    nowhere = ("--clouds-file", str(tmp_path / "clouds.yaml"))
    done = cumulet("image", "build", "debian", "--output", str(tmp_path / "new"), "--upload", "debian", *nowhere)
    assert (done.status, "start a cloud" in done.err) == (1, True), done.err
    assert not list(tmp_path.iterdir())


def test_missing_tools_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    reason = debian.problem() or ""
    assert "mmdebstrap" in reason
    assert "grub-pc-bin" in reason
    with pytest.raises(debian.CannotBuild, match="mmdebstrap"):
        debian.build(tmp_path / "new")


def test_without_root_building_needs_subordinate_ids(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in ("mmdebstrap", "mke2fs", "tar", "qemu-img", "grub-mkimage", "newuidmap"):
        (tools / tool).touch(mode=0o755)
    (tmp_path / "boot.img").touch()
    monkeypatch.setattr(debian, "_GRUB", tmp_path)
    monkeypatch.setenv("PATH", str(tools))
    assert debian.problem() is None, "root needs none"
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr(rootless, "subordinate", lambda _: (100_000, 1_000))
    assert "65535 users" in (debian.problem() or "")
    monkeypatch.setattr(rootless, "subordinate", lambda _: (100_000, 65_536))
    assert debian.problem() is None


def test_too_little_room_is_reported_before_it_is_filled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(debian, "problem", lambda: None)
    monkeypatch.setattr(debian, "ROOM_BYTES", 1 << 60)
    with pytest.raises(debian.CannotBuild, match="GiB free"):
        debian.build(tmp_path / "new")
    assert not list(tmp_path.iterdir())


def test_boot_sectors_have_one_partition_whatever_was_there() -> None:
    boot, core = bytes([0xEB]) * 512, b"core" * 256
    sectors = debian.boot_sectors(boot, core, 4096)
    assert sectors[:446] == boot[:446]
    status, kind, first, count = struct.unpack("<B3xB3xII", sectors[446:462])
    assert (status, kind, first, count) == (0x80, 0x83, 2048, 2048)
    assert sectors[462:512] == bytes(48) + b"\x55\xaa"
    assert sectors[512:] == core
    with pytest.raises(debian.CannotBuild, match="does not fit"):
        debian.boot_sectors(boot, bytes(2048 * 512), 4096)


@needs_root
@needs_mke2fs
def test_a_disk_has_the_archives_files_with_their_owners(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "root.tar", "w") as archive:
        for name, kind, owner in (("./dev/null", tarfile.CHRTYPE, 0), ("./etc/name", tarfile.REGTYPE, 70_123)):
            entry = tarfile.TarInfo(name)
            entry.type, entry.uid, entry.gid, entry.mode = kind, owner, owner, 0o640
            archive.addfile(entry)
    debian.pack(tmp_path, size_bytes=16 << 20)
    assert not (tmp_path / "root").exists()
    partition = tmp_path / "partition"
    partition.write_bytes((tmp_path / "disk.raw").read_bytes()[2048 * 512 :])

    def asked(command: str) -> str:
        line = ["/usr/sbin/debugfs", "-R", command, str(partition)]
        return subprocess.run(line, capture_output=True, text=True, check=True).stdout

    assert "User: 70123   Group: 70123" in " ".join(asked("stat /etc/name").replace(":  ", ": ").splitlines())
    assert "Mode:  0640" in asked("stat /etc/name")
    assert "null" not in asked("ls /dev"), "devices are the kernel's"
    assert "Filesystem volume name:   root" in asked("show_super_stats -h")


def test_a_tool_that_hangs_is_waited_for_no_longer_than_is_said() -> None:
    with pytest.raises(debian.CannotBuild, match=r"sleep took longer than 0\.1 s"):
        debian._run(["sleep", "60"], seconds=0.1)
