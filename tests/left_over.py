"""Namespaces that a killed run has left: their names have the number of its process, and the next run removes them."""

from __future__ import annotations

import functools
import re
from pathlib import Path

from cumulet.drivers.linux_network import names, namespaces

_OURS = re.compile(r"cumulet-(?:crash|test|bench)-(\d+)(?:-.*)?")


@functools.cache
def remove_left_over() -> None:
    """Once in a process. Routers of such hosts go, too."""
    for path in sorted(namespaces.FOLDER.glob("cumulet-*")):
        match = _OURS.fullmatch(path.name)
        if match is None or Path("/proc", match[1]).exists():
            continue
        for name in (*namespaces.named(names.namespaces_of(path.stat().st_ino)), path.name):
            namespaces.remove(name)
