"""The Compute service's place in the registry: every file of `compute` declares its operations on `COMPUTE`."""

from __future__ import annotations

from pathlib import Path

from cumulet.compute.dialect import ComputeDialect
from cumulet.web.operation import Microversion, Service

COMPUTE = Service(
    name="compute",
    type="compute",
    prefix="/compute/v2.1",
    versions=(Microversion(2, 1), Microversion(2, 104)),
    microversioned=True,
    dialect=ComputeDialect(),
    gaps=Path(__file__).with_name("gaps.txt"),
)
