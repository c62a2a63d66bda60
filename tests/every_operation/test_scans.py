"""No change reads a whole table: what it costs, and how long others wait for it, does not grow with what there is."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

import cumulet.testing
from cumulet.testing.databases import VARIABLE
from tests import sql_plans
from tests.every_operation.asking import Case, Stage
from tests.every_operation.test_transactions import WRITES

pytestmark = pytest.mark.skipif(VARIABLE in os.environ, reason="SQLite is asked for its plans")

BY_ADMINISTRATORS: dict[str, set[str]] = {
    "network DELETE /network_segment_ranges/": {"networks", "network_segments"},
    "network POST /network_segment_ranges": {"networks", "network_segments"},
    "network PUT /network_segment_ranges/": {"networks", "network_segments"},
    "placement DELETE /resource_classes/": {"allocations"},
    "placement PUT /resource_classes/": {"allocations"},
}
"""Beginnings of the names of rare changes, and the tables that each reads as a whole."""


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with cumulet.testing.cloud(hosts=4) as cloud:
        yield Stage(cloud)


@pytest.mark.parametrize("case", WRITES, ids=str)
def test_no_change_reads_a_whole_table(stage: Stage, case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = stage.request(case)
    with sql_plans.changes(monkeypatch) as statements:
        stage.ask(case, sent, "admin" if "admin" in case.example.may else min(case.example.may))
    rare = {table for name, tables in BY_ADMINISTRATORS.items() if str(case).startswith(name) for table in tables}
    found = {sql: tables - rare for sql, tables in sql_plans.read_whole(set(statements)).items()}
    assert not any(found.values()), found
