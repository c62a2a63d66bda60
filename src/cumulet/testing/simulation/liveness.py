"""In a quiet run nothing breaks, so every operation completes, except where the request itself cannot be met.

Without this check a product that gives every operation up would pass all the others.
"""

from __future__ import annotations

from collections.abc import Iterator

import sqlalchemy as sa

from cumulet.compute.scheduler import Reason
from cumulet.compute.store import flavors, hosts, migrations
from cumulet.conductor.saga import Status, operations
from cumulet.db.engine import Row, Tx
from cumulet.settings import Settings

NOT_IN_A_QUIET_RUN = frozenset(Reason) - {
    Reason.SAME_HOST,
    Reason.HOST_DISABLED,
    Reason.NOT_THE_NAMED_HOST,
    Reason.INSUFFICIENT_VCPU,
    Reason.INSUFFICIENT_MEMORY,
    Reason.INSUFFICIENT_DISK,
    Reason.AFFINITY,
    Reason.ANTI_AFFINITY,
    Reason.TRAIT_MISSING,
    Reason.EXTRA_SPEC_NOT_KEPT,
}
"""Reasons that a quiet run can have: no host is down, and hosts differ only in room and in one trait."""
_OF_PLACES = frozenset(Reason) | {"NO_VALID_HOST"}
MARGIN = 0.8
"""A copy whose expected time is at most this share of its time limit must complete."""

_UNWOUND = (
    sa.select(operations.c.saga, operations.c.subject, operations.c.error, operations.c.abort_requested)
    .add_columns(flavors.c.memory_mib, flavors.c.extra_specs)
    .outerjoin(migrations, migrations.c.operation_id == operations.c.id)
    .outerjoin(flavors, flavors.c.id == migrations.c.old_flavor_number)
    .where(operations.c.status == Status.UNWOUND)
    .order_by(operations.c.created_at_us, operations.c.id)
)
"""Ended moves, with the flavor that the server had then."""


def needless(tx: Tx, settings: Settings) -> Iterator[str]:
    """Operations that failed although nothing prevented them."""
    for row in tx.all(_UNWOUND, {}):
        if not _is_excused(row, settings):
            yield f"{row.saga} of {row.subject[:8]} failed in a quiet run: {row.error}"


_NO_HOST = (
    sa.select(operations.c.saga, operations.c.subject, operations.c.error)
    .where(operations.c.status == Status.UNWOUND)
    .order_by(operations.c.created_at_us, operations.c.id)
)
_HOSTS = sa.select(hosts.c.name)
_RECORDS = sa.select(migrations.c.id, migrations.c.reason, migrations.c.reason_text).where(
    migrations.c.reason == "NO_VALID_HOST"
)


def unexplained(tx: Tx) -> Iterator[str]:
    """Operations and moves without a valid host that do not give a reason for each host."""
    names = [row.name for row in tx.all(_HOSTS, {})]
    said = [
        (f"{row.saga} of {row.subject[:8]}", row.error["private"])
        for row in tx.all(_NO_HOST)
        if row.error["reason"] == "NO_VALID_HOST"
    ]
    said += [(f"migration {row.id}", row.reason_text) for row in tx.all(_RECORDS, {})]
    for who, text in said:
        if not all(f"{name}: " in text for name in names):
            yield f"{who} has no valid host, and says of {names} only: {text}"


def _is_excused(row: Row, settings: Settings) -> bool:
    reason, private = row.error["reason"], row.error["private"]
    if reason == "ABORTED":
        return bool(row.abort_requested)
    if reason in _OF_PLACES:
        return not any(f": {other}" in private for other in NOT_IN_A_QUIET_RUN)
    if reason == "TIMED_OUT":
        return not _has_time(row, settings)
    if reason in ("REFUSED", "NOTHING_STAGED") and row.saga == "image-import":
        return True  # The image was deleted meanwhile; of others the workload knows that they have to be active.
    if reason == "HOST_FAILED" and row.saga == "interface-detachment":
        return bool(private.endswith("is paused, and lets go of no NIC"))
    return bool(reason in ("DISK_SHRINKS", "IMAGE_DELETED", "IMAGE_REFUSED"))


def _has_time(moved: Row, settings: Settings) -> bool:
    """Whether the copy of a guest of this size and dirty rate converges within its time limit."""
    runs = moved.saga == "live-migration"  # A stopped guest dirties no memory.
    dirty = float(moved.extra_specs.get("cumulet:dirty_rate_mib_s", 0)) if runs else 0.0
    net = settings.migration_bandwidth_mib_s - dirty
    if net <= 0:
        return False
    gib = max(1.0, moved.memory_mib / 1024)
    return bool(moved.memory_mib / net < MARGIN * gib * settings.migration_timeout_seconds_per_gib)
