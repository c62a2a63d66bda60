"""The flavors a cloud has at first start."""

from __future__ import annotations

import sqlalchemy as sa

from cumulet.clock import Clock
from cumulet.compute.store import flavors
from cumulet.db.engine import Database, Tx

FLAVORS = (
    ("m1.nano", 1, 128, 1),
    ("m1.micro", 1, 192, 1),
    ("m1.tiny", 1, 512, 1),
    ("m1.small", 1, 2048, 20),
    ("m1.medium", 2, 4096, 40),
    ("m1.large", 4, 8192, 80),
)
"""(name, vcpus, memory in MiB, disk in GiB)"""


def seed_flavors(db: Database, clock: Clock) -> None:
    """Insert them, unless the cloud has flavors already."""
    rows = [
        {
            "flavor_id": clock.uuid(),
            "name": name,
            "vcpus": vcpus,
            "memory_mib": memory_mib,
            "disk_gib": disk_gib,
            "ephemeral_gib": 0,
            "swap_mib": 0,
            "rxtx_factor": 1.0,
            "is_public": True,
            "disabled": False,
            "extra_specs": {},
            "created_at_us": clock.now_us(),
        }
        for name, vcpus, memory_mib, disk_gib in FLAVORS
    ]

    def insert(tx: Tx) -> None:
        if tx.first(sa.select(flavors.c.id).limit(1)) is None:
            tx.execute(sa.insert(flavors), rows)

    db.write(insert)
