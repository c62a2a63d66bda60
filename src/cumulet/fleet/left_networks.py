"""Namespaces that a killed cloud has left: each cloud writes on its wire whose it is, and the next to start on this
machine removes those of owners that live no more, unless a process or a guest's tap is in any of them.

A cloud that was killed and will start again makes them anew. What a cloud of before this wrote is left alone.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection
from pathlib import Path

NAMESPACES = Path("/run/netns")
WIRE, BRIDGE = "wire", "bridge"
"""The end of the name of a wire's namespace, and the device in it that tells whose it is."""
_TAP = "cmt"
"""How `drivers.linux_network.names` calls taps: one is there for as long as a guest is plugged in."""


def this_process() -> str:
    """What a wire says of its owner: a number alone is given again."""
    return f"{os.getpid()} {_started_at(os.getpid())}"


def left() -> list[str]:
    """How the names of the namespaces of each such cloud begin."""
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
    return False  # Somebody else has removed it.


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
