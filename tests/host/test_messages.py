"""A verb declares itself once: what the codec, the agent and the simulation need of it derives from its class."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from cumulet.agent.agent import Agent
from cumulet.agent.fence import MemoryFence
from cumulet.clock import SystemClock
from cumulet.drivers.simulated.driver import SimulatedDriver, World
from cumulet.host import codec
from cumulet.host import messages as m
from cumulet.host.driver import GuestState
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
    names = [m.name_of(verb) for verb in m.verbs()]
    assert len(set(names)) == len(names) > 30
    assert m.answer_type(m.Observe) is GuestState
    assert m.answer_type(m.Stop) is None


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
