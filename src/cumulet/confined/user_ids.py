"""Which user ids of a machine are in use already, so that no guest gets the user of another program."""

from __future__ import annotations

import pwd
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

SUBORDINATE = Path("/etc/subuid")
UID_MAP = Path("/proc/self/uid_map")
GID_MAP = Path("/proc/self/gid_map")
LEAST = 1_000
"""The ids below it are the system's own users."""
MOST_IDS = 65_536
TAKEN = {
    "users of people, as adduser gives them out": range(1_000, 60_001),
    "homes of systemd-homed": range(60_001, 60_514),
    "containers' users mapped by systemd": range(60_514, 60_578),
    "systemd's users of sessions": range(60_578, 60_706),
    "systemd's DynamicUser": range(61_184, 65_520),
    "nobody": range(65_534, 65_537),
    "systemd's containers": range(524_288, 1_879_048_192),
}
"""From systemd's "Users, Groups, UIDs and GIDs on systemd Systems"; not all of them stand in a file."""

NONE = "none"
"""As `guest_uids`: guests run as the user who runs their agent, who is nobody else's root."""


def of(text: str) -> range:
    """The users of ``FIRST-LAST``; an empty range for ``none``."""
    if text == NONE:
        return range(0)
    first, _, last = text.partition("-")
    return range(int(first), int(last) + 1)


def problem(uids: range) -> str | None:
    """Why guests cannot have these users; None where they can."""
    if len(uids) < 2 or len(uids) > MOST_IDS or uids.start < LEAST:
        return f"guests' users are 2 to {MOST_IDS} user ids from {LEAST} on"
    if not mapped(uids):
        return f"this user namespace has no user ids {uids.start}-{uids.stop - 1} (60706-61183 are nobody's either)"
    for whose, taken in {**TAKEN, **_subordinate()}.items():
        if uids.start < taken.stop and taken.start < uids.stop:
            return f"user ids {uids.start}-{uids.stop - 1} overlap {taken.start}-{taken.stop - 1}, which are {whose}"
    return None


def known(uid: int) -> bool:
    """Whether this machine has a user of that number by name."""
    with suppress(KeyError):
        pwd.getpwuid(uid)
        return True
    return False


def are_the_machines_own() -> bool:
    """Whether our ids are the machine's: we are in no user namespace."""
    return mapped(range(2**32 - 1))


def usable_groups(gids: Iterable[int]) -> list[int] | None:
    """The groups for a guest's process; None: those of this process, because one of `gids` has no id here.

    In a user namespace of an ordinary user the groups of devices have none, and the user may still be a member.
    """
    groups = sorted(set(gids))
    return groups if all(mapped(range(gid, gid + 1), GID_MAP) for gid in groups) else None


def mapped(uids: range, file: Path | None = None) -> bool:
    """Whether all these user ids (group ids with `GID_MAP`) exist in our user namespace, which may have only some."""
    for line in (file or UID_MAP).read_text().splitlines():
        inside, _, count = (int(number) for number in line.split())
        if inside <= uids.start and uids.stop <= inside + count:
            return True
    return False


def _subordinate() -> dict[str, range]:
    """The user ids that this machine gives to its users' containers."""
    found: dict[str, range] = {}
    with suppress(FileNotFoundError):
        for line in SUBORDINATE.read_text(errors="replace").splitlines():
            name, _, numbers = line.partition(":")
            start, _, count = numbers.partition(":")
            if start.isdecimal() and count.isdecimal():
                found[f"those of {name} in {SUBORDINATE}"] = range(int(start), int(start) + int(count))
    return found
