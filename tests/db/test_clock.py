"""Processes on one PostgreSQL agree on the time, even if their machines' clocks differ."""

from __future__ import annotations

import asyncio

import pytest
import sqlalchemy as sa

from cumulet.clock import SystemClock
from cumulet.db.clock import DatabaseClock
from cumulet.db.engine import opened
from tests.identity.test_postgresql import database_url

__all__ = ["database_url"]


class Wrong(SystemClock):
    """Of a machine that was never set."""

    def now_us(self) -> int:
        return 0


@pytest.mark.postgres
def test_a_machine_that_is_wrong_has_the_databases_time(database_url: str) -> None:
    with opened(database_url) as db:
        clock = DatabaseClock(db, Wrong())
        asyncio.run(clock.ask())
        before = db.read(lambda tx: tx.scalar(sa.text("SELECT extract(epoch FROM clock_timestamp() - interval '1s')")))
        after = db.read(lambda tx: tx.scalar(sa.text("SELECT extract(epoch FROM clock_timestamp() + interval '1h')")))
        assert before < clock.now_us() / 1e6 < after
