"""The one list of parts. Every process takes from it what it needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cumulet.compute.part import COMPUTE_PART
from cumulet.conductor.saga import Saga
from cumulet.identity.part import IDENTITY_PART
from cumulet.image.part import IMAGE_PART
from cumulet.network.part import NETWORK_PART
from cumulet.part import CatalogEntry, Part, declare_all
from cumulet.placement.part import PLACEMENT_PART
from cumulet.web.operation import Service

declare_all("cumulet.conductor")

PARTS: tuple[Part, ...] = (IDENTITY_PART, COMPUTE_PART, NETWORK_PART, IMAGE_PART, PLACEMENT_PART)


def sagas_of(parts: Sequence[Part]) -> dict[str, Saga[Any]]:
    """Every long operation, by its name."""
    return {saga.name: saga for part in parts for saga in part.sagas}


def catalog_of(parts: Sequence[Part]) -> dict[str, CatalogEntry]:
    """The catalog's entry of each type of service."""
    return {part.service.type: part.catalog for part in parts}


SAGAS = sagas_of(PARTS)


def load_services() -> list[Service]:
    """Every service. Importing them has declared all operations, rules and tables."""
    return [part.service for part in PARTS]
