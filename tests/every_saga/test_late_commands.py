"""Every command of every step comes again after every later step, and in later operations: nothing is changed by it.

The real agent decides on simulated hosts; `tests/qemu/test_late_commands.py` has a slice of it on real ones.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cumulet.compute.model import VmState
from cumulet.processes.parts import SAGAS
from cumulet.testing.simulation.planted import planted

from .faults import Case, Fault, Place
from .late import Repeating, Told, look_into
from .stage import Stage
from .stories import STORIES, cases

CASES = [case for case in cases() if case.fault is Fault.FAILS_AFTER]
"""What fails before a step is undone as what fails after the step above it."""


@pytest.fixture
def stage(stages: list[Stage], request: pytest.FixtureRequest) -> Stage:
    """The cloud of the case before, if this one needs no other settings."""
    callspec = getattr(request.node, "callspec", None)
    case = callspec.params.get("case") if callspec is not None else None
    settings = {} if case is None else STORIES[case.story].settings
    if not stages or stages[-1].settings != settings:
        stages.append(Stage(None, **settings))
    return stages[-1]


@pytest.fixture
def told(stage: Stage) -> Iterator[Told]:
    """What hosts are told in this test. Nothing of it may have changed anything when it came again."""
    world = stage.cloud.embedded.world
    assert world is not None
    told = Told(look_into(world))
    with told.listening(stage.cloud.embedded.hosts):
        yield told


def repeat_in_every_step(stage: Stage, told: Told, faults: dict[Place, Fault]) -> Repeating:
    script = Repeating(kill=stage.cloud.kill_conductor, planned=dict(faults), told=told)
    stage.cloud.embedded.runner.sagas = script.sagas()
    return script


@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_comes_late_or_twice_changes_nothing(stage: Stage, told: Told, case: Case) -> None:
    """Wherever an operation fails and is undone; and while the server is deleted, which is the next operation."""
    script = repeat_in_every_step(stage, told, case.faults)
    story = STORIES[case.story]
    server_id = story.begin(stage)
    stage.settle()
    stage.require_struck(script)
    stage.cloud.await_(told.repeat("at the end"))
    if case.place.saga == "evacuation":
        stage.all_back()
    story.judge(stage, server_id, case)
    record = stage.record(server_id)
    if record is not None and record.deleted_at_us is None:
        assert stage.cloud.persona("admin").compute("DELETE", f"/servers/{server_id}").status == 204
        stage.settle()
        stage.cloud.await_(told.repeat("after its deletion"))
    assert told.broken == []
    assert stage.problems() == []


LIFE: tuple[tuple[dict[str, object], VmState], ...] = (
    ({"pause": None}, VmState.PAUSED),
    ({"os-migrateLive": {"host": None, "block_migration": "auto"}}, VmState.PAUSED),
    ({"unpause": None}, VmState.ACTIVE),
    ({"suspend": None}, VmState.SUSPENDED),
    ({"resume": None}, VmState.ACTIVE),
    ({"os-migrateLive": {"host": None, "block_migration": "auto"}}, VmState.ACTIVE),
    ({"reboot": {"type": "HARD"}}, VmState.ACTIVE),
    ({"migrate": None}, VmState.RESIZED),
    ({"revertResize": None}, VmState.ACTIVE),
    ({"os-stop": None}, VmState.STOPPED),
    ({"migrate": None}, VmState.RESIZED),
    ({"confirmResize": None}, VmState.STOPPED),
    ({"os-start": None}, VmState.ACTIVE),
    ({"os-migrateLive": {"host": None, "block_migration": "auto"}}, VmState.ACTIVE),
    ({"reboot": {"type": "SOFT"}}, VmState.ACTIVE),
)
"""What is asked of one server after the other, and what it is then. It comes to each host more than once."""


def live(stage: Stage, told: Told) -> None:
    """A life, in each step of which all that was said in it is said again."""
    repeat_in_every_step(stage, told, {})
    server_id = stage.created()
    for action, expected in LIFE:
        answer = stage.cloud.persona("admin").action(server_id, action, version="2.55")
        assert answer.status in (202, 204), answer.text
        stage.settle()
        stage.cloud.await_(told.repeat(f"after {action}"))
        assert told.broken or stage.record(server_id).vm_state == expected
    assert stage.cloud.persona("admin").compute("DELETE", f"/servers/{server_id}").status == 204
    stage.settle()
    stage.cloud.await_(told.repeat("at the end"))


def test_nothing_of_an_earlier_operation_changes_a_later_one(stage: Stage, told: Told) -> None:
    live(stage, told)
    assert told.broken == []
    assert stage.problems() == []


# -- the test itself, tried by taking away what it guards


@pytest.mark.parametrize("mistake", ["dropping_the_generation_check", "dropping_the_step_check"])
def test_without_a_check_something_changes(stage: Stage, told: Told, mistake: str) -> None:
    """In a resize whose last step fails, so that it is undone, and in the deletion after it."""
    last = Place("resize", len(SAGAS["resize"].steps) - 1)
    with planted(mistake):
        repeat_in_every_step(stage, told, {last: Fault.FAILS_AFTER})
        server_id = STORIES["resize"].begin(stage)
        stage.settle()
        assert stage.cloud.persona("admin").compute("DELETE", f"/servers/{server_id}").status == 204
        stage.settle()
        stage.cloud.await_(told.repeat("at the end"))
    assert told.broken
    for host in stage.cloud.hosts:
        stage.cloud.await_(_destroy(stage, host, server_id))


async def _destroy(stage: Stage, host: str, server_id: str) -> None:
    assert stage.cloud.embedded.world is not None
    await stage.cloud.embedded.world.drivers[host].destroy(server_id)
