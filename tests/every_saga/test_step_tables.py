"""The page about live migration shows the steps the code has, and the tables of steps are well formed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from cumulet.compute.operations import SERVER
from cumulet.conductor.saga import Saga, is_database_step, nothing
from cumulet.processes.parts import SAGAS
from cumulet.processes.step_tables import renewed

DECIDES = "it only decides, and writes the decision into the saga's own state"
LOOKS = "it only looks"
UNDONE_BY_NOTHING = {
    ("boot", "pick_host"): DECIDES,
    ("crash-dump", "inject_nmi"): "a guest that was interrupted was interrupted: nothing takes it back",
    ("evacuation", "pick_destination"): DECIDES,
    ("evacuation", "stop_source"): "its host is said to be down: what may still run there is to be stopped in any case",
    ("live-migration", "pick_destination"): DECIDES,
    ("rebuild", "show_spawning"): "the saga's end, either one, writes the task's state anew",
    ("resize", "pick_destination"): DECIDES,
    ("resize", "take_in"): "start_destination's undo destroys what it has left there",
    ("resize", "let_source_rest"): "stop_guest's undo starts the guest again, with the disk it has kept",
    ("resize-reversion", "look_at_source"): LOOKS,
    ("unshelve", "pick_host"): DECIDES,
}
"""Steps with no undo of their own, each with its reason. A new one has one."""
PAGE = Path(__file__).parent.parent.parent / "docs" / "live-migration.md"


def test_the_page_shows_the_steps_the_code_has() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert renewed(page) == page, f"run: python -m cumulet.processes.step_tables --write docs/{PAGE.name}"


@pytest.mark.parametrize("saga", SAGAS.values(), ids=lambda saga: saga.name)
def test_every_step_has_an_undo_and_a_name_of_its_own(saga: Saga[Any]) -> None:
    names = [item.name for item in saga.plan]
    assert len(names) == len(set(names))
    for step in saga.steps:
        assert step.undo is not step.do, step.name
        assert step.undo is nothing or (saga.name, step.name) not in UNDONE_BY_NOTHING, f"{step.name} has an undo"
        assert step.undo is not nothing or (saga.name, step.name) in UNDONE_BY_NOTHING, f"{step.name} has no undo"


@pytest.mark.parametrize("saga", [one for one in SAGAS.values() if one.kind == SERVER], ids=lambda saga: saga.name)
def test_a_server_is_shown_idle_only_once_it_takes_the_next_action(saga: Saga[msgspec.Struct]) -> None:
    """What the last step records is there in the moment in which the operation ends."""
    assert is_database_step(saga.plan[-1].do)


def test_no_exception_is_out_of_date() -> None:
    assert UNDONE_BY_NOTHING.keys() <= {(saga.name, step.name) for saga in SAGAS.values() for step in saga.steps}
