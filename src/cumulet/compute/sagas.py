"""Every long operation compute has: what a runner carries."""

from __future__ import annotations

from typing import Any

from cumulet.compute.boot import BOOT
from cumulet.compute.deletion import DELETION
from cumulet.compute.evacuation import EVACUATION
from cumulet.compute.live_migration import LIVE_MIGRATION
from cumulet.compute.power import POWER_CHANGE
from cumulet.conductor.saga import Saga

SAGAS: dict[str, Saga[Any]] = {saga.name: saga for saga in (BOOT, DELETION, EVACUATION, LIVE_MIGRATION, POWER_CHANGE)}
