"""Planted mistakes, one at a time. The simulation has to find each of them."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any
from unittest import mock

import msgspec
import sqlalchemy as sa

from cumulet.agent.agent import Agent
from cumulet.agent.lease import Lease
from cumulet.compute import (
    boot,
    copying,
    drift,
    host_watch,
    hosts_in_memory,
    live_migration,
    moves,
    operations,
    post_copy,
    preconditions,
)
from cumulet.compute import hosts as host_records
from cumulet.compute.corrections import Corrector, Outcome
from cumulet.compute.live_migration import LIVE_MIGRATION
from cumulet.compute.live_migration_state import LiveMigration
from cumulet.compute.model import Server
from cumulet.compute.operations import command
from cumulet.compute.preconditions import Verb
from cumulet.compute.store import get_server
from cumulet.conductor import carried, saga
from cumulet.conductor.leadership import Leadership
from cumulet.conductor.runner import Runner
from cumulet.conductor.saga import Context, Failure, Final, Step, StepFailed, nothing
from cumulet.db.engine import Row, Tx
from cumulet.errors import ApiError, BadRequest
from cumulet.host import messages as m
from cumulet.network import for_compute as network
from cumulet.network import port_status
from cumulet.placement import allocations as placement
from cumulet.settings import Settings
from cumulet.testing.simulation import (
    planted_consoles,
    planted_details,
    planted_imports,
    planted_life,
    planted_network,
    planted_places,
    planted_ports,
    planted_processes,
    planted_telling,
    planted_trunks,
)
from cumulet.testing.simulation.hosts import Machine
from cumulet.testing.simulation.planted_places import with_precondition, with_saga

Plant = Callable[[], AbstractContextManager[object]]


def _changed_step(name: str, **changes: Any) -> AbstractContextManager[object]:
    steps = tuple(dataclasses.replace(s, **changes) if s.name == name else s for s in LIVE_MIGRATION.steps)
    return with_saga(LIVE_MIGRATION, steps=steps)


def _with_copy_memory(copy_memory: Any) -> AbstractContextManager[object]:
    steps = tuple(Step(copy_memory, s.undo, s.status) if s.name == "copy_memory" else s for s in LIVE_MIGRATION.steps)
    return with_saga(LIVE_MIGRATION, steps=steps)


def believing_an_exception() -> AbstractContextManager[object]:
    """After an error of `resume`, the guest is taken not to run at the destination, and the source gets it back."""

    async def resume_guest(context: Context, state: LiveMigration) -> LiveMigration:
        try:
            return await live_migration.resume_guest(context, state)
        except m.HostError:
            back = command(context, state)
            await context.hosts.send(state.source, m.ResumeSource(**back))
            raise

    finals = tuple(Final(resume_guest, f.status) if f.name == "resume_guest" else f for f in LIVE_MIGRATION.finals)
    return with_saga(LIVE_MIGRATION, finals=finals)


def forgetting_to_release_the_destination() -> AbstractContextManager[object]:
    """The claim's undo is forgotten."""
    return _changed_step("claim_destination", undo=nothing)


def forgetting_to_unbind_the_ports() -> AbstractContextManager[object]:
    """The second bindings' undo is forgotten."""
    return _changed_step("bind_ports", undo=nothing)


def resuming_before_the_commit() -> AbstractContextManager[object]:
    """The destination is told to run as soon as the copy has completed, before the record says so."""

    async def copy_memory(context: Context, state: LiveMigration) -> LiveMigration:
        state = await live_migration.copy_memory(context, state)
        told = command(context, state)
        await context.hosts.send(moves.destination(state), m.ResumeDestination(**told))
        return state

    return _with_copy_memory(copy_memory)


def dropping_the_generation_check() -> AbstractContextManager[object]:
    """Agents do whatever they are told, however late it comes."""
    return mock.patch.multiple(Agent, _admit=lambda agent, told: None, _is_new=lambda agent, told: False)


def dropping_the_step_check() -> AbstractContextManager[object]:
    """Agents do whatever the same operation tells them, also late commands of earlier steps."""
    admit, is_new = Agent._admit, Agent._is_new
    return mock.patch.multiple(
        Agent,
        _admit=lambda agent, told: admit(agent, msgspec.structs.replace(told, step=0)),
        _is_new=lambda agent, told: is_new(agent, msgspec.structs.replace(told, step=0)),
    )


@contextlib.contextmanager
def acting_on_an_expired_lease() -> Iterator[None]:
    """A runner saves and goes on although another runner has taken the operation."""

    def check_held(self: Runner, tx: Tx, operation: object) -> bool:
        return False

    def record_held(self: Runner, tx: Tx, operation_id: str, fn: Any) -> Any:
        fn(tx)
        return mock.Mock(abort=False, force=False)

    rows = saga.operations.c
    whoever_holds_it = sa.or_(
        rows.lease_owner == sa.bindparam("held_by"),
        rows.revision == sa.bindparam("held_revision"),
        sa.literal(1) == 1,
    )
    save = sa.update(saga.operations).where(rows.id == sa.bindparam("of_id"), whoever_holds_it)
    with (
        mock.patch.multiple(Runner, _check_held=check_held, record_held=record_held),
        mock.patch.object(carried, "_SAVE", save),
    ):
        yield


def a_lease_by_two_wall_clocks() -> AbstractContextManager[object]:
    """The holder of a lease notes its wall time, and others compare that with their own wall clocks."""

    def is_free(self: Runner, row: Row) -> bool:
        if row.lease_owner in (None, self.name):
            return True
        at = sa.select(saga.operations.c.updated_at_us).where(saga.operations.c.id == row.id)
        held_us: int = self.db.read(lambda tx: tx.scalar(at))
        return held_us + int(self.settings.lease_seconds * 1_000_000) < self.clock.now_us()

    return mock.patch.object(Runner, "_is_free", is_free)


def several_that_lead() -> AbstractContextManager[object]:
    """Every conductor watches the hosts, whether it holds the lease or not."""
    return mock.patch.multiple(Leadership, _take=mock.Mock(return_value=True), require=mock.Mock(return_value=None))


def losing_patience_with_what_progresses() -> AbstractContextManager[object]:
    """A copy is aborted after the time allowed without progress, although it makes progress."""

    real = copying.Patience

    def patience(*, stalled_at: float, most_processed: int) -> copying.Patience:
        return real(stalled_at=stalled_at, most_processed=2**62)

    return mock.patch.object(copying, "Patience", patience)


def picking_inside_the_claim() -> AbstractContextManager[object]:
    """One step picks and claims a host. Its choice is saved only at its end, so a repeated step picks again."""

    async def pick_and_claim(context: Context, state: LiveMigration) -> LiveMigration:
        picked: list[str] = []

        def claim(tx: Tx) -> None:
            server = get_server(tx, state.server_id)
            choice = hosts_in_memory.pick(tx, live_migration._need(tx, server, state.asked_for))
            if choice.host is None:
                raise StepFailed("NO_VALID_HOST", boot.NO_VALID_HOST)
            picked.append(choice.host)
            placement.claim(
                tx,
                consumer=server.id,
                provider=choice.host,
                resources=boot.resources(server),
                project_id=server.project_id,
                user_id=server.user_id,
                now_us=context.clock.now_us(),
            )

        await context.record(claim)
        await context.clock.sleep(0.05)
        return msgspec.structs.replace(state, destination=picked[-1])

    steps = (
        Step(pick_and_claim, moves.release_destination, "preparing"),
        *(s for s in LIVE_MIGRATION.steps if s.name not in ("pick_destination", "claim_destination")),
    )
    return with_saga(LIVE_MIGRATION, steps=steps)


def deleting_the_source_before_the_destination_runs() -> AbstractContextManager[object]:
    """The source's guest and disk are destroyed as soon as they were copied."""

    async def copy_memory(context: Context, state: LiveMigration) -> LiveMigration:
        state = await live_migration.copy_memory(context, state)
        told = command(context, state)
        await context.hosts.send(state.source, m.Destroy(**told))
        return state

    return _with_copy_memory(copy_memory)


def releasing_the_sources_share_too_early() -> AbstractContextManager[object]:
    """The source's share is released while the guest may still return to it."""

    def claim_destination(tx: Tx, context: Context, state: LiveMigration) -> LiveMigration:
        state = moves.claim_destination(tx, context, state)
        placement.release(tx, consumer=state.migration_uuid, now_us=context.clock.now_us())
        return state

    steps = tuple(
        Step(claim_destination, s.undo, s.status) if s.name == "claim_destination" else s for s in LIVE_MIGRATION.steps
    )
    return with_saga(LIVE_MIGRATION, steps=steps)


def reconciling_what_an_operation_is_at() -> AbstractContextManager[object]:
    """The reconciler also corrects servers on which an operation runs."""
    return mock.patch.object(drift, "_AT_WORK", drift._AT_WORK.where(sa.false()))


def forgetting_who_waits() -> AbstractContextManager[object]:
    """When an operation ends, the queued one does not begin."""
    return mock.patch.object(Runner, "_promote", return_value=None)


def leaving_the_task_state() -> AbstractContextManager[object]:
    """An unwound migration leaves the server in the task state `migrating`."""

    def unwound(tx: Tx, context: Context, state: LiveMigration, failure: Failure) -> None:
        live_migration.unwound(tx, context, state, failure)
        operations.settle(tx, state.server_id, now_us=context.clock.now_us(), task_state="migrating")

    return with_saga(LIVE_MIGRATION, unwound=unwound)


def evacuating_on_silence_alone() -> AbstractContextManager[object]:
    """A host that does not answer is taken for dead, with or without a lease."""

    def host_dead(tx: Tx, server: Server, verb: Verb, settings: Settings) -> ApiError | None:
        return BadRequest("still in use") if host_records.is_up(tx, server.host or "") else None

    return with_precondition(preconditions._host_dead, host_dead)


def counting_on_a_watchdog_that_is_not_there() -> AbstractContextManager[object]:
    """If hosts have watchdogs, a silent one is taken for dead, even if it never reported a lease."""
    real = host_records.is_fenced

    def is_fenced(tx: Tx, name: str, settings: Settings) -> bool:
        return real(tx, name, settings) or (settings.fence_silent_hosts and not host_records.is_heard(tx, name))

    return mock.patch.object(host_records, "is_fenced", is_fenced)


def a_watchdog_that_does_not_kill() -> AbstractContextManager[object]:
    """A lease runs out, and the guests go on."""
    return mock.patch.object(Machine, "lose_lease", return_value=None)


def a_lease_without_a_margin() -> AbstractContextManager[object]:
    """A host is taken for dead as soon as its lease may have run out, before its watchdog has acted."""
    return mock.patch.object(host_watch, "LEASE_MARGIN_SECONDS", -2.0)


def a_lease_from_when_it_was_asked() -> AbstractContextManager[object]:
    """A host counts its lease from each question, although its answers may be lost."""

    def asked(self: Lease, session: str, number: int, heard: int | None) -> None:
        self._noted.end_at(self._noted.now() + self._seconds)

    return mock.patch.object(Lease, "asked", asked)


def believing_an_old_report() -> AbstractContextManager[object]:
    """The reconciler uses an old report of a host although the record has changed since."""
    return mock.patch.object(drift, "_changed", return_value=False)


def a_reconciler_that_removes_nothing() -> AbstractContextManager[object]:
    """The reconciler leaves guests without a record, and those that belong to other hosts."""
    correct = Corrector._correct

    async def spared(self: Corrector, name: str, correction: drift.Correction) -> Outcome:
        return Outcome("spared") if correction.destroy else await correct(self, name, correction)

    return mock.patch.object(Corrector, "_correct", spared)


def booting_from_disk_beside_the_source() -> AbstractContextManager[object]:
    """If a copy fails between the commit and post-copy, the guest is booted from disk although it may run at the
    source."""

    async def begin_post_copy(context: Context, state: LiveMigration) -> LiveMigration:
        try:
            await context.hosts.send(state.source, m.BeginPostCopy(**command(context, state)))
        except m.VerbFailed:
            return await post_copy.boot_from_disk(context, state, "planted")
        return state

    return mock.patch.object(post_copy, "begin_post_copy", begin_post_copy)


def discarding_the_source_in_post_copy() -> AbstractContextManager[object]:
    """The source is destroyed once the guest runs at its destination, while memory has yet to be copied."""

    async def receive_rest(context: Context, state: LiveMigration) -> LiveMigration:
        return state

    return mock.patch.object(post_copy, "receive_rest", receive_rest)


def believing_that_bound_is_plugged() -> AbstractContextManager[object]:
    """A port is ACTIVE where it is bound, whatever its host says."""

    def record_links(tx: Tx, host: str, linked: object, server_ids: Sequence[str]) -> None:
        real(tx, host, {port.id for ports in network.ports_of(tx, server_ids).values() for port in ports}, server_ids)

    real = port_status.record_links
    return mock.patch.object(port_status, "record_links", record_links)


PLANTED: dict[str, Plant] = {
    plant.__name__: plant
    for plant in (
        believing_an_exception,
        believing_that_bound_is_plugged,
        forgetting_to_release_the_destination,
        forgetting_to_unbind_the_ports,
        resuming_before_the_commit,
        dropping_the_generation_check,
        dropping_the_step_check,
        acting_on_an_expired_lease,
        a_lease_by_two_wall_clocks,
        several_that_lead,
        losing_patience_with_what_progresses,
        picking_inside_the_claim,
        deleting_the_source_before_the_destination_runs,
        releasing_the_sources_share_too_early,
        reconciling_what_an_operation_is_at,
        forgetting_who_waits,
        leaving_the_task_state,
        evacuating_on_silence_alone,
        counting_on_a_watchdog_that_is_not_there,
        a_watchdog_that_does_not_kill,
        discarding_the_source_in_post_copy,
        a_lease_without_a_margin,
        a_lease_from_when_it_was_asked,
        believing_an_old_report,
        a_reconciler_that_removes_nothing,
        booting_from_disk_beside_the_source,
        *planted_consoles.PLANTS,
        *planted_imports.PLANTS,
        *planted_life.PLANTS,
        *planted_details.PLANTS,
        *planted_network.PLANTS,
        *planted_places.PLANTS,
        *planted_ports.PLANTS,
        *planted_processes.PLANTS,
        *planted_telling.PLANTS,
        *planted_trunks.PLANTS,
    )
}


@contextlib.contextmanager
def planted(name: str) -> Iterator[None]:
    """Run the block with this mistake in the product."""
    with PLANTED[name]():
        yield
