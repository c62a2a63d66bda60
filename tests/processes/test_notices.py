"""An API alone tells conductors of what it has begun; while they do not hear it, they find it when they look."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx
import msgspec
import pytest
import sqlalchemy as sa

import cumulet.testing
from cumulet.clock import SystemClock
from cumulet.db import notices
from cumulet.db.engine import Tx, opened
from cumulet.processes.api import api_alone
from cumulet.processes.parts import PARTS
from cumulet.testing import Client, TestCloud
from tests.api.servers import image_and_flavor
from tests.identity.test_postgresql import database_url

__all__ = ["database_url"]
pytestmark = pytest.mark.postgres
LEASE_SECONDS = 36_000.0
"""Conductors sweep every quarter of it, so no sweep comes during a test."""
END_LISTENERS = sa.text(
    "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'"
)


def test_what_is_said_is_heard_once_it_is_durable_and_not_if_it_is_taken_back(database_url: str) -> None:
    heard: list[str] = []

    async def story() -> None:
        come = asyncio.Event()

        def hear(words: str) -> None:
            heard.append(words)
            come.set()

        with opened(database_url) as db:
            listening = notices.Listening(db=db, clock=SystemClock(), hear={"told": hear})
            await listening.start()
            await listening.listens.wait()

            def taken_back(tx: Tx) -> None:
                tx.say("told", "no")
                raise ZeroDivisionError

            with pytest.raises(ZeroDivisionError):
                await db.write_async(taken_back)
            await db.write_async(lambda tx: tx.say("told", "yes"))
            await come.wait()
            await listening.stop()

    asyncio.run(asyncio.wait_for(story(), 60))
    assert heard == ["yes"]


def test_a_notice_that_cannot_be_used_costs_no_other(database_url: str) -> None:
    heard: list[str] = []

    async def story() -> None:
        come = asyncio.Event()

        def hear(words: str) -> None:
            if words == "bad":
                raise ValueError(words)
            heard.append(words)
            come.set()

        def say(tx: Tx) -> None:
            for words in ("bad", "good"):
                tx.say("told", words)

        with opened(database_url) as db:
            listening = notices.Listening(db=db, clock=SystemClock(), hear={"told": hear})
            await listening.start()
            await listening.listens.wait()
            await db.write_async(say)
            await come.wait()
            await listening.stop()

    asyncio.run(asyncio.wait_for(story(), 30))
    assert heard == ["good"]


@pytest.fixture
def cloud(database_url: str) -> Iterator[TestCloud]:
    with cumulet.testing.cloud(hosts=2, database_url=database_url, lease_seconds=LEASE_SECONDS) as running:
        yield running


def test_a_server_asked_for_at_an_api_alone_is_begun_at_once(
    cloud: TestCloud, database_url: str, tmp_path: Path
) -> None:
    admin = cloud.persona("admin")
    listening = cloud.embedded.conductor.elsewhere
    settings = msgspec.structs.replace(cloud.embedded.settings, listen_port=0)
    alone = api_alone(PARTS, settings, tmp_path / "api")
    api = cloud.await_(alone.__aenter__())
    try:
        context = ssl.create_default_context(cafile=str(cloud.cacert))
        url = f"https://127.0.0.1:{api.server.port}"
        with httpx.Client(base_url=url, verify=context, timeout=60) as http:
            there = Client(http, admin.token, project_id=admin.project_id)

            def asked_for() -> str:
                wanted = {"name": "s", "networks": "none", **image_and_flavor(there)}
                return str(there.compute("POST", "/servers", {"server": wanted})["server"]["id"])

            there.wait("its ear", listening.listens.is_set)
            there.wait_for_status(asked_for(), "ACTIVE")
            # A connection that is lost is made again; what was said meanwhile is found when all is looked at.
            with opened(database_url) as db:
                assert db.write(lambda tx: tx.scalar(END_LISTENERS)) == 1
            there.wait("the loss to be seen", lambda: not listening.listens.is_set())
            missed = asked_for()
            cloud.clock.advance(notices.AGAIN_SECONDS)
            there.wait("its ear", listening.listens.is_set)
            there.wait_for_status(asked_for(), "ACTIVE")
            assert there.server(missed)["status"] == "BUILD"
            cloud.await_(cloud.embedded.runner.sweep())
            there.wait_for_status(missed, "ACTIVE")
    finally:
        cloud.await_(alone.__aexit__(None, None, None))
