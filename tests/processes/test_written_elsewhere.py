"""A change of a security group at an API alone is told to hosts at its commit; no timer runs in these tests."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from unittest import mock

import httpx
import msgspec
import pytest
import sqlalchemy as sa

import cumulet.testing
from cumulet.clock import SystemClock
from cumulet.compute import hosts_in_memory
from cumulet.compute.wiring import WATCHED, Wirings
from cumulet.db import notices
from cumulet.db.engine import Tx, opened
from cumulet.db.transaction import WRITTEN
from cumulet.network.store import networks
from cumulet.processes.api import api_alone
from cumulet.processes.parts import PARTS
from cumulet.testing import Client
from tests.compute.test_told_at_once import NEVER, Fleet, Heard
from tests.identity.test_postgresql import database_url
from tests.links import instead

__all__ = ["database_url"]
pytestmark = pytest.mark.postgres


@pytest.fixture(scope="module")
def fleet(database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Its member asks another process's API than the one whose conductor tells hosts."""
    with cumulet.testing.cloud(hosts=2, database_url=database_url) as cloud, ExitStack() as stack:
        # Nothing passes through the networks of simulated hosts, so they would be told by sagas alone.
        stack.enter_context(mock.patch.object(hosts_in_memory, "with_packets", return_value=list(cloud.hosts)))
        told = {host: stack.enter_context(instead(cloud, host, Heard)) for host in cloud.hosts}
        wirings = cloud.embedded.conductor.reconciler(Wirings)
        cloud.await_(wirings.stop())
        wirings.seconds = NEVER
        cloud.await_(wirings.start())
        made = Fleet(cloud, told)
        alone = api_alone(
            PARTS, msgspec.structs.replace(cloud.embedded.settings, listen_port=0), tmp_path_factory.mktemp("api")
        )
        api = cloud.await_(alone.__aenter__())
        stack.callback(lambda: cloud.await_(alone.__aexit__(None, None, None)))
        context = ssl.create_default_context(cafile=str(cloud.cacert))
        url = f"https://127.0.0.1:{api.server.port}"
        http = stack.enter_context(httpx.Client(base_url=url, verify=context, timeout=60))
        made.member = Client(http, made.member.token, project_id=made.member.project_id)
        yield made


def test_hosts_are_told_of_a_rule_that_another_process_has_made(fleet: Fleet) -> None:
    rule = fleet.rule(protocol="tcp", port_range_min=22, port_range_max=22)
    fleet.all_hear(lambda told: rule in fleet.rules(told))


def test_a_process_is_told_once_of_a_commit_be_it_its_own_or_another_ones(fleet: Fleet, database_url: str) -> None:
    """Its own notice comes back to it. A round reads what every host must have: one for each commit is enough."""
    called: list[str] = []

    async def story() -> None:
        heard = asyncio.Event()

        def hear(words: str) -> None:
            ours.hear_written(words)
            heard.set()

        with opened(database_url) as ours:
            ours.watch(WATCHED, lambda: called.append("networks"))
            listening = notices.Listening(db=ours, clock=SystemClock(), hear={WRITTEN: hear})
            await listening.start()
            await listening.listens.wait()
            for one in (ours, fleet.cloud.embedded.db):
                heard.clear()
                await one.write_async(_touch)
                await heard.wait()
            await listening.stop()

    asyncio.run(asyncio.wait_for(story(), 60))
    assert called == ["networks", "networks"]


def _touch(tx: Tx) -> None:
    tx.execute(sa.update(networks).values(mtu=networks.c.mtu))
