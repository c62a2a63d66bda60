"""Invariants at rest: all parts of the cloud agree, nothing is left over, and nothing acknowledged is lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import msgspec
import sqlalchemy as sa

from cumulet.compute import block_devices, drift, restored
from cumulet.compute.model import VmState
from cumulet.compute.store import get_server, migrations, servers
from cumulet.conductor.findings import findings
from cumulet.conductor.saga import operations
from cumulet.db.engine import Tx
from cumulet.host.driver import Guest, GuestState
from cumulet.network import bindings_for_compute as bindings
from cumulet.testing import agreement
from cumulet.testing.simulation import network_details
from cumulet.testing.simulation.console_workload import left_over
from cumulet.testing.simulation.network_invariants import not_as_recorded

if TYPE_CHECKING:
    from cumulet.testing.simulation.cloud import SimulatedCloud
    from cumulet.testing.simulation.fragile import FurtherDisks
    from cumulet.testing.simulation.workload import Workload


class Broken(Exception):
    """An invariant does not hold. `kind`: which one, in a word or two."""

    def __init__(self, kind: str, problem: str) -> None:
        super().__init__(problem)
        self.kind = kind


LOST_GUEST = "has lost its guest"
LOST_REQUEST = "was acknowledged and is lost"


def kind_of(problems: list[str]) -> str:
    """The worst of the problems of a run that does not come to rest."""
    for kind, words in (("lost guest", LOST_GUEST), ("lost request", LOST_REQUEST)):
        if any(words in problem for problem in problems):
            return kind
    return "not at rest"


def check_quiet(cloud: SimulatedCloud, workload: Workload) -> list[str]:
    """The problems now; empty: all is well. While operations run, only these are listed."""
    at_work = [*workload.unanswered(), *cloud.db.read(lambda tx: list(agreement.unfinished(tx)))]
    if at_work:
        return at_work
    starved = [(name, server_id) for name, machine in cloud.machines.items() for server_id in machine.driver.starved()]
    if starved:
        return [f"server {server_id[:8]} on {name} waits for memory that nobody has" for name, server_id in starved]
    guests = {name: machine.driver.present() for name, machine in cloud.machines.items()}
    # The sagas must leave nothing behind, even if a reconciler would remove it.
    mended = cloud.db.read(lambda tx: tx.all(_MENDED, {}))
    if mended:
        return [f"{row.finding} of server {row.subject[:8]} at {row.host} had to be given back" for row in mended]
    wrong = cloud.db.read(cloud.wrong_memory)
    if wrong:
        return [f"memory is wrong of {', '.join(wrong)}"]
    copies = [
        (name, server_id) for name, machine in cloud.machines.items() for server_id in machine.driver.copies_of_disks()
    ]
    if copies:
        return [f"{name} keeps a copy of the disk of {server_id[:8]}" for name, server_id in copies]
    rescued = {server_id for machine in cloud.machines.values() for server_id in machine.driver.rescued_guests()}
    recorded = cloud.db.read(lambda tx: {row.id for row in tx.all(_RESCUED, {})})
    if rescued != recorded:
        return [f"{sorted(rescued)} run from a rescue image, and {sorted(recorded)} are said to"]
    others = cloud.db.read(lambda tx: list(cloud.images.of_others(tx)))
    if others:
        return others
    wrong_images = cloud.db.read(lambda tx: list(workload.imports.wrong(tx)))
    if wrong_images:
        return wrong_images
    # The devices of a suspended guest cannot change. It gets the ports on record once it runs again.
    made = {
        name: {
            key: guest
            for key, guest in machine.driver.described().items()
            if guests[name].get(key) is not GuestState.SUSPENDED
        }
        for name, machine in cloud.machines.items()
    }
    further = {name: machine.driver.further_disks() for name, machine in cloud.machines.items()}
    linked = {name: machine.driver.linked() for name, machine in cloud.machines.items()}

    def differ(tx: Tx) -> list[str]:
        in_records = agreement.disagreements(tx, guests, linked)
        return [
            *in_records,
            *_lost(tx, workload),
            *_newer_than_records(tx),
            *_otherwise_described(tx, made),
            *cloud.images.wrong_disks(tx, made),
            *_with_other_disks(tx, further),
            *not_as_recorded(tx, cloud),
            *network_details.not_as_recorded(cloud),
            *workload.telling.wrong(),
            *left_over(tx, cloud),
        ]

    return cloud.db.read(differ)


_MENDED = sa.select(findings).where(findings.c.reconciler == "leftovers").order_by(findings.c.id)
_FINDINGS = sa.select(findings).order_by(findings.c.id)
_RESCUED = sa.select(servers.c.id).where(servers.c.vm_state == VmState.RESCUED, servers.c.deleted_at_us.is_(None))
_SERVERS = sa.select(servers.c.id, servers.c.deleted_at_us, servers.c.fault_message)
_PLACES = sa.select(servers.c.id, servers.c.host).where(servers.c.deleted_at_us.is_(None), servers.c.host.is_not(None))
_OPERATIONS = sa.select(operations.c.saga, operations.c.status)
_MIGRATIONS = sa.select(migrations.c.type, migrations.c.status, migrations.c.reason)


def outcomes(cloud: SimulatedCloud) -> Counter[str]:
    """How many operations and migrations of a run ended in which way."""
    counts: Counter[str] = Counter()
    for row in cloud.db.read(lambda tx: tx.all(_OPERATIONS, {})):
        counts[f"operations: {row.saga} {row.status}"] += 1
    for row in cloud.db.read(lambda tx: tx.all(_MIGRATIONS, {})):
        lost = ", its memory lost" if row.reason == "MEMORY_LOST" else ""
        counts[f"migrations: {row.type} {row.status}{lost}"] += 1
    for row in cloud.db.read(lambda tx: tx.all(_FINDINGS, {})):
        counts[f"findings: {row.finding}"] += row.times
    return counts


def _otherwise_described(tx: Tx, made: Mapping[str, Mapping[str, Guest]]) -> Iterator[str]:
    """Guests whose ports differ from the records of their servers, or that were made otherwise than these say."""
    for row in tx.all(_PLACES, {}):
        guest = made.get(row.host, {}).get(row.id)
        if guest is None:
            continue
        ports, seen = set(bindings.hosts_of(tx, row.id)), {nic.port_id for nic in guest.nics}
        if seen != ports:
            yield f"server {row.id[:8]} has ports {sorted(ports)}, but its guest on {row.host} has {sorted(seen)}"
        stored = get_server(tx, row.id).guest
        if stored is None:  # It was never made as a whole.
            continue
        described = msgspec.convert(stored, Guest)
        for name in Guest.__struct_fields__:
            told, found = getattr(described, name), getattr(guest, name)
            if told != found:
                yield f"server {row.id[:8]} is described with {name} {told}, but its guest on {row.host} has {found}"


def _with_other_disks(tx: Tx, further: Mapping[str, Mapping[str, FurtherDisks]]) -> Iterator[str]:
    """Guests whose ephemeral and swap disks differ from their servers' flavors, or were not made."""
    for row in tx.all(_PLACES, {}):
        found = further.get(row.host, {}).get(row.id)
        if found is None:
            continue
        told, present = found
        wanted = block_devices.of(get_server(tx, row.id))
        if told != wanted or present != {disk.place: disk.content for disk in wanted}:
            yield f"server {row.id[:8]} should have the disks {wanted}, but on {row.host} has {told} with {present}"


def _newer_than_records(tx: Tx) -> Iterator[str]:
    """No backup was restored, so no host may know more of a server than the records do."""
    for row in tx.all(_FINDINGS, {}):
        if row.finding == restored.FINDING:
            yield f"{row.host} has a guest of server {row.subject[:8]} that is newer than the records"


def _lost(tx: Tx, workload: Workload) -> Iterator[str]:
    rows = {row.id: row for row in tx.all(_SERVERS, {})}
    for row in rows.values():
        if row.deleted_at_us is None and row.fault_message == drift.LOST:
            yield f"server {row.id[:8]} {LOST_GUEST}"
    for server_id in workload.created:
        if server_id not in rows:
            yield f"server {server_id[:8]} {LOST_REQUEST}"
    for server_id in workload.deleted:
        if rows[server_id].deleted_at_us is None:
            yield f"the delete of {server_id[:8]} {LOST_REQUEST}"
