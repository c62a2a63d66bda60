"""Invariants that hold as soon as a record is written, and not only after a reconciler or at rest.

A port that was detached is in no guest. A shelved server has the image that it will start from. An evacuated server
does not run on its former host. What was asked to abort does not cross its line.

They are read from the tables, after commits that wrote to these.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

import msgspec

from cumulet.compute.evacuation import EVACUATION
from cumulet.compute.interfaces import ATTACHMENT, DETACHMENT
from cumulet.compute.model import SHELVED_IMAGE
from cumulet.conductor.saga import is_database_step
from cumulet.host.driver import GuestState
from cumulet.processes.parts import SAGAS
from cumulet.testing.simulation.segments import Segments

if TYPE_CHECKING:
    from cumulet.testing.simulation.cloud import SimulatedCloud

_SHELVED = f"""
SELECT s.id, s.vm_state FROM servers s
LEFT JOIN images i ON i.id = json_extract(s.system_metadata, '$.{SHELVED_IMAGE}')
WHERE s.deleted_at_us IS NULL AND s.vm_state IN ('shelved', 'shelved_offloaded')
AND (i.id IS NULL OR i.status != 'active' OR i.deleted_at_us IS NOT NULL)
"""  # noqa: S608 - the key is a constant
_EVACUATED = f"""
CREATE TRIGGER simulation_evacuated AFTER UPDATE OF host ON servers WHEN NEW.host != OLD.host AND EXISTS
(SELECT 1 FROM operations WHERE subject = NEW.id AND saga = '{EVACUATION.name}' AND ended_at_us IS NULL)
BEGIN SELECT evacuated(NEW.id, OLD.host); END
"""  # noqa: S608 - the name is a constant
_ABORTED = """
CREATE TRIGGER simulation_aborted AFTER UPDATE OF position ON operations
WHEN OLD.abort_requested AND NEW.status IN ('forward', 'done') AND NEW.position > OLD.position
BEGIN SELECT went_on(NEW.saga, NEW.subject, OLD.position, NEW.position); END
"""
_DOWN = "SELECT 1 FROM hosts WHERE name = ? AND (forced_down OR NOT up)"


class _PortOf(msgspec.Struct, frozen=True):
    port_id: str


class _Change(msgspec.Struct, frozen=True):
    """The parts of an operation's state that are needed here."""

    server_id: str
    host: str
    nic: _PortOf


class AtOnce:
    """Collects what triggers report during a transaction, and checks it after the commit."""

    def __init__(self) -> None:
        self._shelved_touched = False
        self._ended: list[tuple[str, str]] = []
        """Operation and state of each detachment, or attachment taken back, that has ended."""
        self._evacuated: list[tuple[str, str]] = []
        """Evacuated servers, each with its former host."""
        self._begun: dict[str, Counter[str]] = {}
        """By attachment: how often each host had gone down or come up when it began."""
        self._turns: Counter[str] = Counter()
        self._went_on: list[tuple[str, str]] = []
        """Saga and subject of each operation that crossed its line after it was asked to abort."""
        self._segments = Segments()

    def watch(self, driver: sqlite3.Connection) -> None:
        """Make the triggers that report writes."""
        self._segments.watch(driver)
        driver.create_function("shelved_touched", 0, self._touched)
        for event in ("images AFTER UPDATE OF status, deleted_at_us", "servers AFTER UPDATE OF vm_state"):
            table, _, when = event.partition(" ")
            trigger = f"CREATE TRIGGER simulation_shelved_{table} {when} ON {table}"
            driver.execute(f"{trigger} BEGIN SELECT shelved_touched(); END")
        driver.create_function("evacuated", 2, lambda *of: self._evacuated.append(of))
        driver.execute(_EVACUATED)
        driver.create_function("went_on", 4, self._note_went_on)
        driver.execute(_ABORTED)
        driver.create_function("host_turned", 1, lambda name: self._turns.update([name]))
        driver.execute(
            "CREATE TRIGGER simulation_turned AFTER UPDATE OF up, forced_down ON hosts "
            "WHEN NEW.up != OLD.up OR NEW.forced_down != OLD.forced_down BEGIN SELECT host_turned(NEW.name); END"
        )
        driver.create_function("port_asked", 1, self._port_asked)
        driver.create_function("port_gone", 2, lambda *ended: self._ended.append(ended))
        driver.execute(
            f"CREATE TRIGGER simulation_port_asked AFTER INSERT ON operations WHEN NEW.saga = '{ATTACHMENT.name}' "
            "BEGIN SELECT port_asked(NEW.id); END"
        )
        driver.execute(
            "CREATE TRIGGER simulation_port_gone AFTER UPDATE OF status ON operations "
            f"WHEN (NEW.saga = '{ATTACHMENT.name}' AND NEW.status = 'unwound') "
            f"OR (NEW.saga = '{DETACHMENT.name}' AND NEW.status = 'done') "
            # An operation that has ended keeps no state.
            "BEGIN SELECT port_gone(NEW.id, OLD.state); END"
        )

    def forget(self) -> None:
        """Begin the next run."""
        self._shelved_touched = False
        self._ended.clear()
        self._evacuated.clear()
        self._went_on.clear()
        self._begun.clear()
        self._turns.clear()
        self._segments.forget()

    def broken(self, cloud: SimulatedCloud) -> Iterator[tuple[str, str]]:
        """The kind and the story of each invariant that does not hold."""
        yield from self._segments.broken()
        if self._shelved_touched:
            self._shelved_touched = False
            for server_id, vm_state in cloud.db.driver.execute(_SHELVED):
                yield "lost image", f"server {server_id[:8]} is {vm_state}, and has no image"
        while self._went_on:
            saga, subject = self._went_on.pop()
            yield "abort unheeded", f"the {saga} of {subject[:8]} crossed its line after it was asked to abort"
        while self._evacuated:
            server_id, host = self._evacuated.pop()
            if cloud.machines[host].driver.present().get(server_id) is GuestState.RUNNING:
                yield "evacuated alive", f"{server_id[:8]} was evacuated from {host}, and runs there"
        while self._ended:
            operation_id, state = self._ended.pop()
            change = msgspec.json.decode(state, type=_Change)
            guest = cloud.machines[change.host].driver.described().get(change.server_id)
            has = guest is not None and any(nic.port_id == change.nic.port_id for nic in guest.nics)
            if has and not self._is_excused(operation_id, change, cloud):
                yield (
                    "left behind",
                    f"port {change.nic.port_id[:8]} was taken away from {change.server_id[:8]}, and its guest on "
                    f"{change.host} has it",
                )

    def _is_excused(self, operation_id: str, change: _Change, cloud: SimulatedCloud) -> bool:
        """Whether the reconciler may end this attachment: its host was down, or answered that it cannot."""
        if (before := self._begun.get(operation_id)) is None:
            return False
        if self._turns[change.host] > before[change.host] or cloud.db.driver.execute(_DOWN, (change.host,)).fetchone():
            return True
        return (change.server_id, change.nic.port_id) in cloud.machines[change.host].cannot_unplug

    def _note_went_on(self, saga: str, subject: str, before: int, now: int) -> None:
        line = len(SAGAS[saga].steps)
        if line and before <= line < now and is_database_step(SAGAS[saga].finals[0].do):
            self._went_on.append((saga, subject))

    def _touched(self) -> None:
        self._shelved_touched = True

    def _port_asked(self, operation_id: str) -> None:
        self._begun[operation_id] = self._turns.copy()
