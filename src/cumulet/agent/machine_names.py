"""What a machine that is a host is called, so that its cloud knows it from copies of it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

MACHINE_ID = Path("/etc/machine-id")
BOARD = Path("/sys/class/dmi/id/product_uuid")
"""What a mainboard, or a virtual machine, is called; root reads it."""
_FIRST_HOST_NAMES = 0xEFFFFFFE
"""The inode of the namespace of host names in which a kernel starts (PROC_UTS_INIT_INO)."""


_NO_BOARDS = frozenset(
    {
        "03000200-0400-0500-0006-000700080009",
        "00020003-0004-0005-0006-000700080009",
        "03020100-0504-0706-0809-0a0b0c0d0e0f",
        "00010203-0405-0607-0809-0a0b0c0d0e0f",
        "12345678-1234-5678-90ab-cddeefaabbcc",
        "deadbeef-dead-beef-dead-beefdeadbeef",
    }
)
"""What vendors leave in many boards instead of a UUID of their own, in both orders of its bytes."""


def machine_id() -> str:
    """This machine's own names, which no other machine has and which stay after a reboot, with colons between them.

    A clone of a disk has the same /etc/machine-id, and another board. Containers share these two, and differ by their
    host names. So does a machine whose board is not known; any other may change its host name. The first name is the
    one that agents of before gave: it always has the host name in it. Where the board is known, the third name is how
    the second one begins where it is not, as for an agent that is not root's: `same_machine` compares these.
    """
    made, board, host_name = _read(MACHINE_ID), _read(BOARD), os.uname().nodename
    first, without_board = digest("cumulet", host_name, made, board), digest("cumulet machine", host_name, made)
    if board is None or not _is_a_board(board):
        return f"{first}:{without_board[:32]}"
    own = None if _has_first_host_names() else host_name
    return f"{first}:{digest('cumulet machine', own, made, board)[:32]}:{without_board[:16]}"


def _is_a_board(uuid: str) -> bool:
    """Whether it is one board's own: not a vendor's default, and not one byte over and over."""
    digits = uuid.lower().replace("-", "")
    return uuid.lower() not in _NO_BOARDS and len({digits[at : at + 2] for at in range(0, len(digits), 2)}) > 1


def _has_first_host_names() -> bool:
    try:
        return os.stat("/proc/self/ns/uts").st_ino == _FIRST_HOST_NAMES
    except OSError:
        return False


def _read(source: Path) -> str | None:
    try:
        return source.read_text().strip()
    except OSError:
        return None


def digest(*words: str | None) -> str:
    """The SHA-256 of the words that are known, in hexadecimal."""
    return hashlib.sha256("\n".join(one for one in words if one is not None).encode()).hexdigest()
