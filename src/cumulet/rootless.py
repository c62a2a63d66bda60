"""A cloud of a user who is not root, in namespaces of its own, so that its guests have networks (`own_namespaces`).

Known to whoever has to act otherwise inside: what listens was opened outside, and nobody else comes in.
"""

from __future__ import annotations

import json
import os
import pwd
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from cumulet.confined import user_ids

TUN = Path("/dev/net/tun")
NOTE = "namespaces.json"
"""In the state folder: who lives in them."""
FIRST_UID, FIRST_GUEST_UID, LAST_UID = 65_000, 70_000, 73_999
"""Users there are inside, if this user has enough: first those of Cumulet's own programs, then those of guests."""
PROGRAM = Path(__file__).with_name("own_namespaces.py")
_INSIDE = "CUMULET_OWN_NAMESPACES"
_PROBE = "from cumulet.drivers.linux_network.probe import probe; print(probe().problem)"
_PROBE_SECONDS = 30


class Inside(msgspec.Struct, frozen=True, kw_only=True):
    """What a cloud in namespaces of its own is told by who has made them."""

    listener: int
    """The socket that was opened outside, which listens for the API's clients."""
    guest_uids: str


def inside() -> Inside | None:
    """None where this is an ordinary process of the machine."""
    told = os.environ.get(_INSIDE)
    return None if told is None or os.geteuid() != 0 else msgspec.json.decode(told, type=Inside)


def listener() -> socket.socket | None:
    """What was opened outside for the API; None where it opens its own."""
    told = inside()
    if told is None:
        return None
    os.set_inheritable(told.listener, False)
    return socket.socket(fileno=told.listener)


def problem() -> str | None:
    """Why guests of this user can have no networks; None where they can. Found out by making some. Half a second."""
    if not os.access(TUN, os.R_OK | os.W_OK):
        return f"this user may not open {TUN}"
    if shutil.which("nsenter") is None:
        return "nsenter is not installed (Debian package: util-linux)"
    try:
        done = subprocess.run(
            _line([sys.executable, "-c", _PROBE], note=None, environment={}),
            capture_output=True,
            text=True,
            timeout=_PROBE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"trying it took longer than {_PROBE_SECONDS} s"
    said = (done.stdout if done.returncode == 0 else done.stderr).strip()
    return said.splitlines()[-1][:300] if said else (None if done.returncode == 0 else f"status {done.returncode}")


def become(command: Sequence[str], *, state: Path, listening: socket.socket) -> None:
    """This process is the cloud's keeper from now on, and `command` runs inside. Does not return."""
    users = more_users()
    uids = user_ids.NONE if users is None else f"{FIRST_GUEST_UID}-{FIRST_UID + users[2] - 1}"
    listening.set_inheritable(True)
    told = Inside(listener=listening.fileno(), guest_uids=uids)
    line = _line(command, note=state / NOTE, environment={_INSIDE: msgspec.json.encode(told).decode()})
    os.execv(line[0], line)  # noqa: S606 - to become it is the purpose


def more_users() -> tuple[int, int, int] | None:
    """First inside, first outside, how many: users that guests can have. None where there is only the user's own."""
    mapped = subordinate(Path("/etc/subuid")), subordinate(Path("/etc/subgid"))
    if None in mapped or shutil.which("newuidmap") is None or shutil.which("newgidmap") is None:
        return None
    count = min(LAST_UID + 1 - FIRST_UID, *(one[1] for one in mapped if one is not None))
    enough = FIRST_UID + count >= FIRST_GUEST_UID + 2
    return (FIRST_UID, mapped[0][0], count) if mapped[0] is not None and enough else None


def _line(command: Sequence[str], *, note: Path | None, environment: dict[str, str]) -> list[str]:
    users, groups = more_users(), subordinate(Path("/etc/subgid"))
    spec = {
        "uids": users,
        "gids": None if users is None or groups is None else (FIRST_UID, groups[0], users[2]),
        "note": None if note is None else str(note),
        "command": list(command),
        "environment": environment,
    }
    return [sys.executable, "-I", "-S", str(PROGRAM), json.dumps(spec)]


def subordinate(file: Path) -> tuple[int, int] | None:
    """First and how many of this user's, by name or by number."""
    try:
        names = {str(os.getuid()), pwd.getpwuid(os.getuid()).pw_name}
    except KeyError:
        names = {str(os.getuid())}
    try:
        lines = file.read_text(errors="replace").splitlines()
    except OSError:
        return None
    for line in lines:
        name, _, numbers = line.partition(":")
        start, _, count = numbers.partition(":")
        if name in names and start.isdecimal() and count.isdecimal():
            return int(start), int(count)
    return None
