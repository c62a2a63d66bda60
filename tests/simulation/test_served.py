"""How long two hosts may serve the same router depends on whether the host that has to leave it can be told so."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from random import Random

import pytest
import sqlalchemy as sa

from cumulet.compute.store import hosts
from cumulet.host.wiring import Router
from cumulet.network.router_hosts import host_of
from cumulet.testing.simulation.cloud import SimulatedCloud
from cumulet.testing.simulation.faults import Weather
from cumulet.testing.simulation.foundation import foundation
from cumulet.testing.simulation.invariants import Broken
from cumulet.testing.simulation.network_invariants import HANDED_OVER_SECONDS, LEFT_ALONE_SECONDS
from cumulet.testing.simulation.virtual_time import VirtualLoop

ROUTER = Router(id="00000000-0000-4000-8000-000000000000", interfaces=())
TWO = ("host1", "host2")
PLACE, OTHER = sorted(TWO, key=lambda name: name != host_of(ROUTER.id, TWO))
TWICE = "router 00000000 is served by host1 and host2"


@pytest.fixture
def cloud() -> Iterator[SimulatedCloud]:
    """Two hosts without watchdogs serve a router; nobody tells them anything."""
    foundation()
    loop = VirtualLoop()
    asyncio.set_event_loop(loop)
    cloud = SimulatedCloud(loop, Random(0), Weather(), lambda text: None)
    row = {"zone": "nova", "disabled": False, "forced_down": False, "up": True, "created_at_us": 0, "updated_at_us": 0}
    known = [{**row, "name": name, "service_uuid": name, "hypervisor_uuid": name} for name in TWO]
    cloud.db.write(lambda tx: tx.execute(sa.insert(hosts), known))
    for name in TWO:
        cloud.machines[name].watchdog = None
        cloud.machines[name].serve((ROUTER,))
    try:
        yield cloud
    finally:
        asyncio.set_event_loop(None)
        loop.close()


def becomes(cloud: SimulatedCloud, name: str, **columns: bool) -> None:
    """What the records say of a host from now on."""
    change = sa.update(hosts).where(hosts.c.name == name).values(**columns)
    cloud.db.write(lambda tx: tx.execute(change))


def look_after(cloud: SimulatedCloud, seconds: float) -> None:
    cloud.loop.run_until_complete(asyncio.sleep(seconds))
    cloud.always.look()


def test_a_host_that_falls_silent_before_it_is_told_keeps_a_router_until_it_answers(cloud: SimulatedCloud) -> None:
    """It was disabled, so the router's place is the other."""
    becomes(cloud, PLACE, disabled=True)
    becomes(cloud, PLACE, up=False)
    look_after(cloud, 2 * HANDED_OVER_SECONDS)
    becomes(cloud, PLACE, up=True)
    look_after(cloud, HANDED_OVER_SECONDS - 1.0)
    with pytest.raises(Broken, match=TWICE):
        look_after(cloud, 2.0)


def test_a_silent_host_keeps_a_router_whose_place_came_back(cloud: SimulatedCloud) -> None:
    becomes(cloud, OTHER, up=False)
    look_after(cloud, 2 * HANDED_OVER_SECONDS)


def test_silence_alone_moves_no_router(cloud: SimulatedCloud) -> None:
    becomes(cloud, PLACE, up=False)
    look_after(cloud, LEFT_ALONE_SECONDS - 1.0)
    with pytest.raises(Broken, match=TWICE):
        look_after(cloud, 2.0)
