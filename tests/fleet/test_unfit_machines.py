"""A machine that cannot be a host says why in one sentence, before it asks the cloud, and keeps nothing."""

from __future__ import annotations

import dataclasses
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest

from cumulet.agent.joining import Joined
from cumulet.cli.program import run
from cumulet.drivers.qemu import fit
from cumulet.drivers.qemu.facts import QemuFacts, QemuMissing

FACTS = QemuFacts(
    binary="/usr/bin/qemu-system-x86_64",
    qemu_img="/usr/bin/qemu-img",
    version=(7, 2, 0),
    accelerator="kvm",
    kvm_problem=None,
    machine_types=("pc-q35-7.2",),
    cpu_models=("qemu64",),
    post_copy=True,
)


class Usage(NamedTuple):
    total: int
    used: int
    free: int


@pytest.fixture
def cloud() -> Iterator[socket.socket]:
    """Listens at the cloud's address, and fails if anybody connects."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        listening.setblocking(False)
        yield listening


def command(cloud: socket.socket, state: Path, *more: str) -> list[str]:
    url = f"https://127.0.0.1:{cloud.getsockname()[1]}"
    return [
        "agent",
        "--join",
        url,
        "--token",
        "x" * 43,
        "--ca-fingerprint",
        "00" * 32,
        "--state",
        str(state),
        "--no-networks",
        *more,
    ]


@pytest.mark.parametrize(
    ("found", "free", "words"),
    [
        (
            QemuMissing("qemu-system-x86_64 is not installed"),
            1 << 40,
            "install Debian's qemu-system-x86 and qemu-utils",
        ),
        (dataclasses.replace(FACTS, kvm_problem="/dev/kvm is not there"), 1 << 40, "has no KVM (/dev/kvm is not"),
        (FACTS, 5 << 20, "has 5 MiB free, and a host needs 2048"),
    ],
    ids=["no QEMU", "no KVM", "no space"],
)
def test_what_a_machine_lacks_is_one_sentence(
    found: QemuFacts | QemuMissing,
    free: int,
    words: str,
    cloud: socket.socket,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def probe() -> QemuFacts:
        if isinstance(found, QemuMissing):
            raise found
        return found

    monkeypatch.setattr(fit, "probe", probe)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: Usage(1 << 41, 0, free))
    assert run(command(cloud, tmp_path / "state")) == 1
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1, said
    assert words in said[0]
    assert not (tmp_path / "state").exists()
    with pytest.raises(BlockingIOError):
        cloud.accept()


def test_a_machine_that_was_told_nothing_or_belongs_elsewhere_says_so(
    cloud: socket.socket, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["agent", "--state", str(tmp_path / "state")]) == 1
    assert "belongs to no cloud yet" in capsys.readouterr().err
    assert not (tmp_path / "state").exists()
    there = tmp_path / "there"
    there.mkdir()
    joined = Joined(url="https://192.0.2.1:8775", ca_fingerprint="11" * 32, name="rack1", machine="m")
    (there / "joined.json").write_bytes(msgspec.json.encode(joined))
    assert run(command(cloud, there)) == 1
    assert "belongs to rack1 of the cloud at https://192.0.2.1:8775" in capsys.readouterr().err
    assert [path.name for path in there.iterdir()] == ["joined.json"]
    with pytest.raises(BlockingIOError):
        cloud.accept()


def test_a_cloud_that_does_not_answer_is_named_and_nothing_is_kept(
    cloud: socket.socket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def probe() -> QemuFacts:
        return FACTS

    monkeypatch.setattr(fit, "probe", probe)
    wanted = command(cloud, tmp_path / "state")
    cloud.close()
    assert run(wanted) == 1
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1, said
    assert f"nothing answers at {wanted[2]}" in said[0]
    assert not (tmp_path / "state").exists()
