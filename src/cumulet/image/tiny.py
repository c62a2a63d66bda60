"""Builds the tiny bootable image of Debian's kernel, busybox and dropbear: no root, nothing installed.

It is cached by the versions of packages and by what is made of them.
"""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import msgspec

from cumulet.image import tiny_ssh
from cumulet.image.tiny_init import INIT, RECORD_BYTES

DEBIAN_PACKAGES = ("apt", "dpkg", "mtools", "syslinux", "qemu-utils")
"""What building needs installed. What the guest is made of is only downloaded and unpacked."""

_TOOLS = ("apt-get", "apt-cache", "dpkg", "mformat", "mcopy", "syslinux", "qemu-img")
_APT_LISTS = "/var/lib/apt/lists"
_KERNEL_METAPACKAGE = "linux-image-cloud-amd64"
_MODULES = (
    "drivers/virtio/virtio_ring.ko",
    "drivers/virtio/virtio.ko",
    "drivers/virtio/virtio_pci_legacy_dev.ko",
    "drivers/virtio/virtio_pci_modern_dev.ko",
    "drivers/virtio/virtio_pci.ko",
    "drivers/block/virtio_blk.ko",
    "drivers/char/virtio_console.ko",
    "drivers/char/hw_random/rng-core.ko",
    "drivers/char/hw_random/virtio-rng.ko",
    "drivers/cdrom/cdrom.ko",
    "fs/isofs/isofs.ko",
    "drivers/acpi/button.ko",
    "drivers/input/evdev.ko",
    "net/core/failover.ko",
    "drivers/net/net_failover.ko",
    "drivers/net/virtio_net.ko",
)
"""In the order they must be loaded; one that the kernel has built in is left out."""

LONGEST_SECONDS = 300.0
"""For each tool."""
_DISK_BYTES = 32 << 20
_SYSLINUX_CFG = """\
DEFAULT tiny
PROMPT 0
TIMEOUT 0
LABEL tiny
  LINUX vmlinuz
  INITRD initrd.gz
  APPEND console=ttyS0 quiet panic=-1 no_timer_check random.trust_cpu=on tsc=unstable mitigations=off
"""


class CannotBuild(Exception):
    """The image cannot be built here; the message says why and what would help."""


class _Package(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    version: str


def available() -> str | None:
    """None where `build` should work, else the reason it cannot."""
    if _still_current() is not None:
        return None
    try:
        if _cached(_packages()).exists():
            return None
    except CannotBuild as problem:
        return str(problem)
    return _missing_tools()


def build(progress: Callable[[str], None] = lambda _: None) -> Path:
    """The image as a qcow2 file in the user's cache, built where it is not there yet. Raises `CannotBuild`."""
    current = _still_current()
    if current is not None:
        return current
    packages = _packages()
    target = _cached(packages)
    if not target.exists():
        missing = _missing_tools()
        if missing is not None:
            raise CannotBuild(missing)
        try:
            _build_once(target, packages, progress)
        except OSError as error:
            raise CannotBuild(f"{error.filename or target.parent}: {error.strerror or error}") from error
    with suppress(OSError):
        os.utime(target)  # Now known to be made of the newest packages.
    return target


def _build_once(target: Path, packages: tuple[_Package, ...], progress: Callable[[str], None]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with open(target.parent / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists():
            with tempfile.TemporaryDirectory(prefix="build-", dir=target.parent) as work:
                os.replace(_build_in(Path(work), packages, progress), target)


def _still_current() -> Path | None:
    """The newest image of this recipe, where apt's lists have not changed since it was last found to be current."""
    images = sorted(_folder().glob(f"tiny-{_recipe()}-*.qcow2"), key=lambda path: path.stat().st_mtime)
    if not images:
        return None
    with suppress(FileNotFoundError):
        if shutil.which("apt-cache") is not None and os.stat(_APT_LISTS).st_mtime > images[-1].stat().st_mtime:
            return None
    return images[-1]


def _missing_tools() -> str | None:
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if not missing:
        return None
    return f"missing tools: {', '.join(missing)} (Debian packages: {', '.join(DEBIAN_PACKAGES)})"


def _build_in(work: Path, packages: tuple[_Package, ...], progress: Callable[[str], None]) -> Path:
    unpacked = work / "unpacked"
    for package in packages:
        progress(f"downloading {package.name} {package.version}")
        _run(
            ["apt-get", "-q", "download", f"{package.name}={package.version}"], work, "is the package source reachable?"
        )
    for archive in sorted(work.glob("*.deb")):
        _run(["dpkg", "-x", archive.name, str(unpacked)], work)
    progress("making the disk")
    kernel = next((unpacked / "boot").glob("vmlinuz-*"), None)
    if kernel is None:
        raise CannotBuild("the kernel package holds no kernel")
    (work / "initrd.gz").write_bytes(_initramfs(unpacked))
    (work / "syslinux.cfg").write_text(_SYSLINUX_CFG)
    (work / "ssh.tgz").write_bytes(tiny_ssh.archive(unpacked))
    (work / "licences.txt").write_text(_licences(unpacked))
    shutil.copyfile(kernel, work / "vmlinuz")
    with open(work / "disk.raw", "wb") as disk:
        disk.truncate(_DISK_BYTES)
    _run(["mformat", "-i", "disk.raw", "-T", str(_DISK_BYTES // 512), "-h", "64", "-s", "32", "::"], work)
    files = ["vmlinuz", "initrd.gz", "syslinux.cfg", "ssh.tgz", "licences.txt"]
    _run(["mcopy", "-i", "disk.raw", *files, "::"], work)
    _run(["syslinux", "--install", "disk.raw"], work)
    _run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", "disk.raw", "tiny.qcow2"], work)
    return work / "tiny.qcow2"


def _packages() -> tuple[_Package, ...]:
    """The kernel the metapackage points at, busybox, and what SSH takes, in their candidate versions."""
    if shutil.which("apt-cache") is None:
        raise CannotBuild("this machine has no apt: upload an image with `openstack image create --file`")
    shown = _apt_cache("show", "--no-all-versions", _KERNEL_METAPACKAGE)
    dependency = re.search(r"^Depends: (linux-image-[0-9][\w.+-]*)", shown, re.MULTILINE)
    if dependency is None:
        raise CannotBuild(f"apt knows no {_KERNEL_METAPACKAGE}: run `apt-get update` first (its lists are empty)")
    return _candidates((dependency[1], "busybox-static", *tiny_ssh.PACKAGES))


def _candidates(names: tuple[str, ...]) -> tuple[_Package, ...]:
    shown = _apt_cache("show", "--no-all-versions", *names)
    found = dict(re.findall(r"^Package: (\S+)$.*?^Version: (\S+)$", shown, re.MULTILINE | re.DOTALL))
    missing = [name for name in names if name not in found]
    if missing:
        raise CannotBuild(f"apt knows no {', '.join(missing)}: run `apt-get update` first (its lists are empty)")
    return tuple(_Package(name=name, version=found[name]) for name in names)


def _apt_cache(*arguments: str) -> str:
    return _finished(["apt-cache", *arguments], None, dict(os.environ)).stdout


def _recipe() -> str:
    recipe = "\n".join((INIT, _SYSLINUX_CFG, *_MODULES, str(_DISK_BYTES), tiny_ssh.recipe()))
    return hashlib.sha256(recipe.encode()).hexdigest()[:12]


def _cached(packages: Iterable[_Package]) -> Path:
    versions = "\n".join(f"{package.name}={package.version}" for package in packages)
    return _folder() / f"tiny-{_recipe()}-{hashlib.sha256(versions.encode()).hexdigest()[:12]}.qcow2"


def _folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cumulet" / "images"


def _run(command: list[str], work: Path, hint: str = "") -> None:
    environment = os.environ | {"LC_ALL": "C", "MTOOLS_SKIP_CHECK": "1"}
    done = _finished(command, work, environment)
    if done.returncode != 0:
        words = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["no message"]
        raise CannotBuild(f"{command[0]} failed: {words[0]}{f' ({hint})' if hint else ''}")


def _finished(command: list[str], folder: Path | None, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=LONGEST_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise CannotBuild(f"{command[0]} has not ended within {LONGEST_SECONDS:g} s") from None
    except OSError as error:
        raise CannotBuild(f"{command[0]} cannot be run: {error.strerror}") from None


def _licences(unpacked: Path) -> str:
    """What Debian's packages say of their licences, which goes with copies of their programs."""
    said = sorted(unpacked.glob("usr/share/doc/*/copyright"))
    return "\n\n".join(f"=== {path.parent.name} ===\n\n{path.read_text(errors='replace')}" for path in said)


def _initramfs(unpacked: Path) -> bytes:
    """A cpio archive in the `newc` format, written here because device nodes and owners then need no root."""
    modules = next((unpacked / "lib/modules").glob("*/kernel"), None)
    busybox = unpacked / "bin/busybox"
    if modules is None or not busybox.is_file():
        raise CannotBuild("the packages hold no modules of the kernel, or no busybox")
    present = [module for module in _MODULES if (modules / module).is_file()]
    archive = _Archive()
    for folder in ("bin", "modules", "dev", "etc"):
        archive.add(folder, 0o40755, b"")
    archive.add("bin/busybox", 0o100755, busybox.read_bytes())
    archive.add("init", 0o100755, INIT.encode())
    archive.add("modules/order", 0o100644, "".join(f"{Path(module).name}\n" for module in present).encode())
    for module in (*present, *(module for module in tiny_ssh.MODULES if (modules / module).is_file())):
        archive.add(f"modules/{Path(module).name}", 0o100644, (modules / module).read_bytes())
    return gzip.compress(archive.finish(), mtime=0)


class _Archive:
    """Enough of cpio `newc` for an initramfs."""

    def __init__(self) -> None:
        self._parts = bytearray()
        self._inode = 0

    def add(self, name: str, mode: int, content: bytes, *, links: int = 1) -> None:
        self._inode += 1
        encoded = name.encode() + b"\0"
        fields = (self._inode, mode, 0, 0, links, 0, len(content), 0, 0, 0, 0, len(encoded), 0)
        self._parts += b"070701" + b"".join(b"%08X" % field for field in fields) + encoded
        self._pad()
        self._parts += content
        self._pad()

    def finish(self) -> bytes:
        self.add("TRAILER!!!", 0, b"")
        return bytes(self._parts)

    def _pad(self) -> None:
        self._parts += b"\0" * (-len(self._parts) % 4)


def newest_record(area: bytes) -> int:
    """The highest sequence number a guest's `disk_writer` has left in the record area (0: none)."""
    newest = 0
    for offset in range(0, len(area) - RECORD_BYTES + 1, RECORD_BYTES):
        words = area[offset : offset + RECORD_BYTES].split()
        if len(words) == 3 and words[0] == b"seq":
            with suppress(ValueError):
                newest = max(newest, int(words[1]))
    return newest
