"""Guards of the tables of steps: without an undo, and with the record before the last step, the tests of them fail.
`tests/test_guards.py` runs these."""

from __future__ import annotations

import dataclasses

import pytest

from cumulet.conductor.saga import nothing
from cumulet.processes.parts import SAGAS
from tests.every_operation.asking import Stage
from tests.every_saga import test_step_tables
from tests.guards import without


@without(test_step_tables.test_every_step_has_an_undo_and_a_name_of_its_own, "an undo")
def _(patch: pytest.MonkeyPatch, stage: Stage) -> None:
    saga = SAGAS["boot"]
    steps = tuple(dataclasses.replace(step, undo=nothing) for step in saga.steps)
    test_step_tables.test_every_step_has_an_undo_and_a_name_of_its_own(dataclasses.replace(saga, steps=steps))


@without(test_step_tables.test_a_server_is_shown_idle_only_once_it_takes_the_next_action, "that the record comes last")
def _(patch: pytest.MonkeyPatch, stage: Stage) -> None:
    saga = SAGAS["snapshot"]
    turned = dataclasses.replace(saga, finals=saga.finals[::-1])
    test_step_tables.test_a_server_is_shown_idle_only_once_it_takes_the_next_action(turned)
