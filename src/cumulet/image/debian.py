"""Builds an image of Debian with sshd and cloud-init from Debian's packages alone, with root or without.

mmdebstrap installs the packages into an archive; mke2fs makes the file system of it; boot sectors are GRUB's, put
where its installer would put them on a disk. No mount, no loop device. Without root, users other than one's own come
from /etc/subuid, in a user namespace (`own_namespaces`), and the files are the same.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from cumulet import rootless

SUITE = "bookworm"
PACKAGES = (
    "linux-image-cloud-amd64",
    "initramfs-tools",
    "systemd-sysv",
    "dbus",
    "udev",
    "systemd-resolved",
    "openssh-server",
    "cloud-init",
    "cloud-guest-utils",
    "fdisk",
    "e2fsprogs",
    "isc-dhcp-client",
    "iproute2",
    "iputils-ping",
    "netbase",
    "ca-certificates",
    "sudo",
    "less",
    "procps",
)
NEEDED = ("mmdebstrap", "e2fsprogs", "tar", "qemu-utils", "grub-common", "grub-pc-bin")
"""Debian packages that building takes."""
NEEDED_WITHOUT_ROOT = ("uidmap",)
SIZE_GIB = 2
ROOM_BYTES = 3 << 30
"""Room for what building writes: an archive, its files, a disk, and the image."""

_TOOLS = ("mmdebstrap", "mke2fs", "tar", "qemu-img", "grub-mkimage")
_GRUB = Path("/usr/lib/grub/i386-pc")
_GRUB_MODULES = ("biosdisk", "part_msdos", "ext2", "search", "search_label", "linux", "normal", "configfile", "boot")
_SECTOR = 512
_FIRST_SECTOR = 2048
"""Of the one partition; the boot loader is before it."""
_ALL_IDS = 65_535

_EARLY = """\
search.fs_label root root
set prefix=($root)/boot/grub
configfile /boot/grub/grub.cfg
"""
_MENU = """\
set timeout=0
linux /vmlinuz root=LABEL=root ro console=tty0 console=ttyS0,115200 no_timer_check
initrd /initrd.img
boot
"""
_FURNISH = """
set -e
rm -f /etc/ssh/ssh_host_* /var/lib/dbus/machine-id
: >/etc/machine-id
echo debian >/etc/hostname
echo 'LABEL=root / ext4 errors=remount-ro 0 1' >/etc/fstab
echo 'datasource_list: [ ConfigDrive, OpenStack, None ]' >/etc/cloud/cloud.cfg.d/90_cumulet.cfg
mkdir -p /boot/grub
cat >/boot/grub/grub.cfg <<'END'
{menu}END
mkdir -p /etc/systemd/system/systemd-networkd-wait-online.service.d
cat >/etc/systemd/system/systemd-networkd-wait-online.service.d/cumulet.conf <<'END'
[Service]
ExecStart=
ExecStart=/lib/systemd/systemd-networkd-wait-online --any --timeout=60
END
systemctl enable systemd-networkd systemd-resolved ssh
"""
"""Keys and names are each server's own, made at its first boot. The menu names the links that Debian keeps to its
newest kernel, and lets it not look for a timer that an emulated machine on a busy host may be late with. A server
without a network goes on without one."""


class CannotBuild(Exception):
    """The image cannot be built here; the message says why and what would help."""


def is_package(name: str) -> bool:
    """Whether Debian could have a package of this name."""
    return re.fullmatch(r"[a-z0-9][a-z0-9.+-]+", name) is not None


def problem() -> str | None:
    """Why it cannot be built here; None where all that it takes is installed."""
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    missing += [] if (_GRUB / "boot.img").exists() else [str(_GRUB / "boot.img")]
    if missing:
        return f"missing: {', '.join(missing)} (Debian packages: {' '.join(NEEDED)})"
    if os.geteuid() != 0 and _ids() is None:
        return (
            f"without root, building takes newuidmap (Debian package: {NEEDED_WITHOUT_ROOT[0]}) and {_ALL_IDS} users "
            "for you in /etc/subuid and /etc/subgid"
        )
    return None


def build(
    target: Path,
    *,
    more: Sequence[str] = (),
    mirror: str | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> None:
    """Write the image to `target` (qcow2, compressed). `more`: further packages. Raises `CannotBuild`."""
    reason = problem()
    if reason is not None:
        raise CannotBuild(reason)
    free = shutil.disk_usage(target.parent).free
    if free < ROOM_BYTES:
        raise CannotBuild(f"{target.parent} has {free / 2**30:.1f} GiB free, and building takes {ROOM_BYTES >> 30}")
    with tempfile.TemporaryDirectory(prefix="cumulet-debian-", dir=target.parent) as scratch:
        work = Path(scratch)
        progress(f"installing Debian {SUITE} into an archive (some minutes)")
        _install(work / "root.tar", [*PACKAGES, *more], mirror)
        progress("making the disk")
        _pack_as_root(work)
        (work / "root.tar").unlink()
        _make_bootable(work)
        progress("compressing it")
        options = ["-c", "-o", "compression_type=zstd"]
        _run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", *options, str(work / "disk.raw"), str(work / "image")])
        os.replace(work / "image", target)


def _install(archive: Path, packages: Sequence[str], mirror: str | None) -> None:
    # On the command line: its user may not be able to read our files. mmdebstrap gives the root's place in `$1`.
    hook = f'chroot "$1" sh -c {shlex.quote(_FURNISH.format(menu=_MENU))}'
    line = ["mmdebstrap", "--variant=minbase", "--format=tar", f"--include={','.join(packages)}"]
    line += [f"--customize-hook={hook}", SUITE, str(archive), *([mirror] if mirror else [])]
    _run(line, seconds=3600, hint="is the package source reachable?")


def _pack_as_root(work: Path) -> None:
    if os.geteuid() == 0:
        pack(work)
        return
    spec: dict[str, object] = {
        "uids": _ids(),
        "gids": _ids("subgid"),
        "note": None,
        "environment": {},
        "command": [sys.executable, "-c", "import sys; from cumulet.image.debian import main; main()", str(work)],
    }
    _run([sys.executable, "-I", "-S", str(rootless.PROGRAM), json.dumps(spec)], seconds=1800)


def main() -> None:
    """Inside the namespaces, where whoever has started us is root."""
    try:
        pack(Path(sys.argv[1]))
    except CannotBuild as problem:
        sys.exit(str(problem))


def pack(work: Path, *, size_bytes: int = SIZE_GIB << 30) -> None:
    """`root.tar` as the one partition of `disk.raw`, owners and all."""
    root = work / "root"
    root.mkdir()
    try:
        # Devices: the kernel makes them at every boot.
        keep = ["--numeric-owner", "--xattrs", "--xattrs-include=*", "--exclude=./dev/*"]
        _run(["tar", "-x", "-f", str(work / "root.tar"), "-C", str(root), *keep])
        with open(work / "disk.raw", "wb") as disk:
            disk.truncate(size_bytes)
        start = _FIRST_SECTOR * _SECTOR
        line = ["mke2fs", "-q", "-t", "ext4", "-L", "root", "-d", str(root), "-E", f"offset={start}"]
        _run([*line, str(work / "disk.raw"), f"{(size_bytes - start) >> 10}k"])
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _make_bootable(work: Path) -> None:
    (work / "early.cfg").write_text(_EARLY)
    line = ["grub-mkimage", "-O", "i386-pc", "-d", str(_GRUB), "-p", "/boot/grub", "-c", str(work / "early.cfg")]
    _run([*line, "-o", str(work / "core.img"), *_GRUB_MODULES])
    disk = work / "disk.raw"
    sectors = boot_sectors(
        (_GRUB / "boot.img").read_bytes(), (work / "core.img").read_bytes(), disk.stat().st_size // _SECTOR
    )
    with open(disk, "r+b") as file:
        file.write(sectors)


def boot_sectors(boot: bytes, core: bytes, sectors: int) -> bytes:
    """What stands before the first partition of a disk of so many sectors: GRUB's first sector with the partition's
    entry, then `core`, which the first sector loads. `grub-mkimage` makes it to be read from the second sector on."""
    if len(boot) != _SECTOR or len(core) > (_FIRST_SECTOR - 1) * _SECTOR:
        raise CannotBuild("GRUB does not fit before the first partition")
    first = bytearray(boot)
    beyond = b"\xfe\xff\xff"  # No cylinders: by number of sector only.
    entry = struct.pack("<B3sB3sII", 0x80, beyond, 0x83, beyond, _FIRST_SECTOR, sectors - _FIRST_SECTOR)
    first[446:510] = entry.ljust(64, b"\0")
    first[510:512] = b"\x55\xaa"
    return bytes(first) + core


def _ids(kind: str = "subuid") -> tuple[int, int, int] | None:
    """The ids that this user may give out, as a mapping of users from 1 on: (1, first, count)."""
    found = rootless.subordinate(Path("/etc") / kind)
    if found is None or found[1] < _ALL_IDS or shutil.which("newuidmap") is None:
        return None
    return 1, found[0], _ALL_IDS


def _run(command: list[str], *, seconds: float = 600, hint: str = "") -> None:
    environment = os.environ | {"LC_ALL": "C", "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"}
    try:
        done = subprocess.run(
            command,
            env=environment,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired as late:
        raise CannotBuild(f"{Path(command[0]).name} took longer than {seconds:g} s") from late
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()
        # mmdebstrap's last line says only that it has ended; errors begin with E.
        words = next((line for line in reversed(said) if line.startswith("E:")), said[-1] if said else "no message")
        raise CannotBuild(f"{Path(command[0]).name} failed: {words[:500]}{f' ({hint})' if hint else ''}")
