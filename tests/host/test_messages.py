"""A verb declares itself once: what the codec, the agent and the simulation need of it derives from its class."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from cumulet.agent.agent import Agent
from cumulet.agent.fence import MemoryFence
from cumulet.clock import SystemClock
from cumulet.conductor.saga import Status
from cumulet.drivers.simulated.driver import SimulatedDriver, World
from cumulet.host import codec
from cumulet.host import messages as m
from cumulet.host.driver import GuestState
from cumulet.host.verbs import verbs
from cumulet.processes.parts import SAGAS
from cumulet.settings import Settings


class Wave(m.Question[dict[str, int]], frozen=True, tag="wave"):
    """A verb of somebody else's: made here, and nowhere else."""

    times: int

    async def do(self, host: m.OnHost) -> dict[str, int]:
        return {(await host.facts()).name: self.times}


def agent() -> Agent:
    settings = Settings(state_dir=Path("state"), database_url="sqlite://")
    driver = SimulatedDriver(name="host1", world=World(), clock=SystemClock(), settings=settings, directory=None)
    return Agent(name="host1", driver=driver, fence=MemoryFence())


def test_every_verb_has_a_name_of_its_own_and_says_what_it_answers() -> None:
    names = [m.name_of(verb) for verb in verbs()]
    assert len(set(names)) == len(names) > 30
    assert m.answer_type(m.Observe) is GuestState
    assert m.answer_type(m.Stop) is None


KINDS: dict[str, set[str]] = {
    "lets_run": {
        "create",
        "reboot",
        "rescue",
        "resume",
        "resume-destination",
        "resume-source",
        "start",
        "unpause",
        "unrescue",
    },
    "beside_others": {"cancel-copy", "copy-progress", "force-complete"},
    "needs_lease": {
        "begin-post-copy",
        "begin-snapshot",
        "cancel-copy",
        "copy-progress",
        "create",
        "force-complete",
        "give-up-memory",
        "inject-nmi",
        "pause",
        "plug",
        "prepare-incoming",
        "prepare-outgoing",
        "reboot",
        "recover-copy",
        "recover-incoming",
        "rescue",
        "resume",
        "resume-destination",
        "resume-source",
        "stand-by",
        "stand-down",
        "start",
        "start-copy",
        "suspend",
        "take-in",
        "unpause",
        "unplug",
        "unrescue",
    },
}
"""The commands that may let a guest run, those that may come while another is at work, and those of a valid lease.
Each is written down here once more: a new verb is thought about, and none changes its kind by itself."""


@pytest.mark.parametrize("kind", KINDS)
def test_which_commands_wait_for_what_is_decided_for_each(kind: str) -> None:
    commands = [verb for verb in verbs() if issubclass(verb, m.Command)]
    assert {m.name_of(verb) for verb in commands if getattr(verb, kind)} == KINDS[kind]


def test_what_belongs_to_no_operation_comes_after_every_step_of_one() -> None:
    """It has the generation of the last operation, none of whose late commands may come after it."""
    for saga in SAGAS.values():
        for position in range(len(saga.plan) + 1):
            for status in Status:
                assert saga.number_of(status, position) < m.AFTER_ALL_STEPS, saga.name


def test_unplugging_insists_unless_it_is_told_not_to() -> None:
    """As did the agents and the control planes that had no word for it."""
    older = b'{"number": 1, "message": {"verb": "unplug", "server_id": "a", "operation_id": "o", "generation": 1, '
    message = codec.decode_request(older + b'"step": 2, "port_id": "p"}}').message
    assert isinstance(message, m.Unplug)
    assert message.insist


def test_a_verb_declared_elsewhere_travels_and_is_done() -> None:
    async def story() -> dict[str, int]:
        asked = Wave(times=3)
        request = codec.decode_request(codec.encode(codec.Request(7, asked)))
        answer = codec.decode_answer(codec.encode(await codec.answer(agent(), request)))
        assert answer.number == 7
        return codec.value_of(answer, asked)

    assert asyncio.run(story()) == {"host1": 3}


def test_an_answer_of_another_shape_is_a_hosts_error() -> None:
    """As an agent of the version before gives it."""
    older = codec.Answer(1, {"state": "running", "uptime_s": 5})
    with pytest.raises(m.HostError, match="answer to diagnostics was not understood"):
        codec.value_of(older, m.Diagnostics(server_id="a"))


@pytest.mark.parametrize("value", [None, 5, "no base64"])
def test_an_answer_that_is_no_bytes_is_a_hosts_error(value: object) -> None:
    with pytest.raises(m.HostError, match="answer to console-output was not understood"):
        codec.value_of(codec.Answer(1, value), m.ConsoleOutput(server_id="a", max_bytes=1))


@pytest.mark.parametrize(
    "frame",
    [
        b'{"number": 1, "message": {"verb": "fly"}}',
        b'{"number": 1, "message": {"verb": "observe", "server_id": "a", "colour": "blue"}}',
        b'{"number": 1, "message": {"server_id": "a"}}',
    ],
    ids=["an unknown verb", "an unknown key", "no verb"],
)
def test_what_is_no_message_is_refused(frame: bytes) -> None:
    with pytest.raises(codec.NotUnderstood):
        codec.decode_request(frame)
