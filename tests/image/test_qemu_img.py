"""What qemu-img writes: ordinary images are accepted, those that reach for other files are refused."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from cumulet.image.qcow2 import Refused
from tests.image.whole_file import inspect_file

pytestmark = pytest.mark.skipif(shutil.which("qemu-img") is None, reason="qemu-img is not installed")

LIMIT = 1 << 40
DISK = b"\xfa\x33\xc0" + bytes(range(256)) * 8000
LUKS = "--object secret,id=s,data=x -o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10"
NO_CPU_TIME = "Unable to get accurate CPU usage"
ORDINARY = {
    "plain": "",
    "version 2": "compat=0.10",
    "512-byte clusters": "cluster_size=512",
    "2 MiB clusters": "cluster_size=2M",
    "zstd": "compression_type=zstd",
    "lazy refcounts": "lazy_refcounts=on",
    "1-bit refcounts": "refcount_bits=1",
    "64-bit refcounts": "refcount_bits=64",
    "metadata allocated": "preallocation=metadata",
    "all allocated": "preallocation=falloc",
}


def qemu_img(*arguments: str, folder: Path) -> None:
    done = subprocess.run(["qemu-img", *arguments], cwd=folder, check=False, capture_output=True, timeout=60, text=True)
    if NO_CPU_TIME in done.stderr:
        pytest.skip(
            f"qemu-img: {NO_CPU_TIME}: it measures how fast it derives keys, and this machine's kernel lets "
            "a thread's CPU time go backwards now and then"
        )
    assert done.returncode == 0, done.stderr


def inspect(path: Path, disk_format: str) -> int:
    with path.open("rb") as file:
        return inspect_file(file, disk_format, virtual_size_limit=LIMIT)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "disk.raw").write_bytes(DISK)
    return tmp_path


@pytest.mark.parametrize("name", ORDINARY)
def test_an_ordinary_qcow2_is_accepted(folder: Path, name: str) -> None:
    options = ORDINARY[name]
    arguments = ["-o", options] if options else []
    qemu_img("create", "-f", "qcow2", *arguments, "empty.qcow2", "64M", folder=folder)
    assert inspect(folder / "empty.qcow2", "qcow2") == 64 << 20
    if "preallocation" not in options:
        qemu_img("convert", "-f", "raw", "-O", "qcow2", *arguments, "disk.raw", "full.qcow2", folder=folder)
        assert inspect(folder / "full.qcow2", "qcow2") >= len(DISK)


def test_a_compressed_qcow2_is_accepted_and_not_unfolded(folder: Path) -> None:
    qemu_img("convert", "-f", "raw", "-O", "qcow2", "-c", "disk.raw", "small.qcow2", folder=folder)
    assert inspect(folder / "small.qcow2", "qcow2") >= len(DISK)


@pytest.mark.parametrize(
    "steps",
    [
        ["create -f qcow2 -F raw -b disk.raw image"],
        ["create -f qcow2 -o data_file=other.raw image 8M"],
        ["create -f qcow2 -o data_file=other.raw,data_file_raw=on image 8M"],
        ["create -f qcow2 -o extended_l2=on image 8M"],
        ["create -f qcow2 image 2E -o cluster_size=2M"],
        ["create -f qcow2 image 8M", "snapshot -c one image"],
        [f"create -f qcow2 {LUKS} image 8M"],
        ["create -f qcow2 -u -F qcow2 -b nbd://127.0.0.1/x image 8M"],
    ],
    ids=lambda steps: steps[-1],
)
def test_a_qcow2_that_reaches_further_is_refused(folder: Path, steps: list[str]) -> None:
    for step in steps:
        qemu_img(*step.split(), folder=folder)
    with pytest.raises(Refused):
        inspect(folder / "image", "qcow2")
    with pytest.raises(Refused):
        inspect(folder / "image", "raw")


@pytest.mark.parametrize("other", ["qcow", "qed", "vdi", "vmdk", "vpc", "vhdx", "parallels"])
@pytest.mark.parametrize("claim", ["raw", "qcow2"])
def test_another_format_is_refused_whatever_it_claims(folder: Path, other: str, claim: str) -> None:
    qemu_img("convert", "-f", "raw", "-O", other, "disk.raw", "image", folder=folder)
    with pytest.raises(Refused):
        inspect(folder / "image", claim)


@pytest.mark.parametrize("kind", ["subformat=fixed", "subformat=fixed,force_size=on", "subformat=dynamic"])
def test_every_kind_of_vhd_is_refused_as_raw(folder: Path, kind: str) -> None:
    qemu_img("convert", "-f", "raw", "-O", "vpc", "-o", kind, "disk.raw", "image", folder=folder)
    with pytest.raises(Refused):
        inspect(folder / "image", "raw")


@pytest.mark.parametrize("kind", ["monolithicFlat", "twoGbMaxExtentSparse", "streamOptimized"])
def test_every_kind_of_vmdk_is_refused_as_raw(folder: Path, kind: str) -> None:
    qemu_img("convert", "-f", "raw", "-O", "vmdk", "-o", f"subformat={kind}", "disk.raw", "image.vmdk", folder=folder)
    with pytest.raises(Refused):
        inspect(folder / "image.vmdk", "raw")
