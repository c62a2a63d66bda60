"""Where the tiny image cannot be built, one sentence says why, and nothing is left in the cache."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cumulet.image import tiny

TOOLS = {
    "apt-cache": """
case "$3" in
    linux-image-cloud-amd64) echo "Depends: linux-image-6.1" ;;
    *) echo "Version: 1" ;;
esac""",
    "apt-get": 'touch "${3%=*}.deb"',
    "dpkg": 'mkdir -p "$3/boot" "$3/bin" "$3/lib/modules/6.1/kernel"; touch "$3/boot/vmlinuz-6.1" "$3/bin/busybox"',
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
    for name in ("bash", "touch", "mkdir", "sleep"):
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
