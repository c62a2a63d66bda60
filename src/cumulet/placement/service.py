"""The Placement service's place in the registry."""

from __future__ import annotations

from pathlib import Path

from cumulet.placement.dialect import PlacementDialect
from cumulet.web.operation import Microversion, Service

PLACEMENT = Service(
    name="placement",
    type="placement",
    prefix="/placement",
    versions=(Microversion(1, 0), Microversion(1, 39)),
    microversioned=True,
    dialect=PlacementDialect(),
    gaps=Path(__file__).with_name("gaps.txt"),
)
