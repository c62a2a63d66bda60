"""The closed list of verbs a host agent knows. One message, one answer; commands carry their generation and step.

A verb declares itself once, here or in another module: its name (the tag), request (the fields), answer (in brackets),
how an agent may do it (class variables), how it is done (`do`). The type of `Hosts.send` and the codec derive from it.
"""

from __future__ import annotations

import functools
import typing
from collections.abc import Mapping
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from cumulet.host.diagnostics import GuestCounters
from cumulet.host.driver import (
    Driver,
    Guest,
    GuestReport,
    GuestState,
    HostFacts,
    MigrationParameters,
    MigrationPhase,
    MigrationProgress,
    Nic,
)
from cumulet.host.endpoint import Endpoint, Peer
from cumulet.host.errors import BusLost as BusLost
from cumulet.host.errors import HostError as HostError
from cumulet.host.errors import HostUnreachable as HostUnreachable
from cumulet.host.errors import MessageTooLong as MessageTooLong
from cumulet.host.errors import StaleGeneration as StaleGeneration
from cumulet.host.errors import VerbFailed as VerbFailed
from cumulet.host.patience import seconds_to_make
from cumulet.host.record import Record
from cumulet.host.telling import Heard, Told
from cumulet.host.wiring import InForce, Wiring

AnswerT_co = TypeVar("AnswerT_co", covariant=True)


class OnHost(Protocol):
    """What a verb may use on its host: the host's agent."""

    @property
    def driver(self) -> Driver: ...
    async def facts(self) -> HostFacts: ...
    async def guests(self) -> list[GuestReport]: ...
    async def wire(self, wiring: Wiring) -> InForce: ...
    async def in_force(self) -> InForce: ...
    async def renew_lease(self, session: str, number: int, heard: int | None, agent: str) -> None: ...
    async def welcome(self, session: str, generations: Mapping[str, int]) -> None: ...
    async def tell(self, server_id: str, generation: int, told: Told) -> Heard: ...


class Message(Record, Generic[AnswerT_co], frozen=True, tag_field="verb"):
    """A verb with its request. `AnswerT_co` is what it answers; `messages.answer_type` finds it again."""

    @property
    def work_seconds(self) -> float | None:
        """How long a host may be at it, if that is work on much data (`host.patience`)."""
        return None

    async def do(self, host: OnHost) -> AnswerT_co:
        """Do it on a host. DriverError if it fails."""
        raise NotImplementedError


AFTER_ALL_STEPS = 2**31 - 1
"""The step of commands that belong to no operation: higher than any other step."""


class Command(Message[AnswerT_co], Generic[AnswerT_co], frozen=True):
    """About one guest. `generation` is the server's when the operation began; agents refuse lower ones.

    `step` is the number of the operation's step. It rises when it unwinds, too (`conductor.saga.Saga.number_of`).
    Of the same generation agents refuse earlier steps. A step may be repeated.
    """

    lets_run: ClassVar[bool] = False
    """It may let a guest run: it waits until the control plane has welcomed this agent."""
    makes_anew: ClassVar[bool] = False
    """It makes a guest. What its host still has of the server, from before, is not that guest."""
    beside_others: ClassVar[bool] = False
    """It may run while another command for the same guest runs, such as one that watches or ends the other."""
    needs_lease: ClassVar[bool] = True
    """Without a lease a host only stops guests: other hosts may run them by now."""

    server_id: str
    operation_id: str
    generation: int
    step: int


class Question(Message[AnswerT_co], Generic[AnswerT_co], frozen=True):
    """Changes nothing, so it carries no generation."""


# -- life


class Create(Command[Guest], frozen=True, tag="create"):
    lets_run = makes_anew = True
    guest: Guest
    run: bool = True

    @property
    def work_seconds(self) -> float | None:
        return seconds_to_make(self.guest)

    async def do(self, host: OnHost) -> Guest:
        return await host.driver.create(self.guest, run=self.run)


class Destroy(Command[None], frozen=True, tag="destroy"):
    needs_lease = False

    async def do(self, host: OnHost) -> None:
        await host.driver.destroy(self.server_id)


class Start(Command[None], frozen=True, tag="start"):
    lets_run = True
    drop_saved: bool = False

    async def do(self, host: OnHost) -> None:
        await host.driver.start(self.server_id, drop_saved=self.drop_saved)


class Stop(Command[None], frozen=True, tag="stop"):
    needs_lease = False
    grace_seconds: float

    async def do(self, host: OnHost) -> None:
        await host.driver.stop(self.server_id, grace_seconds=self.grace_seconds)


class Reboot(Command[None], frozen=True, tag="reboot"):
    lets_run = True
    hard: bool

    async def do(self, host: OnHost) -> None:
        await host.driver.reboot(self.server_id, hard=self.hard)


class Pause(Command[None], frozen=True, tag="pause"):
    async def do(self, host: OnHost) -> None:
        await host.driver.pause(self.server_id)


class Unpause(Command[None], frozen=True, tag="unpause"):
    lets_run = True

    async def do(self, host: OnHost) -> None:
        await host.driver.unpause(self.server_id)


class Suspend(Command[None], frozen=True, tag="suspend"):
    async def do(self, host: OnHost) -> None:
        await host.driver.suspend(self.server_id)


class Resume(Command[None], frozen=True, tag="resume"):
    lets_run = True

    async def do(self, host: OnHost) -> None:
        await host.driver.resume(self.server_id)


class Plug(Command[None], frozen=True, tag="plug"):
    nic: Nic

    async def do(self, host: OnHost) -> None:
        await host.driver.plug(self.server_id, self.nic)


class Unplug(Command[None], frozen=True, tag="unplug"):
    port_id: str
    insist: bool = True

    async def do(self, host: OnHost) -> None:
        await host.driver.unplug(self.server_id, self.port_id, insist=self.insist)


class PrepareOutgoing(Command[Peer], frozen=True, tag="prepare-outgoing"):
    move: str

    async def do(self, host: OnHost) -> Peer:
        return await host.driver.prepare_outgoing(self.server_id, move=self.move)


class PrepareIncoming(Command[Endpoint], frozen=True, tag="prepare-incoming"):
    guest: Guest
    source: Peer
    parameters: MigrationParameters

    async def do(self, host: OnHost) -> Endpoint:
        return await host.driver.prepare_incoming(self.guest, source=self.source, parameters=self.parameters)


class ResumeDestination(Command[None], frozen=True, tag="resume-destination"):
    lets_run = True

    async def do(self, host: OnHost) -> None:
        await host.driver.resume_destination(self.server_id)


class StartCopy(Command[None], frozen=True, tag="start-copy"):
    endpoint: Endpoint
    parameters: MigrationParameters

    async def do(self, host: OnHost) -> None:
        await host.driver.start_copy(self.server_id, self.endpoint, self.parameters)


class CopyProgress(Command[MigrationProgress], frozen=True, tag="copy-progress"):
    beside_others = True
    wait_seconds: float
    seen: MigrationPhase

    async def do(self, host: OnHost) -> MigrationProgress:
        return await host.driver.copy_progress(self.server_id, wait_seconds=self.wait_seconds, seen=self.seen)


class ForceComplete(Command[None], frozen=True, tag="force-complete"):
    beside_others = True

    async def do(self, host: OnHost) -> None:
        await host.driver.force_complete(self.server_id)


class BeginPostCopy(Command[None], frozen=True, tag="begin-post-copy"):
    async def do(self, host: OnHost) -> None:
        await host.driver.begin_post_copy(self.server_id)


class RecoverIncoming(Command[Endpoint], frozen=True, tag="recover-incoming"):
    async def do(self, host: OnHost) -> Endpoint:
        return await host.driver.recover_incoming(self.server_id)


class RecoverCopy(Command[None], frozen=True, tag="recover-copy"):
    endpoint: Endpoint

    async def do(self, host: OnHost) -> None:
        await host.driver.recover_copy(self.server_id, self.endpoint)


class GiveUpMemory(Command[None], frozen=True, tag="give-up-memory"):
    async def do(self, host: OnHost) -> None:
        await host.driver.give_up_memory(self.server_id)


class CancelCopy(Command[MigrationProgress], frozen=True, tag="cancel-copy"):
    beside_others = True

    async def do(self, host: OnHost) -> MigrationProgress:
        return await host.driver.cancel_copy(self.server_id)


class ResumeSource(Command[None], frozen=True, tag="resume-source"):
    lets_run = True

    async def do(self, host: OnHost) -> None:
        await host.driver.resume_source(self.server_id)


class StandBy(Command[None], frozen=True, tag="stand-by"):
    async def do(self, host: OnHost) -> None:
        await host.driver.stand_by(self.server_id)


class StandDown(Command[None], frozen=True, tag="stand-down"):
    async def do(self, host: OnHost) -> None:
        await host.driver.stand_down(self.server_id)


class TakeIn(Command[None], frozen=True, tag="take-in"):
    guest: Guest

    async def do(self, host: OnHost) -> None:
        await host.driver.take_in(self.guest)


# -- questions


class AskFacts(Question[HostFacts], frozen=True, tag="facts"):
    async def do(self, host: OnHost) -> HostFacts:
        return await host.facts()


class RenewLease(Question[None], frozen=True, tag="renew-lease"):
    """`heard`: the newest question of this session whose answer was heard, given by this start of the `agent`."""

    session: str
    number: int
    heard: int | None
    agent: str = ""

    async def do(self, host: OnHost) -> None:
        await host.renew_lease(self.session, self.number, self.heard, self.agent)


class Welcome(Question[None], frozen=True, tag="welcome"):
    """To the agent that calls itself `session`: the present generation of the server of each guest it has reported.

    Until then it lets no guest run: it may have been away while its servers were started elsewhere.
    """

    session: str
    generations: dict[str, int]

    async def do(self, host: OnHost) -> None:
        await host.welcome(self.session, self.generations)


class ApplyWiring(Question[InForce], frozen=True, tag="apply-wiring"):
    """The host's wiring. It is about no guest, so it has no generation: `wiring.revision` keeps late ones out."""

    wiring: Wiring

    async def do(self, host: OnHost) -> InForce:
        return await host.wire(self.wiring)


class AskWiring(Question[InForce], frozen=True, tag="wiring"):
    async def do(self, host: OnHost) -> InForce:
        return await host.in_force()


class AskGuests(Question[list[GuestReport]], frozen=True, tag="guests"):
    async def do(self, host: OnHost) -> list[GuestReport]:
        """Each with the highest generation that this host has accepted."""
        return await host.guests()


class Observe(Question[GuestState], frozen=True, tag="observe"):
    server_id: str

    async def do(self, host: OnHost) -> GuestState:
        return await host.driver.observe(self.server_id)


class AskArrival(Question[MigrationPhase], frozen=True, tag="arrival"):
    server_id: str

    async def do(self, host: OnHost) -> MigrationPhase:
        return await host.driver.arrival(self.server_id)


class ConsoleOutput(Question[bytes], frozen=True, tag="console-output"):
    server_id: str
    max_bytes: int

    async def do(self, host: OnHost) -> bytes:
        return await host.driver.console_output(self.server_id, max_bytes=self.max_bytes)


class Diagnostics(Question[GuestCounters], frozen=True, tag="diagnostics"):
    server_id: str

    async def do(self, host: OnHost) -> GuestCounters:
        return await host.driver.diagnostics(self.server_id)


# -- what derives from the declarations


def name_of(verb: type[Message[object]]) -> str:
    """As it is sent: ``start-copy``."""
    return str(verb.__struct_config__.tag)


@functools.cache
def answer_type(verb: type[Message[object]]) -> Any:
    """The type in the brackets of the verb's declaration; `None` if it answers nothing."""
    for base in getattr(verb, "__orig_bases__", ()):
        origin = typing.get_origin(base)
        if isinstance(origin, type) and issubclass(origin, Message):
            (answer,) = typing.get_args(base)
            return None if answer is type(None) else answer
    raise TypeError(f"{verb.__name__} does not say what it answers")
