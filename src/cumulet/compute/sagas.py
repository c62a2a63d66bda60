"""Every long operation compute has: what a runner carries."""

from __future__ import annotations

from typing import Any

from cumulet.compute.boot import BOOT
from cumulet.compute.deletion import DELETION
from cumulet.compute.evacuation import EVACUATION
from cumulet.compute.live_migration import LIVE_MIGRATION
from cumulet.compute.power import POWER_CHANGE
from cumulet.compute.resize import RESIZE
from cumulet.compute.resize_outcome import RESIZE_CONFIRMATION, RESIZE_REVERSION
from cumulet.conductor.saga import Saga

_ALL: tuple[Saga[Any], ...] = (
    BOOT, DELETION, EVACUATION, LIVE_MIGRATION, POWER_CHANGE, RESIZE, RESIZE_CONFIRMATION, RESIZE_REVERSION,
)  # fmt: skip
SAGAS: dict[str, Saga[Any]] = {saga.name: saga for saga in _ALL}
