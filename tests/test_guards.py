"""What each generated test guards: with the guard switched off, the test fails.

A test that is made from a registry may come to prove nothing without anybody noticing: it stays green. Each entry here
takes away what one of them guards, and runs it; were it to pass, it would be no guard.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cumulet.agent.fence import FileFence, Mark, MemoryFence
from cumulet.compute import copying, live_migration, scheduler
from cumulet.conductor.saga import nothing
from cumulet.drivers.simulated.driver import SimulatedDriver
from cumulet.image.qcow2 import Refused
from cumulet.processes.parts import SAGAS
from cumulet.testing.simulation.planted import planted
from cumulet.web import dispatch, json_reader, refusals
from cumulet.web.operation import Call, Caller
from cumulet.web.policy import RULES
from cumulet.web.shapes import validator_of
from tests import query_guards as query_guards  # fills the table, too
from tests import scan_guards as scan_guards  # likewise
from tests import step_guards as step_guards  # likewise
from tests import test_docs
from tests.agent import test_fence
from tests.api.identity import test_policy_table
from tests.api.identity.place import Place as IdentityPlace
from tests.api.identity.policy_world import World
from tests.compute import test_scheduler, test_what_hosts_are_told
from tests.drivers import test_contract
from tests.every_operation import (
    test_every_operation,
    test_large_bodies,
    test_numbers_and_names,
    test_policy_defaults,
    test_transactions,
    test_who_may,
)
from tests.every_operation.asking import Case, Stage, staged
from tests.every_operation.rehearsal import opened
from tests.every_saga import faults, test_aborts, test_every_step, test_late_commands
from tests.every_saga import stage as saga_stage
from tests.every_saga.late import Told, look_into
from tests.guards import SWITCHES, generated, replaced_operation, without
from tests.image import attack_images, test_inspection
from tests.simulation import test_simulation


def case_of(name: str) -> Case:
    (found,) = [case for case in test_who_may.CASES if str(case) == name]
    return found


STOP = "compute POST /servers/{server_id}/action os-stop"
SHOW = "compute GET /servers/{server_id}"
CREATE = "compute POST /flavors"

# -- operations


@without(test_every_operation.test_it_asks_for_a_token, "that a token is looked at")
def _(patch: pytest.MonkeyPatch, stage: Stage) -> None:
    caller = stage.cloud.await_(_caller(stage, stage.client("admin").token or ""))

    async def anybody(*_: object) -> Any:
        return caller

    patch.setattr(dispatch.Exchange, "caller_of_token", anybody)
    test_every_operation.test_it_asks_for_a_token(stage, case_of(SHOW))


async def _caller(stage: Stage, token: str) -> Caller | None:
    identity = stage.cloud.embedded.identity
    return await identity.authenticate(token, service="compute", method="GET", path="/")


@without(
    test_every_operation.test_the_name_of_nothing_is_refused_without_falling_over, "that what is missing is missed"
)
def _(patch: pytest.MonkeyPatch, stage: Stage) -> None:
    case, server = case_of(SHOW), stage.request(case_of(SHOW)).parameters["server_id"]
    target = case.operation.target
    assert target is not None

    def any_server(call: Call[object, object]) -> Any:
        assert target is not None
        return target(msgspec.structs.replace(call, path={"server_id": server}))

    with replaced_operation(stage, case.operation, target=any_server):
        test_every_operation.test_the_name_of_nothing_is_refused_without_falling_over(stage, case)


@without(test_every_operation.test_nonsense_is_refused_without_falling_over, "that a body is checked")
def _(patch: pytest.MonkeyPatch, stage: Stage) -> None:
    patch.setattr(dispatch.Exchange, "_body", lambda _self, _operation, sent: sent)
    test_every_operation.test_nonsense_is_refused_without_falling_over(stage, case_of(CREATE))


@without(test_who_may.test_every_operation_has_an_example_for_each_of_its_rules, "an operation's example")
def _(patch: pytest.MonkeyPatch, stage: Stage) -> None:
    operation = msgspec.structs.replace(case_of(SHOW).operation, path="/servers/{server_id}/new")
    test_who_may.test_every_operation_has_an_example_for_each_of_its_rules(operation)


@without(test_who_may.test_no_example_is_out_of_date, "an operation that has an example")
def _(patch: pytest.MonkeyPatch, stage: Stage) -> None:
    patch.setattr(test_who_may, "OPERATIONS", [o for o in test_who_may.OPERATIONS if o.action != "os-stop"])
    test_who_may.test_no_example_is_out_of_date("compute")


@without(test_who_may.test_each_persona_gets_what_the_rules_say, "a rule")
def _(patch: pytest.MonkeyPatch, stage: Stage) -> None:
    case = case_of(STOP)
    with opened(stage.cloud, frozenset(rule.name for rule in case.operation.rules), None):
        test_who_may.test_each_persona_gets_what_the_rules_say(stage, case)


@without(test_who_may.test_it_is_the_rule_that_refuses, "what makes the request one that would be accepted")
def _(patch: pytest.MonkeyPatch, stage: Stage) -> None:
    case = case_of(CREATE)
    hollow = dataclasses.replace(case, example=dataclasses.replace(case.example, body={}))
    test_who_may.test_it_is_the_rule_that_refuses(stage, hollow)


@without(test_policy_defaults.test_a_rule_is_upstreams, "upstream's default of a rule")
def _(patch: pytest.MonkeyPatch, stage: Stage) -> None:
    rule = RULES["os_compute_api:servers:stop"]
    test_policy_defaults.test_a_rule_is_upstreams(msgspec.structs.replace(rule, check="@"))


@without(test_policy_defaults.test_a_base_rule_is_upstreams, "upstream's text of a base rule")
def _(patch: pytest.MonkeyPatch, stage: Stage) -> None:
    rule = RULES["compute/project_member_api"]
    test_policy_defaults.test_a_base_rule_is_upstreams(msgspec.structs.replace(rule, check="role:member"))


@without(test_numbers_and_names.test_a_number_beyond_all_bounds_in_a_query_is_no_error_of_ours, "a number's bound")
def _(patch: pytest.MonkeyPatch, stage: Stage) -> None:
    case = case_of("network GET /networks")
    with replaced_operation(stage, case.operation, handler=lambda call: range(int(call.query.get("limit") or "1"))[-1]):
        test_numbers_and_names.test_a_number_beyond_all_bounds_in_a_query_is_no_error_of_ours(stage, case, patch)


@without(test_numbers_and_names.test_a_number_beyond_all_bounds_in_a_path_is_no_error_of_ours, "a number's bound")
def _(patch: pytest.MonkeyPatch, stage: Stage) -> None:
    case = case_of(SHOW)
    with replaced_operation(stage, case.operation, target=_too_large):
        test_numbers_and_names.test_a_number_beyond_all_bounds_in_a_path_is_no_error_of_ours(stage, case)


def _too_large(call: Call[object, object]) -> None:
    raise OverflowError


@without(test_numbers_and_names.test_a_text_is_one_line, "the pattern of a name")
def _(patch: pytest.MonkeyPatch, stage: Stage) -> None:
    patch.setattr(test_numbers_and_names, "validator_of", lambda _: validator_of({"type": "string"}))
    test_numbers_and_names.test_a_text_is_one_line(case_of(CREATE).operation)


@without(test_numbers_and_names.test_what_its_path_names_is_one_line, "that a tag is looked at")
def _(patch: pytest.MonkeyPatch, stage: Stage) -> None:
    made = test_numbers_and_names.MADE_BY_PATH
    case = next(c for c in made if str(c).startswith("network") and c.operation.path.endswith("/{tag}"))
    with replaced_operation(stage, case.operation, handler=lambda call: None):
        test_numbers_and_names.test_what_its_path_names_is_one_line(stage, case)


@without(test_large_bodies.test_no_body_takes_long, "that a body has few values, or that one fault of it is enough")
def _(patch: pytest.MonkeyPatch, stage: Stage) -> None:
    patch.setattr(json_reader, "MOST_VALUES", json_reader.LARGEST_BODY)
    patch.setattr(refusals, "MOST_JUDGED", json_reader.LARGEST_BODY)
    patch.setattr(test_large_bodies, "large", lambda _: {"numbers": [0] * (json_reader.LARGEST_BODY // 3)})
    (operation,) = [o for o in test_large_bodies.OPERATIONS if o.name == "create_server_group"]
    test_large_bodies.test_no_body_takes_long(operation)


@without(test_transactions.test_no_transaction_takes_long, "that work which needs no database is done outside")
def _(patch: pytest.MonkeyPatch, stage: Stage) -> None:
    measured = test_transactions.measured_ms(patch)
    case = case_of(CREATE)
    with replaced_operation(stage, case.operation, target=_long_work):
        test_transactions.test_no_transaction_takes_long(stage, case, measured)


def _long_work(call: Call[object, object]) -> None:
    until = time.thread_time() + 4 * test_transactions.MOST_MS / 1000
    while time.thread_time() < until:
        pass


# -- sagas


@without(test_every_step.test_there_is_a_story_for_every_saga, "a saga's story")
def _(patch: pytest.MonkeyPatch, stage: Stage) -> None:
    test_every_step.test_there_is_a_story_for_every_saga("a new one")


@without(test_every_step.test_afterwards_all_agree_and_nothing_is_left, "an undo")
def _(patch: pytest.MonkeyPatch, stage: Stage) -> None:
    saga = SAGAS["live-migration"]
    position = [step.name for step in saga.steps].index("bind_ports")
    steps = list(saga.steps)
    steps[position] = dataclasses.replace(steps[position], undo=nothing)
    patch.setitem(SAGAS, "live-migration", dataclasses.replace(saga, steps=tuple(steps)))
    last = faults.Place("live-migration", len(steps) - 1)
    case = faults.Case("live-migration", last, faults.Fault.FAILS_AFTER)
    with contextlib.closing(_Stopped(saga_stage.Stage(stage.cloud.embedded.settings.state_dir / "saga"))) as made:
        test_every_step.test_afterwards_all_agree_and_nothing_is_left(made.stage, case)


@without(test_late_commands.test_what_comes_late_or_twice_changes_nothing, "that hosts refuse earlier steps")
def _(patch: pytest.MonkeyPatch, stage: Stage) -> None:
    last = faults.Place("resize", len(SAGAS["resize"].steps) - 1)
    case = faults.Case("resize", last, faults.Fault.FAILS_AFTER)
    stopped = contextlib.closing(_Stopped(saga_stage.Stage(stage.cloud.embedded.settings.state_dir / "late")))
    with planted("dropping_the_step_check"), stopped as made:
        world = made.stage.cloud.embedded.world
        assert world is not None
        told = Told(look_into(world))
        with told.listening(made.stage.cloud.embedded.hosts):
            test_late_commands.test_what_comes_late_or_twice_changes_nothing(made.stage, told, case)


@dataclasses.dataclass
class _Stopped:
    """A stage of sagas that is stopped at the end."""

    stage: saga_stage.Stage

    def close(self) -> None:
        self.stage.stop()


# -- images


@without(test_inspection.test_an_honest_image_is_accepted_with_its_virtual_size, "that an honest image is taken")
def _(patch: pytest.MonkeyPatch, stage: Stage) -> None:
    patch.setattr(test_inspection, "LIMIT", 1)
    test_inspection.test_an_honest_image_is_accepted_with_its_virtual_size(next(iter(attack_images.honest())), "whole")


@without(test_inspection.test_a_hostile_image_is_refused, "that a file is looked into")
def _(patch: pytest.MonkeyPatch, stage: Stage) -> None:
    patch.setattr(test_inspection, "inspect", lambda *_: 0)
    test_inspection.test_a_hostile_image_is_refused(next(iter(attack_images.hostile())), "whole")


# -- drivers, and what they are told


@without(test_contract.test_a_verb_does_what_the_contract_says, "that a suspended guest is not started")
def _(patch: pytest.MonkeyPatch, stage: Stage) -> None:
    patch.setattr(SimulatedDriver, "_refuse_suspended", lambda *_: None)
    with tempfile.TemporaryDirectory() as folder:
        test_contract.test_a_verb_does_what_the_contract_says(Path(folder), "suspended", "start")


@without(test_contract.test_verbs_that_leave_a_guest_as_it_is_do_so_one_after_the_other, "that it is left as it is")
def _(patch: pytest.MonkeyPatch, stage: Stage) -> None:
    patch.setattr(SimulatedDriver, "_refuse_suspended", lambda *_: None)
    with tempfile.TemporaryDirectory() as folder:
        test_contract.test_verbs_that_leave_a_guest_as_it_is_do_so_one_after_the_other(Path(folder), "suspended")


@without(test_what_hosts_are_told.test_a_verb_tells_hosts_what_the_table_says, "that a paused guest stays so")
def _(patch: pytest.MonkeyPatch, stage: Stage) -> None:
    forgetful = functools.partial(_copy_parameters, copying.copy_parameters)
    patch.setattr(live_migration, "copy_parameters", forgetful)
    folder, settings = stage.cloud.embedded.settings.state_dir / "told", test_what_hosts_are_told.SETTINGS
    with contextlib.closing(_Stopped(saga_stage.Stage(folder, **settings))) as made:
        test_what_hosts_are_told.test_a_verb_tells_hosts_what_the_table_says(made.stage, "paused", "os-migrateLive")


def _copy_parameters(original: Callable[..., object], context: object, *, paused: bool = False, **more: object) -> Any:
    return original(context, **more)


@without(test_scheduler.test_one_thing_that_is_wrong_is_the_reason, "that a host has the memory")
def _(patch: pytest.MonkeyPatch, stage: Stage) -> None:
    patch.setattr(scheduler, "_lacks", lambda *_: False)
    case = next(case for case in test_scheduler.CASES if case[0] is scheduler.Reason.INSUFFICIENT_MEMORY)
    test_scheduler.test_one_thing_that_is_wrong_is_the_reason(*case)


@without(test_fence.test_the_last_mark_of_each_guest_is_found_again_and_again, "that a mark is kept on disk")
def _(patch: pytest.MonkeyPatch, stage: Stage) -> None:
    test_fence.test_the_last_mark_of_each_guest_is_found_again_and_again(Path(), lambda _: MemoryFence())


@without(test_fence.test_what_is_older_than_what_was_accepted_is_refused_also_by_the_next_agents, "that steps count")
def _(patch: pytest.MonkeyPatch, stage: Stage) -> None:
    before, now = Mark(3, 7), Mark(3, 0)
    place = stage.cloud.embedded.settings.state_dir / "fence"
    with planted("dropping_the_step_check"):
        test_fence.test_what_is_older_than_what_was_accepted_is_refused_also_by_the_next_agents(
            place, FileFence, before, now, test_fence.stop
        )


# -- identity, documents, the simulation


@without(test_policy_table.test_every_persona_gets_what_keystone_would_give, "upstream's rules")
def _(patch: pytest.MonkeyPatch, stage: Stage) -> None:
    class Anything:
        """A Keystone in which everybody may do everything."""

        def enforce(self, *_: object) -> bool:
            return True

    with tempfile.TemporaryDirectory() as folder, contextlib.closing(IdentityPlace(Path(folder))) as place:
        world = World(place)
        test_policy_table.test_every_persona_gets_what_keystone_would_give(
            "GET /users", world, list(world.personas()), Anything()
        )


@without(test_docs.test_every_link_and_every_named_file_is_there, "a file that a document names")
def _(patch: pytest.MonkeyPatch, stage: Stage) -> None:
    with tempfile.TemporaryDirectory() as folder:
        document = Path(folder, "page.md")
        document.write_text("See `src/cumulet/nothing.py`.")
        test_docs.test_every_link_and_every_named_file_is_there(document)


@without(test_docs.test_every_test_that_a_document_names_exists, "a test that a document names")
def _(patch: pytest.MonkeyPatch, stage: Stage) -> None:
    with tempfile.TemporaryDirectory() as folder:
        document = Path(folder, "page.md")
        document.write_text("Shown by `tests/test_docs.py::test_nothing_of_the_kind`.")
        test_docs.test_every_test_that_a_document_names_exists(document)


@without(
    test_aborts.test_an_abort_that_comes_just_before_the_line_takes_all_back, "an abort once all steps above are done"
)
def _(patch: pytest.MonkeyPatch, stage: Stage) -> None:
    with planted("overlooking_an_abort_at_the_line"):
        test_aborts.test_an_abort_that_comes_just_before_the_line_takes_all_back("live-migration", patch)


@without(test_simulation.test_no_promise_is_broken, "that hosts refuse what is late")
def _(patch: pytest.MonkeyPatch, stage: Stage) -> None:
    patch.setattr(test_simulation, "SEEDS_PER_TEST", 60)
    patch.setattr(test_simulation, "shrink", lambda told: told)
    with planted("resuming_before_the_commit"):
        test_simulation.test_no_promise_is_broken(1)


@without(test_simulation.test_a_planted_mistake_is_caught, "a mistake")
def _(patch: pytest.MonkeyPatch, stage: Stage) -> None:
    patch.setattr(test_simulation, "CAUGHT_WITHIN", 2)
    patch.setattr(test_simulation, "planted", lambda _: contextlib.nullcontext())
    test_simulation.test_a_planted_mistake_is_caught("resuming_before_the_commit")


# -- the list itself


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with staged() as made:
        yield made


@pytest.mark.parametrize("name", SWITCHES)
def test_without_what_it_guards_it_fails(name: str, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    guard, switch = SWITCHES[name]
    try:
        switch(monkeypatch, stage)
    except (AssertionError, pytest.fail.Exception, Refused) as failure:
        came_through = [frame.name for frame in traceback.extract_tb(failure.__traceback__)]
        assert name.partition("::")[2] in came_through, "the test fails, and not what prepares it"
        return
    pytest.fail(f"{name} passes without {guard}", pytrace=False)


def test_every_generated_test_is_in_the_list() -> None:
    assert set(generated()) == SWITCHES.keys()
