"""The names of resource classes and traits: the standard ones every Placement knows, and custom ones in tables."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Set
from importlib import resources

import sqlalchemy as sa

from cumulet.db.engine import Tx
from cumulet.db.one_of import one_of
from cumulet.errors import BadRequest
from cumulet.placement.store import resource_classes, traits

NAME_PATTERN = "^[A-Z0-9_]+$"
CUSTOM_PATTERN = "^CUSTOM_[A-Z0-9_]+$"
_CUSTOM = re.compile(r"CUSTOM_[A-Z0-9_]+")

STANDARD_CLASSES = (
    "VCPU",
    "MEMORY_MB",
    "DISK_GB",
    "PCI_DEVICE",
    "SRIOV_NET_VF",
    "NUMA_SOCKET",
    "NUMA_CORE",
    "NUMA_THREAD",
    "NUMA_MEMORY_MB",
    "IPV4_ADDRESS",
    "VGPU",
    "VGPU_DISPLAY_HEAD",
    "NET_BW_EGR_KILOBIT_PER_SEC",
    "NET_BW_IGR_KILOBIT_PER_SEC",
    "PCPU",
    "MEM_ENCRYPTION_CONTEXT",
    "FPGA",
    "PGPU",
    "NET_PACKET_RATE_KILOPACKET_PER_SEC",
    "NET_PACKET_RATE_EGR_KILOPACKET_PER_SEC",
    "NET_PACKET_RATE_IGR_KILOPACKET_PER_SEC",
)
"""In the order of os-resource-classes."""


@functools.cache
def standard_traits() -> frozenset[str]:
    """The names of os-traits 3.9."""
    text = resources.files("cumulet.placement").joinpath("standard_traits.txt").read_text(encoding="ascii")
    return frozenset(text.split())


def is_custom(name: str) -> bool:
    return len(name) <= 255 and _CUSTOM.fullmatch(name) is not None


def known_classes(tx: Tx) -> list[str]:
    """All resource classes, standard ones first."""
    custom = tx.all(sa.select(resource_classes.c.name).order_by(resource_classes.c.name))
    return [*STANDARD_CLASSES, *(row.name for row in custom)]


def class_exists(tx: Tx, name: str) -> bool:
    if name in STANDARD_CLASSES:
        return True
    return tx.first(sa.select(resource_classes).where(resource_classes.c.name == name)) is not None


def require_classes(tx: Tx, names: Iterable[str], what: str) -> None:
    """400 where one of the classes is unknown. `what` says where it was named."""
    refuse_unknown_classes(set(known_classes(tx)), names, what)


def refuse_unknown_classes(known: Set[str], names: Iterable[str], what: str) -> None:
    """As `require_classes`, for many: the classes that there are have been read."""
    unknown = [name for name in names if name not in known]
    if unknown:
        raise BadRequest(f"{what}: No such resource class {', '.join(sorted(unknown))}.")


def known_traits(tx: Tx) -> list[str]:
    custom = tx.all(sa.select(traits.c.name))
    return sorted({*standard_traits(), *(row.name for row in custom)})


def trait_exists(tx: Tx, name: str) -> bool:
    return name in standard_traits() or tx.first(sa.select(traits).where(traits.c.name == name)) is not None


def require_traits(tx: Tx, names: Iterable[str]) -> None:
    """400 where one of the traits is unknown."""
    unknown = set(names) - standard_traits()
    unknown -= {row.name for row in tx.all(sa.select(traits.c.name).where(one_of(traits.c.name, sorted(unknown))))}
    if unknown:
        raise BadRequest(f"No such trait(s): {', '.join(sorted(unknown))}.")
