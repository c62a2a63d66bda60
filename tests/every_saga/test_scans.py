"""No step of a saga, and no reconciler, reads a whole table in a transaction that writes: others would wait for it."""

from __future__ import annotations

import os

import pytest

from cumulet.compute.history import History
from cumulet.compute.per_server import PerServer
from cumulet.testing.databases import VARIABLE
from tests import sql_plans
from tests.every_saga.stage import Stage
from tests.every_saga.stories import STORIES

pytestmark = pytest.mark.skipif(VARIABLE in os.environ, reason="SQLite is asked for its plans")


@pytest.fixture
def stage(stages: list[Stage], request: pytest.FixtureRequest) -> Stage:
    settings = STORIES[request.node.callspec.params["story"]].settings
    if not stages or stages[-1].settings != settings:
        stages.append(Stage(None, **settings))
    return stages[-1]


def look(stage: Stage) -> None:
    """All that a timer would do."""
    stage.cloud.reconcile()
    for reconciler in stage.cloud.embedded.conductor.reconcilers:
        if isinstance(reconciler, PerServer | History):
            stage.cloud.await_(reconciler.round())


@pytest.mark.parametrize("story", list(STORIES))
def test_no_step_reads_a_whole_table(stage: Stage, story: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.plan({})
    with sql_plans.changes(monkeypatch) as statements:
        server_id = STORIES[story].begin(stage)
        stage.settle()
        look(stage)
        stage.settle()
    stage.all_back()
    record = stage.record(server_id)
    if record is not None and record.deleted_at_us is None:
        assert stage.cloud.persona("admin").compute("DELETE", f"/servers/{server_id}").status == 204
        stage.settle()
    assert statements, "something was written"
    assert sql_plans.read_whole(set(statements)) == {}
