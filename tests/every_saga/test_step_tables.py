"""The page about live migration shows the steps the code has, and the tables of steps are well formed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cumulet.conductor.saga import Saga
from cumulet.processes.parts import SAGAS
from cumulet.processes.step_tables import renewed

PAGE = Path(__file__).parent.parent.parent / "docs" / "live-migration.md"


def test_the_page_shows_the_steps_the_code_has() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert renewed(page) == page, f"run: python -m cumulet.processes.step_tables --write {PAGE.name}"


@pytest.mark.parametrize("saga", SAGAS.values(), ids=lambda saga: saga.name)
def test_every_step_has_an_undo_and_a_name_of_its_own(saga: Saga[Any]) -> None:
    names = [item.name for item in saga.plan]
    assert len(names) == len(set(names))
    assert all(callable(step.undo) for step in saga.steps)
    assert all((item.do.__doc__ or item.name) for item in saga.plan)
