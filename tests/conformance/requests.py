"""The corpus: every case of every area, in the order in which they run."""

from __future__ import annotations

from collections import Counter
from typing import Final

from tests.conformance.areas import (
    flavors,
    hosts,
    instance_actions,
    keypairs,
    live_migration,
    migrations,
    negotiation,
    old_paths,
    projects,
    running,
    server_actions,
    server_create,
    server_list,
    server_parts,
    server_show,
    versions,
)
from tests.conformance.case import Case

AREAS: Final = (
    versions,
    negotiation,
    flavors,
    keypairs,
    hosts,
    projects,
    server_create,
    server_show,
    server_list,
    server_parts,
    server_actions,
    instance_actions,
    live_migration,
    migrations,
    old_paths,
    running,
)
CASES: Final[tuple[Case, ...]] = tuple(item for area in AREAS for item in area.cases())

_twice = [name for name, count in Counter(item.id for item in CASES).items() if count > 1]
if _twice:
    raise ValueError(f"cases with the same id: {_twice}")
