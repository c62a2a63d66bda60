"""Namespaces that a killed cloud left. Each cloud notes its process on its wire. The next cloud that starts on this
machine removes namespaces whose process is dead, unless a process or a guest's tap is in one of them.

A killed cloud that starts again makes them anew. Namespaces without such a note, of an older version, are left alone.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection
from pathlib import Path

NAMESPACES = Path("/run/netns")
WIRE, BRIDGE = "wire", "bridge"
"""The end of the name of a wire's namespace, and the device in it that carries the note of the owner."""
_TAP = "cmt"
"""How the names of taps begin (`drivers.linux_network.names`). A tap exists while a guest is plugged in."""


def this_process() -> str:
    """The note of the owner: process number and start time, because numbers are used again."""
    return f"{os.getpid()} {_started_at(os.getpid())}"


def left() -> list[str]:
    """For each dead cloud, how the names of its namespaces begin."""
    found = {path.name.removesuffix(f"-{WIRE}") for path in NAMESPACES.glob(f"cumulet-????????-{WIRE}")}
    dead = [prefix for prefix in sorted(found) if _owner_is_dead(f"{prefix}-{WIRE}")]
    if not dead:
        return []
    lived_in = _lived_in()
    return [prefix for prefix in dead if not any(_in_use(path, lived_in) for path in NAMESPACES.glob(f"{prefix}-*"))]


def _owner_is_dead(wire: str) -> bool:
    from pyroute2 import NetNS

    with contextlib.suppress(OSError), NetNS(wire, flags=0) as route:
        for link in route.get_links():
            if link.get("ifname") == BRIDGE and (said := link.get("ifalias")):
                number, _, started = str(said).partition(" ")
                return not number.isdecimal() or _started_at(int(number)) != started
    return False


def _in_use(namespace: Path, lived_in: Collection[int]) -> bool:
    from pyroute2 import NetNS

    with contextlib.suppress(FileNotFoundError):
        if namespace.stat().st_ino in lived_in:
            return True
        with NetNS(namespace.name, flags=0) as route:
            return any(str(link.get("ifname")).startswith(_TAP) for link in route.get_links())
    return False  # Another process has removed it.


def _lived_in() -> set[int]:
    """The network namespaces of all threads of this machine."""
    found = set()
    for task in Path("/proc").glob("[0-9]*/task/[0-9]*/ns/net"):
        with contextlib.suppress(OSError):  # It ended while we looked.
            found.add(task.stat().st_ino)
    return found


def _started_at(process: int) -> str:
    """In ticks since the machine's boot; empty where there is no such process."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""
