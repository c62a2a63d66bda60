"""Every step of every saga, and every undo, fails or takes the process along: afterwards all agree, nothing is left.

The cases are made from the registry of sagas. The cloud is the whole one with simulated hosts; where the process dies,
a new one starts on the state folder that the dead one left.
"""

from __future__ import annotations

import pytest

from cumulet.processes.parts import SAGAS

from .faults import Case
from .stage import SETTLED_SECONDS, Stage
from .stories import STORIES, cases


@pytest.fixture
def stage(stages: list[Stage], request: pytest.FixtureRequest) -> Stage:
    """The cloud that the case before has left, if it left it well, and this one needs no other settings."""
    settings = STORIES[request.node.callspec.params["case"].story].settings
    if not stages or not stages[-1].left_well or stages[-1].settings != settings:
        stages.append(Stage(None, **settings))
    stages[-1].left_well = False
    return stages[-1]


@pytest.mark.parametrize("saga", SAGAS)
def test_there_is_a_story_for_every_saga(saga: str) -> None:
    assert saga in {story.saga for story in STORIES.values()}


@pytest.mark.parametrize("case", list(cases()), ids=str)
def test_afterwards_all_agree_and_nothing_is_left(stage: Stage, case: Case) -> None:
    story = STORIES[case.story]
    script = stage.plan(case.faults)
    server_id = story.begin(stage)
    if case.fault.dies:
        assert script.died.wait(SETTLED_SECONDS), "the step was reached"
        stage.stop()
        stage.start()
    stage.settle()
    stage.require_struck(script)
    if case.place.saga == "evacuation":
        assert stage.strays() == [], "what a reconciler would remove counts as left"
        stage.all_back()
    assert stage.problems() == []
    story.judge(stage, server_id, case)
    stage.plan({})
    record = stage.record(server_id)
    if record is not None and record.deleted_at_us is None:
        assert stage.cloud.persona("admin").compute("DELETE", f"/servers/{server_id}").status == 204
        stage.settle()
    assert stage.problems() == []
    stage.left_well = True
