"""One of the two is live-migrated to the other host, while we watch its progress and its console from outside."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import Any

from rich.progress import BarColumn, Progress, TaskID, TextColumn

from cumulet.cli.client import Persona, Unexpected
from cumulet.cli.demo.consoles import Watcher
from cumulet.cli.demo.evidence import Evidence
from cumulet.cli.demo.network import Pings
from cumulet.cli.demo.personas import People
from cumulet.cli.demo.servers import SERVERS, Pair, host_of, show, until

MIB = 1024 * 1024
ENDED = ("completed", "error", "failed", "cancelled")
MIGRATION_SECONDS = 60.0
SLOWEST_BYTES_S = 4096.0
"""Below this rate nothing moves, and an estimate of the time left would mean nothing."""
PLAIN_SECONDS = 0.5
"""How often a line of progress is printed where there is no terminal to draw a bar on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moved:
    """What the move did."""

    server_id: str
    source: str
    destination: str
    record: dict[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Progress as the API tells it, in bytes; the rate is ours, from the reading before."""

    phase: str
    processed: int
    remaining: int
    rate: float
    fraction: float | None
    """Of all there is to send; None until the hypervisor has said how much memory that is."""

    @property
    def eta_seconds(self) -> float | None:
        return self.remaining / self.rate if self.rate >= SLOWEST_BYTES_S else None

    def __str__(self) -> str:
        eta = "-" if self.eta_seconds is None else f"{self.eta_seconds:.1f} s"
        return (
            f"{self.phase:<14} sent {self.processed / MIB:7.0f} MiB  remaining {self.remaining / MIB:7.0f} MiB"
            f"  {self.rate / MIB:6.0f} MiB/s  ETA {eta}"
        )


class Meter:
    """Turns the API's progress records into readings."""

    def __init__(self) -> None:
        self._before: tuple[float, int] | None = None
        self._rate = 0.0

    def read(self, record: dict[str, Any]) -> Reading:
        disk_left = int(record.get("disk_remaining_bytes") or 0)
        memory_left = int(record.get("memory_remaining_bytes") or 0)
        processed = sum(int(record.get(f"{kind}_processed_bytes") or 0) for kind in ("disk", "memory"))
        now = time.monotonic()
        if self._before is not None and now > self._before[0]:
            # Smoothed over about three readings; the bytes of one reading come in bursts.
            self._rate += (max(0, processed - self._before[1]) / (now - self._before[0]) - self._rate) / 3
        self._before = (now, processed)
        phase = str(record["status"])
        if phase == "running":
            phase = "copying disk" if disk_left else "copying memory" if memory_left else "starting"
        remaining = disk_left + memory_left
        whole = processed + remaining
        known = bool(record.get("memory_total_bytes")) and whole > 0
        return Reading(
            phase=phase,
            processed=processed,
            remaining=remaining,
            rate=self._rate,
            fraction=processed / whole if known else None,
        )


class ProgressBar:
    """A bar on a terminal; elsewhere a line for each new phase and every half second."""

    def __init__(self, evidence: Evidence) -> None:
        self._console = evidence.console
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._last_phase = ""
        self._last_line = 0.0
        if self._console.is_terminal:
            self._bar = Progress(BarColumn(bar_width=30), TextColumn("{task.description}"), console=self._console)
            self._task = self._bar.add_task("starting", total=1.0)

    def __enter__(self) -> ProgressBar:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, reading: Reading) -> None:
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=reading.fraction or 0.0, description=str(reading))
            return
        soon = reading.fraction is not None and time.monotonic() - self._last_line >= PLAIN_SECONDS
        if reading.phase != self._last_phase or soon:
            self._last_phase, self._last_line = reading.phase, time.monotonic()
            percent = "    -" if reading.fraction is None else f"{100 * reading.fraction:3.0f} %"
            self._console.print(f"   {percent}  {reading}", highlight=False)

    def finish(self, words: str) -> None:
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=1.0, description=words)
        else:
            self._console.print(f"   100 %  {words}", highlight=False)


def migrate(evidence: Evidence, people: People, pair: Pair, hosts: list[str], *, pinged: str | None) -> Moved:
    """Move one server to the host that does not run it, and show what became of everything.

    `pinged`: its address, where this machine reaches it.
    """
    with contextlib.ExitStack() as meanwhile:
        pings = meanwhile.enter_context(Pings(pinged)) if pinged is not None else None
        before = pings is not None and pings.wait_for_more(1)
        begun = time.monotonic()
        moved = _migrate(evidence, people, pair, hosts)
        took_ms = 1000 * (time.monotonic() - begun)
        if pings is not None:
            after = pings.wait_for_more(20)
            evidence.claim(
                "it answered pings from this machine before, during and after the move",
                before and after and pings.longest_hole_ms < took_ms,
                f"{len(pings.answered)} answers; longest hole {pings.longest_hole_ms:.0f} ms",
            )
    return moved


def _migrate(evidence: Evidence, people: People, pair: Pair, hosts: list[str]) -> Moved:
    admin = people.admin
    source = host_of(admin, pair.moving)
    sibling_host = host_of(admin, pair.staying)
    destination = next(host for host in hosts if host != source)
    with Watcher(people.member, pair.moving) as watcher:
        watcher.wait_for_more(5, 10.0)
        before = watcher.sights[-1].tick if watcher.sights else 0
        answer = admin.act(pair.moving, {"os-migrateLive": {"host": destination, "block_migration": "auto"}})
        evidence.tell(f"admin: os-migrateLive of {pair.moving} from {source} to {destination}: {answer.status}")
        if answer.status != 202:
            raise Unexpected(f"os-migrateLive: {answer.status} {answer.message}")
        try:
            record = _watch(evidence, admin, pair.moving)
        except Unexpected as problem:
            raise Unexpected(f"{problem}; {_under_way(admin, pair.moving)}") from problem
        went_on = watcher.wait_for_more(10, 15.0)
    evidence.claim("the migration completed", record["status"] == "completed", _story_of(record))
    after = show(admin, pair.moving)
    evidence.claim(
        "the server is ACTIVE on the destination",
        after["status"] == "ACTIVE" and after["OS-EXT-SRV-ATTR:host"] == destination,
        f"{after['status']} on {after['OS-EXT-SRV-ATTR:host']}",
    )
    last = watcher.sights[-1].tick if watcher.sights else 0
    evidence.claim(
        "its own tick counter went on across the move, uninterrupted",
        went_on and watcher.uninterrupted,
        f"from {before} to {last}; longest silence seen from outside {watcher.longest_gap_ms:.0f} ms",
    )
    sibling = show(admin, pair.staying)
    evidence.claim(
        "its sibling of the same request did not move",
        sibling["OS-EXT-SRV-ATTR:host"] == sibling_host and sibling["status"] == "ACTIVE",
        f"{sibling['status']} on {sibling['OS-EXT-SRV-ATTR:host']}",
    )
    return Moved(server_id=pair.moving, source=source, destination=destination, record=record)


def latest_record(admin: Persona, server_id: str) -> dict[str, Any] | None:
    """The newest migration record of a server: kept for good, with how it ended."""
    records: list[dict[str, Any]] = admin.get(f"/compute/v2.1/os-migrations?instance_uuid={server_id}")["migrations"]
    return max(records, key=lambda record: int(record["id"]), default=None)


def _watch(evidence: Evidence, admin: Persona, server_id: str) -> dict[str, Any]:
    """Show progress until the migration has ended; its record."""
    meter = Meter()
    reading: Reading | None = None
    with ProgressBar(evidence) as bar, until("the live migration has ended", MIGRATION_SECONDS) as waiting:
        for passed in waiting:
            running = admin.get(f"{SERVERS}/{server_id}/migrations")["migrations"]
            if running:
                answer = admin.ask("GET", f"{SERVERS}/{server_id}/migrations/{running[0]['id']}")
                if answer.status == 200:
                    reading = meter.read(answer.json["migration"])
                    bar.show(reading)
                continue
            record = latest_record(admin, server_id)
            if record is not None and record["status"] in ENDED:
                sent = f", {reading.processed / MIB:.0f} MiB seen sent" if reading is not None else ""
                bar.finish(f"{record['status']} after {passed:.2f} s{sent}")
                return record
    raise AssertionError("unreachable: `until` raises")


def _under_way(admin: Persona, server_id: str) -> str:
    """What the cloud itself says about an operation that has not ended in time."""
    operations = admin.get("/compute/v2.1/cumulet/operations")["operations"]
    mine = [one for one in operations if one["server_id"] == server_id]
    return "; ".join(
        f"{one['saga']} {one['status']} at step {one['position']}, attempt {one['attempts']}, "
        f"{one['cause'] or 'not stuck'}"
        for one in mine
    )


def _story_of(record: dict[str, Any]) -> str:
    return (
        f"record {record['uuid'][:8]}: {record['migration_type']} from {record['source_compute']} to "
        f"{record['dest_compute']}, {record['status']}"
    )
