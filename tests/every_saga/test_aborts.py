"""Whoever aborts an operation before its line is heeded, also when all steps above the line are done."""

from __future__ import annotations

import msgspec
import pytest
import sqlalchemy as sa

from cumulet.conductor.carried import Carried
from cumulet.conductor.context import StepContext
from cumulet.conductor.runner import Runner
from cumulet.conductor.saga import Saga, Status, is_database_step, operations
from cumulet.db.engine import Tx
from cumulet.processes.parts import SAGAS

from .stage import Stage
from .stories import STORIES

ABORTED = [
    name for name, story in STORIES.items() if (saga := SAGAS[story.saga]).steps and is_database_step(saga.finals[0].do)
]
"""A saga whose line is a step on a host has perhaps done some of it when it is aborted there, and goes on."""


@pytest.mark.parametrize("name", ABORTED)
def test_an_abort_that_comes_just_before_the_line_takes_all_back(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    story, save = STORIES[name], Runner._save
    asked: list[str] = []

    def last_moment(
        self: Runner,
        tx: Tx,
        saga: Saga[msgspec.Struct],
        context: StepContext,
        operation: Carried[msgspec.Struct],
        *,
        state: msgspec.Struct,
        position: int,
    ) -> Carried[msgspec.Struct]:
        at_line = position == len(saga.steps) and operation.status is Status.FORWARD
        if saga.name == story.saga and at_line and not asked:
            asked.append(operation.id)
            tx.execute(sa.update(operations).where(operations.c.id == operation.id).values(abort_requested=True))
        return save(self, tx, saga, context, operation, state=state, position=position)

    stage = Stage(None, **story.settings)
    try:
        monkeypatch.setattr(Runner, "_save", last_moment)
        stage.plan({})
        story.begin(stage)
        stage.settle()
        (operation_id,) = asked
        row = stage.read(lambda tx: tx.first(sa.select(operations).where(operations.c.id == operation_id)))
        assert row.status == Status.UNWOUND
        assert row.error["reason"] == "ABORTED"
        if story.saga == "evacuation":
            stage.all_back()
        assert stage.problems() == []
    finally:
        stage.end()
