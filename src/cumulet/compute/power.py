"""Power: start, stop, reboot, pause, unpause, suspend, resume. One step on the host; if it fails, the host is asked."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

import msgspec

from cumulet.compute import looking, operations
from cumulet.compute.model import PowerState, Server, VmState
from cumulet.compute.operations import SERVER, OnHost, command
from cumulet.compute.wiring import learn_links
from cumulet.conductor.saga import Context, Failure, Final, Saga, Step
from cumulet.db.engine import Tx
from cumulet.host import messages as m
from cumulet.host.driver import GuestState
from cumulet.host.patience import seconds_for
from cumulet.web.operation import Call

STOP_GRACE_SECONDS = 10.0


class Verb(StrEnum):
    """As in Nova's instance actions."""

    START = "start"
    STOP = "stop"
    REBOOT_SOFT = "reboot-soft"
    REBOOT_HARD = "reboot-hard"
    PAUSE = "pause"
    UNPAUSE = "unpause"
    SUSPEND = "suspend"
    RESUME = "resume"


class Power(msgspec.Struct, frozen=True, kw_only=True):
    """What a verb means: how the API shows the server during it and afterwards, and the command for the host."""

    action: str
    event: str
    task_state: str
    vm_state: VmState
    power_state: PowerState
    command: Callable[..., m.Message[object]]


POWER: dict[Verb, Power] = {
    Verb.START: Power(
        action="start", event="compute_start_instance", task_state="powering-on",
        vm_state=VmState.ACTIVE, power_state=PowerState.RUNNING, command=m.Start,
    ),
    Verb.STOP: Power(
        action="stop", event="compute_stop_instance", task_state="powering-off",
        vm_state=VmState.STOPPED, power_state=PowerState.SHUTDOWN,
        command=lambda **command: m.Stop(**command, grace_seconds=STOP_GRACE_SECONDS),
    ),
    Verb.REBOOT_SOFT: Power(
        action="reboot", event="compute_reboot_instance", task_state="rebooting",
        vm_state=VmState.ACTIVE, power_state=PowerState.RUNNING,
        command=lambda **command: m.Reboot(**command, hard=False),
    ),
    Verb.REBOOT_HARD: Power(
        action="reboot", event="compute_reboot_instance", task_state="rebooting_hard",
        vm_state=VmState.ACTIVE, power_state=PowerState.RUNNING,
        command=lambda **command: m.Reboot(**command, hard=True),
    ),
    Verb.PAUSE: Power(
        action="pause", event="compute_pause_instance", task_state="pausing",
        vm_state=VmState.PAUSED, power_state=PowerState.PAUSED, command=m.Pause,
    ),
    Verb.UNPAUSE: Power(
        action="unpause", event="compute_unpause_instance", task_state="unpausing",
        vm_state=VmState.ACTIVE, power_state=PowerState.RUNNING, command=m.Unpause,
    ),
    Verb.SUSPEND: Power(
        action="suspend", event="compute_suspend_instance", task_state="suspending",
        vm_state=VmState.SUSPENDED, power_state=PowerState.SHUTDOWN, command=m.Suspend,
    ),
    Verb.RESUME: Power(
        action="resume", event="compute_resume_instance", task_state="resuming",
        vm_state=VmState.ACTIVE, power_state=PowerState.RUNNING, command=m.Resume,
    ),
}  # fmt: skip


class PowerChange(OnHost, frozen=True, kw_only=True):
    """State of the saga. `observed` is set if the verb failed. `stays`: one of `operations.UNDECIDED`."""

    verb: Verb
    observed: GuestState | None = None
    stays: VmState | None = None
    memory_mib: int = 0
    """The guest's, where the verb writes or reads all of it."""


def begin_power(call: Call[object, object], server: Server, verb: Verb) -> None:
    """Start a change of power on `server`, which has a host and is in a state that allows it."""
    power = POWER[verb]
    memory_mib = server.flavor.memory_mib if verb in (Verb.SUSPEND, Verb.RESUME) else 0
    operations.begin(
        call,
        server,
        POWER_CHANGE,
        lambda *begun: PowerChange(**operations.on_host(*begun), verb=verb, memory_mib=memory_mib),
        action=power.action,
        event=power.event,
        task_state=power.task_state,
    )


async def change_power(context: Context, state: PowerChange) -> PowerChange:
    wanted = POWER[state.verb].command(**command(context, state))
    work_seconds = seconds_for(state.memory_mib << 20) if state.memory_mib else None
    await context.hosts.send(state.host, wanted, work_seconds=work_seconds)
    await learn_links(context, state.host, state.server_id)
    return state


async def look(context: Context, state: PowerChange) -> PowerChange:
    """The undo: the verb cannot be taken back, so look what the guest is."""
    observed = await looking.look(context, state)
    return msgspec.structs.replace(state, observed=observed)


def record_power(tx: Tx, context: Context, state: PowerChange) -> PowerChange:
    power = POWER[state.verb]
    now = context.clock.now_us()
    operations.settle(
        tx, state.server_id, now_us=now, vm_state=state.stays or power.vm_state, power_state=power.power_state,
        task_state=None, **operations.NO_FAULT,
    )  # fmt: skip
    operations.finish_events(tx, state.action_id, now_us=now)
    return state


def unwound(tx: Tx, context: Context, state: PowerChange, failure: Failure) -> None:
    now = context.clock.now_us()
    observed = operations.if_observed(state.observed, state.stays)
    operations.settle(tx, state.server_id, now_us=now, task_state=None, **observed)
    operations.finish_events(tx, state.action_id, now_us=now, failure=failure)


POWER_CHANGE = Saga(
    name="power",
    kind=SERVER,
    state=PowerChange,
    steps=(Step(change_power, undo=look),),
    finals=(Final(record_power),),
    unwound=unwound,
)
