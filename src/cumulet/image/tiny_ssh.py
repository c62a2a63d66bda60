"""What logins to the tiny guest by SSH take: Debian's dropbear, its libraries, users and a few commands.

It is an archive on the guest's disk, which a guest with a key pair reads and others do not: they start as fast without.
"""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

PACKAGES = ("dropbear-bin", "libc6", "libcrypt1", "libgmp10", "libtomcrypt1", "libtommath1", "zlib1g")
MODULES = ("fs/fat/fat.ko", "fs/fat/vfat.ko", "fs/nls/nls_cp437.ko", "fs/nls/nls_ascii.ko")
"""For the file system of that disk, in the order they must be loaded."""
BINARIES = {
    "dropbear": "bin",
    "dropbearkey": "bin",
    "ld-linux-x86-64.so.2": "lib64",
    "libc.so.6": "lib",
    "libcrypt.so.1": "lib",
    "libgmp.so.10": "lib",
    "libtomcrypt.so.1": "lib",
    "libtommath.so.1": "lib",
    "libz.so.1": "lib",
}
"""Names of files, which releases of Debian keep in different folders, and the folders here."""
_TEXTS = {
    "etc/passwd": "root:*:0:0::/root:/bin/sh\ncumulet:*:0:0::/home/cumulet:/bin/sh\n",
    "etc/group": "root:*:0:\n",
}
_COMMANDS = {
    "sudo": """\
#!/bin/sh
# Every user here is root.
while :; do
  case "$1" in
    -u|-g) shift 2 ;;
    --) shift; break ;;
    -*) shift ;;
    *) break ;;
  esac
done
[ $# -gt 0 ] || set -- sh
exec env "$@"
""",
    "curl": """\
#!/bin/sh
# Prints what is at one URL, by wget; no options but -V.
[ "$1" = -V ] && { echo 'curl of the tiny guest'; exit; }
for url; do :; done
exec wget -q -O - "$url"
""",
    "lsblk": """\
#!/bin/sh
# The disks, with sizes in bytes; no options.
line() { printf '%-7s %7s %2s %12s %2s %-4s %s\\n' "$@"; }
line NAME MAJ:MIN RM SIZE RO TYPE MOUNTPOINTS
for disk in /sys/block/*; do
  [ -e "$disk/device" ] || continue
  name=${disk##*/} type=disk
  case "$name" in sr*) type=rom ;; esac
  line "$name" "$(cat "$disk/dev")" "$(cat "$disk/removable")" "$(($(cat "$disk/size") * 512))" "$(cat "$disk/ro")" \\
    "$type" "$(sed -n "s#^/dev/$name \\([^ ]*\\) .*#\\1#p" /proc/mounts)"
done
""",
    "blkid": """\
#!/bin/sh
# The disk with an ISO 9660 file system of a label, as `blkid -L LABEL` tells it.
[ "$1" = -L ] || { echo 'blkid: only -L LABEL' >&2; exit 4; }
for disk in /dev/vd?; do
  label=$(dd if="$disk" bs=1 skip=32808 count=32 2>/dev/null)
  [ "${label%% *}" = "$2" ] && echo "$disk" && exit
done
exit 2
""",
    "mkfs": """\
#!/bin/sh
# File systems that this guest mounts.
[ "$1 $2" = '-t vfat' ] || { echo 'mkfs: only -t vfat' >&2; exit 1; }
shift 2
exec mkdosfs "$@"
""",
}
"""What scripts written for larger guests ask for and busybox has not."""


def recipe() -> str:
    """Changes with what the archive is made of, but for the packages' versions."""
    return repr((PACKAGES, MODULES, BINARIES, _TEXTS, _COMMANDS))


def archive(unpacked: Path) -> bytes:
    """A compressed tar archive of the unpacked packages' files. Raises `OSError`."""
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, folder in BINARIES.items():
            _add(tar, f"{folder}/{name}", _found(unpacked, name).read_bytes(), mode=0o755)
        for name, text in _TEXTS.items():
            _add(tar, name, text.encode())
        for name, text in _COMMANDS.items():
            _add(tar, f"bin/{name}", text.encode(), mode=0o755)
    return gzip.compress(written.getvalue(), mtime=0)


def _found(unpacked: Path, name: str) -> Path:
    """A file that is in there itself: a package's links may lead to the files of this machine."""
    inside = (path for path in sorted(unpacked.rglob(name)) if path.is_file())
    return next((path for path in inside if path.resolve().is_relative_to(unpacked.resolve())), unpacked / name)


def _add(tar: tarfile.TarFile, name: str, content: bytes, *, mode: int = 0o644) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), mode
    tar.addfile(member, io.BytesIO(content))
