"""Compares what a host reports with what the records say, and decides what to correct, and on which side."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum

import msgspec
import sqlalchemy as sa

from cumulet.compute import hosts as host_records
from cumulet.compute.half_made import NOT_UNSHELVED, REBUILT_BY_HALF
from cumulet.compute.model import RESCUE_IMAGE, VmState
from cumulet.compute.operations import NO_FAULT, OBSERVED, UNDECIDED, as_observed, in_error, metadata_without, settle
from cumulet.compute.resized import kept_on
from cumulet.compute.store import get_server, servers
from cumulet.conductor.saga import Status, operations
from cumulet.db.engine import Row, Tx
from cumulet.db.parts import OfMany, in_parts
from cumulet.errors import Conflict
from cumulet.host.driver import Guest, GuestReport, GuestState, Nic
from cumulet.host.nics import placed, without_nic
from cumulet.network import port_status
from cumulet.network.attaching import plugged_on
from cumulet.network.port_status import BoundPort, bound_to


class Finding(StrEnum):
    """What was found."""

    GUEST_WITHOUT_RECORD = "guest-without-record"
    GUEST_OF_ANOTHER_HOST = "guest-of-another-host"
    HANDED_OVER_GUEST_STILL_OURS = "handed-over-guest-still-ours"
    ARRIVED_GUEST_NOT_LET_RUN = "arrived-guest-not-let-run"
    GUEST_OF_A_FAILED_BOOT = "guest-of-a-failed-boot"
    REBUILT_BY_HALF = "rebuilt-by-half"
    UNSHELVED_BY_HALF = "unshelved-by-half"
    GUEST_MISSING = "guest-missing"
    STATE_DIFFERS = "state-differs"
    PORTS_DIFFER = "ports-differ"
    COPY_WITHOUT_MOVE = "copy-without-move"


class Correction(msgspec.Struct, frozen=True, kw_only=True):
    """One difference, and what the host must do. The host refuses a `generation` that is out of date.

    `cancel`: a copy of the guest is still made, and no move needs it. `resume`: the guest's memory was sent, but the
    guest still belongs here. `let_run`: it has arrived and was not told to run. `shelve`: once its guest is removed,
    the server is shelved again. `look`: the host is asked for its last word, after which it refuses late commands of
    the failed operation; only that is recorded (`record_found`).
    """

    finding: Finding
    server_id: str
    generation: int
    seen: GuestState
    destroy: bool = False
    cancel: bool = False
    resume: bool = False
    let_run: bool = False
    look: bool = False
    shelve: bool = False
    plug: tuple[Nic, ...] = ()
    unplug: tuple[str, ...] = ()
    """Ids of ports."""

    @property
    def acts(self) -> bool:
        """Whether the host has to do something. If it does not, the same is found again."""
        found = self.destroy, self.cancel, self.resume, self.let_run, self.look, self.plug, self.unplug
        return any(found)


MOST_CORRECTED = 100
"""Of guests that are not the host's, and of its own servers, so many are corrected in one round; the next one goes on.
A hostile host may say that it has any number of guests, each in another state than before."""
STRANGE = (Finding.GUEST_WITHOUT_RECORD, Finding.GUEST_OF_ANOTHER_HOST)
"""Of guests that are not the host's."""


LOST = "The host has lost the guest."
_PLUGGABLE = (GuestState.RUNNING, GuestState.PAUSED, GuestState.STOPPED, GuestState.CRASHED)
NOT_REBUILT = "The server could not be rebuilt."
"""Its guest is gone, or its host is down. In the second case a guest that is found later may be the old one."""
_UNSURE = (LOST, NOT_REBUILT)
_STABLE = (VmState.ACTIVE, VmState.PAUSED, VmState.SUSPENDED, VmState.STOPPED)
_HAS_GUEST = (*_STABLE, VmState.RESCUED, VmState.RESIZED, VmState.SHELVED)


# Every round with every host asks these, so the statements are built once.
_COLUMNS = (
    servers.c.id,
    servers.c.host,
    servers.c.generation,
    servers.c.vm_state,
    servers.c.power_state,
    servers.c.deleted_at_us,
    servers.c.revision,
    servers.c.launched_at_us,
    servers.c.fault_message,
)
_REVISIONS = OfMany(
    sa.select(servers.c.id, servers.c.revision, servers.c.host).where(servers.c.deleted_at_us.is_(None)),
    servers.c.host,
)
_RECORDS = OfMany(sa.select(*_COLUMNS).where(servers.c.deleted_at_us.is_(None)), servers.c.host)
_THESE = servers.c.id.in_(sa.bindparam("of_ids", expanding=True))
_THESE_RECORDS = sa.select(*_COLUMNS).where(_THESE)
_GENERATIONS = sa.select(servers.c.id, servers.c.generation).where(_THESE)
_AT_WORK = sa.select(operations.c.subject).where(
    operations.c.status.in_((Status.FORWARD, Status.UNWINDING, Status.QUEUED))
)

Revisions = Mapping[str, int]
"""Server id -> revision of its record. Not times: clocks jump."""


class Before(msgspec.Struct, frozen=True):
    """What the records say of a host's servers before the host is asked.

    That is all that `compare` reads, if the host reports guests of these servers only.
    """

    revisions: Revisions
    ports: frozenset[BoundPort]
    busy: frozenset[str]
    """Ids of servers with a running operation."""


def before(tx: Tx, hosts: Sequence[str]) -> dict[str, Before]:
    """The same of each of these hosts, with three statements for all."""
    revisions: dict[str, dict[str, int]] = {host: {} for host in hosts}
    for row in _REVISIONS.rows(tx, hosts):
        revisions[row.host or ""][row.id] = row.revision
    ports = bound_to(tx, hosts)
    at_work = {row.subject for row in tx.all(_AT_WORK, {})}
    return {
        host: Before(known, frozenset(ports.get(host, ())), frozenset(at_work & known.keys()))
        for host, known in revisions.items()
    }


def generations(tx: Tx, server_ids: Sequence[str]) -> dict[str, int]:
    """The present generations of these servers, of which hosts have reported guests, wherever they are now."""
    found: dict[str, int] = {}
    for part in in_parts(server_ids):
        found |= {row.id: row.generation for row in tx.all(_GENERATIONS, {"of_ids": list(part)})}
    return found


class Records:
    """What `compare` reads, for many hosts at once: many cost hardly more than one."""

    def __init__(self, tx: Tx, reported: Mapping[str, Sequence[GuestReport]]) -> None:
        """`reported`: by host, what it says."""
        hosts = sorted(reported)
        self._rows: dict[str, Row] = {}
        self._own: dict[str, list[str]] = {}
        for row in _RECORDS.rows(tx, hosts):
            self._rows[row.id] = row
            self._own.setdefault(row.host or "", []).append(row.id)
        others = {report.server_id for reports in reported.values() for report in reports} - self._rows.keys()
        for part in in_parts(sorted(others)):
            self._rows.update({row.id: row for row in tx.all(_THESE_RECORDS, {"of_ids": list(part)})})
        self.busy = {row.subject for row in tx.all(_AT_WORK, {})}
        self.kept = kept_on(tx, hosts)
        self.plugged = plugged_on(tx, hosts)

    def of(self, host: str, seen: Collection[str]) -> dict[str, Row]:
        """The host's servers, and those of these ids."""
        return {one: self._rows[one] for one in (*self._own.get(host, ()), *seen) if one in self._rows}


def compare(
    tx: Tx,
    host: str,
    reports: Sequence[GuestReport],
    *,
    linked: Collection[str] | None,
    before: Revisions,
    now_us: int,
    recorded: Records,
) -> list[Correction]:
    """Correct the records of `host`'s servers by what was observed there. Returns what the host must correct.

    `linked`: ids of the ports that are plugged there; None if the host did not say. `recorded`: read in `tx`.

    Servers with a running operation are left to it. Records that have changed since `before` are left alone: what the
    host said may be older. Removing a guest needs no such care, because the command carries a generation. Of the host's
    own servers, `MOST_CORRECTED` are corrected.
    """
    seen = {report.server_id: report for report in reports}
    records, busy = recorded.of(host, seen), recorded.busy
    kept = recorded.kept.get(host, set())
    corrections: list[Correction] = []
    settled: list[str] = []
    for server_id, report in seen.items():
        record = records.get(server_id)
        if server_id in busy or report.state is GuestState.ABSENT:
            continue
        # The host may have been told of the record's generation since it reported: it refuses earlier ones.
        generation = max(report.generation, record.generation if record is not None else 0)
        if record is None or record.deleted_at_us is not None:
            corrections.append(_destroy(Finding.GUEST_WITHOUT_RECORD, report, generation))
        elif record.host != host and server_id not in kept:
            corrections.append(_destroy(Finding.GUEST_OF_ANOTHER_HOST, report, generation))
    most = len(corrections) + MOST_CORRECTED
    for server_id, record in records.items():
        if record.host != host or record.deleted_at_us is not None or server_id in busy:
            continue
        if len(corrections) == most:
            break
        if _changed(record, before):
            continue
        own = seen.get(server_id)
        correction = _correct_own(tx, record, own, now_us)
        if correction is None and own is not None:
            correction = _correct_copy(record, own)
        if correction is None and own is not None:
            correction = _correct_ports(tx, record, own, recorded.plugged.get((host, server_id), set()), now_us)
        if correction is not None:
            corrections.append(correction)
        settled.append(server_id)
    if linked is not None:
        port_status.record_links(tx, host, linked, settled)
    return corrections


def of_one_round(corrections: Sequence[Correction]) -> tuple[list[Correction], bool]:
    """As many as are made in one round, and whether there may be more."""
    strange = [one for one in corrections if one.finding in STRANGE]
    own = [one for one in corrections if one.finding not in STRANGE]
    return [*strange[:MOST_CORRECTED], *own], len(strange) > MOST_CORRECTED or len(own) >= MOST_CORRECTED


def _changed(record: Row, before: Revisions) -> bool:
    return bool(before.get(record.id) != record.revision)


def _destroy(finding: Finding, report: GuestReport, generation: int) -> Correction:
    return Correction(
        finding=finding, server_id=report.server_id, generation=generation, seen=report.state, destroy=True
    )


def _correct_power(tx: Tx, record: Row, state: GuestState, now_us: int) -> Correction | None:
    """Of a server in a state that somebody decides (`UNDECIDED`, ERROR): only its power state follows the guest."""
    power_state = OBSERVED[state][1]
    if power_state == record.power_state:
        return None
    settle(tx, record.id, now_us=now_us, task_state=None, power_state=power_state)
    finding = Finding.GUEST_MISSING if state is GuestState.ABSENT else Finding.STATE_DIFFERS
    return Correction(finding=finding, server_id=record.id, generation=record.generation, seen=state)


def _not_rescued(report: GuestReport) -> bool:
    """Whether it surely runs from its own disk. A host that cannot read a guest's record reports no ports, either."""
    return report.state is not GuestState.ABSENT and report.ports is not None and not report.rescued


def _taken_back(tx: Tx, record: Row, state: GuestState, now_us: int) -> Correction:
    """The server was rescued: its host has ended the rescue and went down before it could say so."""
    kept = metadata_without(tx, record.id, RESCUE_IMAGE)
    settle(tx, record.id, now_us=now_us, task_state=None, system_metadata=kept, **as_observed(state))
    return Correction(finding=Finding.STATE_DIFFERS, server_id=record.id, generation=record.generation, seen=state)


def _correct_copy(record: Row, report: GuestReport) -> Correction | None:
    """The host was down when the move that made the copy was undone."""
    if not report.copied:
        return None
    return Correction(
        finding=Finding.COPY_WITHOUT_MOVE,
        server_id=record.id,
        generation=record.generation,
        seen=report.state,
        cancel=True,
    )


def _correct_ports(tx: Tx, record: Row, report: GuestReport, wanted: set[str], now_us: int) -> Correction | None:
    """The guest has other ports than its server.

    A port was deleted in Network, or the host was down when a change had to be undone.
    """
    seen = wanted if report.ports is None else set(report.ports)
    if seen == wanted or VmState(record.vm_state) not in _HAS_GUEST or report.state not in _PLUGGABLE:
        return None
    stored = get_server(tx, record.id).guest
    if stored is None:
        return None
    guest = described = msgspec.convert(stored, Guest)
    for nic in placed(described):
        if nic.port_id not in wanted:
            guest = without_nic(guest, nic.port_id)
    if guest != described:
        settle(tx, record.id, now_us=now_us, guest=msgspec.to_builtins(guest))
    plug = tuple(nic for nic in placed(host_records.as_told(tx, record.host, guest)) if nic.port_id not in seen)
    unplug = tuple(sorted(seen - wanted)[:MOST_CORRECTED])
    return Correction(
        finding=Finding.PORTS_DIFFER,
        server_id=record.id,
        generation=record.generation,
        seen=report.state,
        plug=plug,
        unplug=unplug,
    )


def _correct_own(tx: Tx, record: Row, report: GuestReport | None, now_us: int) -> Correction | None:
    """A server of this host. The record follows the guest, unless the guest waits to be let run."""
    state = report.state if report is not None else GuestState.ABSENT
    if record.vm_state == VmState.ERROR and record.launched_at_us is None and report is not None:
        return _destroy(Finding.GUEST_OF_A_FAILED_BOOT, report, record.generation)
    fault = record.fault_message if record.vm_state == VmState.ERROR else None
    if fault == REBUILT_BY_HALF and report is not None and state is not GuestState.ABSENT:
        return _destroy(Finding.REBUILT_BY_HALF, report, record.generation)
    if fault == NOT_UNSHELVED:
        return Correction(
            finding=Finding.UNSHELVED_BY_HALF,
            server_id=record.id,
            generation=record.generation,
            seen=state,
            destroy=True,
            shelve=True,
        )
    found_again = fault in _UNSURE and state is not GuestState.ABSENT
    if record.vm_state in UNDECIDED and state in OBSERVED:
        if record.vm_state == VmState.RESCUED and report is not None and _not_rescued(report):
            return _taken_back(tx, record, state, now_us)
        return _correct_power(tx, record, state, now_us)
    if report is not None and report.rescued and record.vm_state in _STABLE and state in OBSERVED:
        # Its host was down when the rescue had to be undone. Now the user decides: `unrescue` ends it.
        settle(tx, record.id, now_us=now_us, task_state=None, **as_observed(state, VmState.RESCUED))
        return Correction(finding=Finding.STATE_DIFFERS, server_id=record.id, generation=record.generation, seen=state)
    if VmState(record.vm_state) not in _STABLE and not found_again:
        by_power = record.vm_state == VmState.ERROR and state in OBSERVED
        return _correct_power(tx, record, state, now_us) if by_power else None
    if state is GuestState.HANDED_OVER:
        return Correction(
            finding=Finding.HANDED_OVER_GUEST_STILL_OURS,
            server_id=record.id,
            generation=record.generation,
            seen=state,
            resume=True,
        )
    if state is GuestState.INCOMING:  # Its host was down when the move that brought it should have let it run.
        return Correction(
            finding=Finding.ARRIVED_GUEST_NOT_LET_RUN,
            server_id=record.id,
            generation=record.generation,
            seen=state,
            let_run=True,
        )
    if state not in OBSERVED:
        return None
    vm_state, power_state = OBSERVED[state]
    if (vm_state, power_state) == (record.vm_state, record.power_state):
        return None
    if found_again and fault == NOT_REBUILT:
        return Correction(
            finding=Finding.STATE_DIFFERS, server_id=record.id, generation=record.generation, seen=state, look=True
        )
    if state is GuestState.ABSENT:
        changes = in_error(LOST, now_us=now_us)
    else:
        changes = {"vm_state": vm_state, "power_state": power_state}
        if found_again:
            changes |= NO_FAULT
    settle(tx, record.id, now_us=now_us, task_state=None, **changes)
    finding = Finding.GUEST_MISSING if state is GuestState.ABSENT else Finding.STATE_DIFFERS
    return Correction(finding=finding, server_id=record.id, generation=record.generation, seen=state)


def record_found(tx: Tx, correction: Correction, seen: GuestState, now_us: int) -> bool:
    """Record `seen`, the last word of the host of a server whose rebuild has failed. Whether the guest is still there.

    Conflict if the server has changed.
    """
    server = get_server(tx, correction.server_id, deleted=True)
    unchanged = server.generation == correction.generation and server.fault_message == NOT_REBUILT
    if not unchanged or any(row.subject == server.id for row in tx.all(_AT_WORK, {})):
        raise Conflict(f"Server {server.id} has changed.")
    found = seen in OBSERVED and seen is not GuestState.ABSENT
    if found:
        settle(tx, server.id, now_us=now_us, task_state=None, **as_observed(seen), **NO_FAULT)
    return found
