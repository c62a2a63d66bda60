"""What a service brings to a process: its API, what it carries on, what it looks after, what it begins with.

A process is a list of parts (`processes.parts`). A service's `part.py` is the one place where it says what it brings;
importing it declares every operation, policy rule and table of the service.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from cumulet.clock import Clock
from cumulet.conductor.conductor import Surroundings
from cumulet.conductor.saga import Saga
from cumulet.db.engine import Database, Tx
from cumulet.periodic import Reconciler
from cumulet.settings import Settings
from cumulet.web.operation import Service

SEEDED = "seeded"
"""In the state folder once a new cloud has what it begins with; which cloud that is, says what is in it."""


class SettingRefused(Exception):
    """A setting asks for what is not possible here; the message says what is missing."""


class FirstStart(msgspec.Struct, frozen=True, kw_only=True):
    """What a part's seed may reach. `projects`: the ids of the first projects, by name."""

    db: Database
    clock: Clock
    settings: Settings
    projects: Mapping[str, str]
    boots: bool
    """Its hosts boot what images hold; on others a placeholder of the same name will do."""


class CatalogEntry(msgspec.Struct, frozen=True, kw_only=True):
    """How the Identity catalog names a service. `path` is below the cloud's URL."""

    name: str
    path: str
    interfaces: tuple[str, ...] = ("public", "internal")


def _none(_surroundings: Surroundings) -> Sequence[Reconciler]:
    return ()


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One service, as processes see it."""

    service: Service
    catalog: CatalogEntry
    hosts_offer: Callable[[Tx, str], bool | None] | None = None
    """Of the service that keeps the records of hosts: see `web.context.Cloud.hosts_offer`."""
    hypervisors: Callable[[Tx, str, str], Mapping[str, str]] | None = None
    """Likewise: see `web.context.Cloud.hypervisors`."""
    sagas: tuple[Saga[Any], ...] = ()
    reconcilers: Callable[[Surroundings], Sequence[Reconciler]] = _none
    """What has to be looked after once in a cloud, in the order in which it is started."""
    memories: Callable[[Surroundings], Sequence[Reconciler]] = _none
    """What each conductor keeps for itself, whether it leads or not."""
    require: Callable[[Settings], None] | None = None
    """At each start of a process that carries operations; raises SettingRefused."""
    mend: Callable[[Database, Settings, Clock], None] | None = None
    """At each start, repairs what a killed process has left half done; raises OtherState for another's state."""
    seed: Callable[[FirstStart], None] | None = None
    """What a first start leaves ready to use; asked again if that was killed meanwhile."""


def sagas_of(parts: Sequence[Part]) -> dict[str, Saga[Any]]:
    """Every long operation, by its name."""
    return {saga.name: saga for part in parts for saga in part.sagas}


def catalog_of(parts: Sequence[Part]) -> dict[str, CatalogEntry]:
    """The catalog's entry of each type of service."""
    return {part.service.type: part.catalog for part in parts}


def hosts_offer_of(parts: Sequence[Part]) -> Callable[[Tx, str], bool | None]:
    """Of the part that keeps the records of hosts."""
    return next((part.hosts_offer for part in parts if part.hosts_offer is not None), lambda _tx, _feature: None)


def hypervisors_of(parts: Sequence[Part]) -> Callable[[Tx, str, str], Mapping[str, str]]:
    """What says which hypervisors hosts have; no part that knows: nobody has one."""
    return next((part.hypervisors for part in parts if part.hypervisors is not None), lambda _tx, _name, _id: {})


def seed_once(
    parts: Sequence[Part], settings: Settings, db: Database, clock: Clock, projects: Callable[[Tx], Mapping[str, str]]
) -> None:
    """Make what a new cloud begins with. If a start was killed meanwhile, the next one does it."""
    marker = settings.state_dir / SEEDED
    if marker.exists():
        return
    if not settings.bare:
        boots = settings.driver != "simulated"
        start = FirstStart(db=db, clock=clock, settings=settings, projects=db.read(projects), boots=boots)
        for part in parts:
            if part.seed is not None:
                part.seed(start)
    marker.touch(mode=0o600)


def declare_all(package: str) -> None:
    """Import every file of a service, so that all it declares is known."""
    path = importlib.import_module(package).__path__
    for module in pkgutil.iter_modules(path):
        if module.name != "part":
            importlib.import_module(f"{package}.{module.name}")
