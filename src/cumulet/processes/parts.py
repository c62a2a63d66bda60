"""The one list of parts. Every process takes from it what it needs."""

from __future__ import annotations

from cumulet.compute.part import COMPUTE_PART
from cumulet.identity.part import IDENTITY_PART
from cumulet.image.part import IMAGE_PART
from cumulet.network.part import NETWORK_PART
from cumulet.part import Part, declare_all, sagas_of
from cumulet.placement.part import PLACEMENT_PART
from cumulet.web.operation import Service

declare_all("cumulet.conductor")

PARTS: tuple[Part, ...] = (IDENTITY_PART, COMPUTE_PART, NETWORK_PART, IMAGE_PART, PLACEMENT_PART)


SAGAS = sagas_of(PARTS)


def load_services() -> list[Service]:
    """Every service. Importing them has declared all operations, rules and tables."""
    return [part.service for part in PARTS]
