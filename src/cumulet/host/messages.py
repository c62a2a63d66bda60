"""The closed list of verbs a host agent knows. One message, one answer; commands carry their generation."""

from __future__ import annotations

from typing import Any

import msgspec

from cumulet.host.driver import (
    Endpoint,
    Guest,
    GuestReport,
    GuestState,
    HostFacts,
    MigrationParameters,
    MigrationPhase,
    MigrationProgress,
)


class Command(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="verb"):
    """About one guest. `generation` is the server's at the time the operation decided; agents refuse lower ones."""

    server_id: str
    operation_id: str
    generation: int


class Create(Command, frozen=True, tag="create"):
    guest: Guest
    run: bool = True


class Destroy(Command, frozen=True, tag="destroy"):
    pass


class Start(Command, frozen=True, tag="start"):
    pass


class Stop(Command, frozen=True, tag="stop"):
    grace_seconds: float


class Reboot(Command, frozen=True, tag="reboot"):
    hard: bool


class Pause(Command, frozen=True, tag="pause"):
    pass


class Unpause(Command, frozen=True, tag="unpause"):
    pass


class Suspend(Command, frozen=True, tag="suspend"):
    pass


class Resume(Command, frozen=True, tag="resume"):
    pass


class PrepareIncoming(Command, frozen=True, tag="prepare-incoming"):
    guest: Guest
    source_host: str
    parameters: MigrationParameters


class ResumeDestination(Command, frozen=True, tag="resume-destination"):
    pass


class StartCopy(Command, frozen=True, tag="start-copy"):
    endpoint: Endpoint
    parameters: MigrationParameters


class CopyProgress(Command, frozen=True, tag="copy-progress"):
    wait_seconds: float
    seen: MigrationPhase


class ForceComplete(Command, frozen=True, tag="force-complete"):
    pass


class BeginPostCopy(Command, frozen=True, tag="begin-post-copy"):
    pass


class RecoverIncoming(Command, frozen=True, tag="recover-incoming"):
    pass


class RecoverCopy(Command, frozen=True, tag="recover-copy"):
    endpoint: Endpoint


class GiveUpMemory(Command, frozen=True, tag="give-up-memory"):
    pass


class CancelCopy(Command, frozen=True, tag="cancel-copy"):
    pass


class ResumeSource(Command, frozen=True, tag="resume-source"):
    pass


class StandBy(Command, frozen=True, tag="stand-by"):
    pass


class StandDown(Command, frozen=True, tag="stand-down"):
    pass


class TakeIn(Command, frozen=True, tag="take-in"):
    guest: Guest


class Question(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="verb"):
    """Changes nothing, so it carries no generation."""


class AskFacts(Question, frozen=True, tag="facts"):
    pass


class RenewLease(Question, frozen=True, tag="renew-lease"):
    """`heard`: the newest question of this session whose answer was heard. See `agent.lease`."""

    session: str
    number: int
    heard: int | None


class Welcome(Question, frozen=True, tag="welcome"):
    """To the agent that calls itself `session`: of each guest it has reported, the server's generation as it is now.

    Until then it lets no guest run: it may have been away while its servers were started elsewhere.
    """

    session: str
    generations: dict[str, int]


class AskGuests(Question, frozen=True, tag="guests"):
    pass


class Observe(Question, frozen=True, tag="observe"):
    server_id: str


class AskArrival(Question, frozen=True, tag="arrival"):
    server_id: str


class ConsoleOutput(Question, frozen=True, tag="console-output"):
    server_id: str
    max_bytes: int


class Diagnostics(Question, frozen=True, tag="diagnostics"):
    server_id: str


Message = (
    Create
    | Destroy
    | Start
    | Stop
    | Reboot
    | Pause
    | Unpause
    | Suspend
    | Resume
    | PrepareIncoming
    | ResumeDestination
    | StartCopy
    | CopyProgress
    | ForceComplete
    | BeginPostCopy
    | RecoverIncoming
    | RecoverCopy
    | GiveUpMemory
    | CancelCopy
    | ResumeSource
    | StandBy
    | StandDown
    | TakeIn
    | AskFacts
    | RenewLease
    | Welcome
    | AskGuests
    | Observe
    | AskArrival
    | ConsoleOutput
    | Diagnostics
)

ANSWERS: dict[type[Any], Any] = {
    Create: Guest,
    PrepareIncoming: Endpoint,
    RecoverIncoming: Endpoint,
    CopyProgress: MigrationProgress,
    CancelCopy: MigrationProgress,
    AskFacts: HostFacts,
    AskGuests: list[GuestReport],
    Observe: GuestState,
    AskArrival: MigrationPhase,
    ConsoleOutput: bytes,
    Diagnostics: dict[str, int | str],
}
"""What each verb answers; those not listed answer nothing."""


class HostError(Exception):
    """A host said no, or said nothing. `reason` is a coded reason."""

    reason = "HOST_FAILED"
    public = "The operation failed on its host."


class VerbFailed(HostError):
    """The driver failed; nothing is known of the guest but what one observes."""


class StaleGeneration(HostError):
    """The host has accepted a higher generation for this guest: the command is out of date."""

    reason = "STALE_GENERATION"


class HostUnreachable(HostError):
    """No answer: the command may or may not have happened."""

    reason = "HOST_UNREACHABLE"
    public = "A host does not answer."
