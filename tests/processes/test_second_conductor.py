"""A conductor beside the one that leads: it carries operations as quickly."""

from __future__ import annotations

import pytest

import cumulet.testing
from cumulet.clock import SystemClock
from cumulet.compute.hosts_in_memory import HostsInMemory
from cumulet.db.engine import opened
from cumulet.processes.conductor import conductor_of
from cumulet.processes.ground import Ground
from cumulet.processes.parts import PARTS
from tests.identity.test_postgresql import database_url

__all__ = ["database_url"]
pytestmark = pytest.mark.postgres


def test_a_conductor_that_does_not_lead_keeps_hosts_in_memory(database_url: str) -> None:
    """It would read all hosts for each choice."""
    with cumulet.testing.cloud(hosts=2, database_url=database_url) as cloud, opened(database_url) as db:
        first = cloud.embedded.conductor
        ground = Ground(settings=cloud.embedded.settings, db=db, clock=SystemClock(), hosts=first.runner.hosts)
        second = conductor_of(PARTS, ground, name="second", alone=False)
        cloud.await_(second.start())
        assert (first.leadership.leads, second.leadership.leads) == (True, False)
        assert isinstance(db.keeper, HostsInMemory)
        assert set(db.keeper.views()) == set(cloud.hosts)
        cloud.await_(second.stop())
        assert db.keeper is None
