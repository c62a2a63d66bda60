"""Where the tiny image cannot be built, one sentence says why, and nothing is left in the cache."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from cumulet.image import tiny, tiny_ssh

TOOLS = {
    "apt-cache": """
case "$3" in
    linux-image-cloud-amd64) echo "Depends: linux-image-6.1" ;;
    *) for name in "${@:3}"; do echo "Package: $name"; echo "Version: 1"; done ;;
esac""",
    "apt-get": 'touch "${3%=*}.deb"',
    "dpkg": f'''
mkdir -p "$3/boot" "$3/bin" "$3/lib/modules/6.1/kernel/fs/fat" "$3/usr/lib" "$3/usr/share/doc/dropbear-bin"
touch "$3/boot/vmlinuz-6.1" "$3/bin/busybox" "$3/lib/modules/6.1/kernel/fs/fat/fat.ko"
for name in {" ".join(tiny_ssh.BINARIES)}; do echo "$name" > "$3/usr/lib/$name"; done
echo "Copyright: its authors" > "$3/usr/share/doc/dropbear-bin/copyright"''',
    "mformat": "true",
    "mcopy": "true",
    "syslinux": "true",
    "qemu-img": 'touch "${@: -1}"',
}
"""Stand-ins for what builds the image: they leave the files, and no content."""


def tool(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/bash\n{script}\n")
    path.chmod(0o755)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, script in TOOLS.items():
        tool(folder, name, script)
    for name in ("bash", "touch", "mkdir", "sleep", "rm"):
        (folder / name).symlink_to(Path("/bin") / name)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folder


def left(tmp_path: Path) -> list[str]:
    return [path.name for path in (tmp_path / "cache").rglob("*") if path.is_file() and path.name != "lock"]


def test_it_is_built_where_all_goes_well(programs: Path, tmp_path: Path) -> None:
    assert tiny.available() is None
    assert tiny.build().exists()
    assert len(left(tmp_path)) == 1


def test_an_older_image_is_not_used_by_another_recipe(
    programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = tiny.build()
    monkeypatch.setattr(tiny_ssh, "PACKAGES", (*tiny_ssh.PACKAGES, "another"))
    assert tiny.build() != older
    assert len(left(tmp_path)) == 2


def test_a_package_that_apt_does_not_know(programs: Path) -> None:
    tool(programs, "apt-cache", TOOLS["apt-cache"].replace("${@:3}", "${@:3:2}"))
    with pytest.raises(tiny.CannotBuild, match="apt knows no dropbear-bin, libc6, "):
        tiny.build()


def test_a_library_that_its_package_does_not_hold(programs: Path, tmp_path: Path) -> None:
    tool(programs, "dpkg", f'{TOOLS["dpkg"]}\nrm "$3/usr/lib/libz.so.1"')
    with pytest.raises(tiny.CannotBuild, match=r"libz\.so\.1: No such file"):
        tiny.build()
    assert left(tmp_path) == []


def test_what_logins_take_is_in_the_archive_and_nothing_of_this_machine(tmp_path: Path) -> None:
    unpacked = tmp_path / "unpacked"
    (unpacked / "lib64").mkdir(parents=True)
    (unpacked / "lib64" / "ld-linux-x86-64.so.2").symlink_to("/bin/sh")
    (unpacked / "usr" / "lib" / "x86_64-linux-gnu").mkdir(parents=True)
    for name in tiny_ssh.BINARIES:
        (unpacked / "usr" / "lib" / "x86_64-linux-gnu" / name).write_text(name)
    archive = tiny_ssh.archive(unpacked)
    assert archive == tiny_ssh.archive(unpacked)
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        loader = tar.extractfile("lib64/ld-linux-x86-64.so.2")
        assert loader is not None
        assert loader.read() == b"ld-linux-x86-64.so.2"
        assert tar.getmember("bin/dropbear").mode == tar.getmember("bin/sudo").mode == 0o755


@pytest.mark.parametrize("name", TOOLS)
def test_a_tool_that_fails(programs: Path, tmp_path: Path, name: str) -> None:
    tool(programs, name, 'echo "E: no route to host" >&2; exit 100')
    with pytest.raises(tiny.CannotBuild, match="apt-get update" if name == "apt-cache" else f"{name} failed"):
        tiny.build()
    assert left(tmp_path) == []


@pytest.mark.parametrize("name", TOOLS)
def test_a_tool_that_does_not_end(programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(tiny, "LONGEST_SECONDS", 0.2)
    tool(programs, name, "exec sleep 100")
    with pytest.raises(tiny.CannotBuild, match=f"{name} has not ended"):
        tiny.build()
    assert left(tmp_path) == []


@pytest.mark.parametrize("name", TOOLS)
def test_a_tool_that_is_not_there(programs: Path, tmp_path: Path, name: str) -> None:
    (programs / name).unlink()
    why = tiny.available()
    assert why is not None
    assert ("no apt" if name == "apt-cache" else name) in why
    with pytest.raises(tiny.CannotBuild):
        tiny.build()


@pytest.mark.parametrize("name", ["apt-get", "dpkg", "qemu-img"])
def test_a_tool_that_leaves_nothing(programs: Path, tmp_path: Path, name: str) -> None:
    tool(programs, name, "true")
    with pytest.raises(tiny.CannotBuild):
        tiny.build()
    assert left(tmp_path) == []


def test_a_cache_that_cannot_be_written(programs: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(tiny.CannotBuild, match="cache"):
        tiny.build()


def test_a_tool_that_cannot_be_run(programs: Path) -> None:
    (programs / "syslinux").write_bytes(b"\x7fELF" + os.urandom(64))
    with pytest.raises(tiny.CannotBuild, match="syslinux"):
        tiny.build()


def test_packages_without_a_kernels_modules_make_no_image(tmp_path: Path) -> None:
    with pytest.raises(tiny.CannotBuild, match="hold no modules of the kernel, or no busybox"):
        tiny._initramfs(tmp_path)
