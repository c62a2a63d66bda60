"""What Placement brings to a process."""

from __future__ import annotations

from cumulet.part import CatalogEntry, Part, declare_all
from cumulet.placement.service import PLACEMENT

declare_all("cumulet.placement")

PLACEMENT_PART = Part(service=PLACEMENT, catalog=CatalogEntry(name="placement", path="/placement"))
