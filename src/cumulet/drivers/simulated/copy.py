"""The model of a copy between simulated hosts: rounds, convergence, switchover and post-copy from a few numbers."""

from __future__ import annotations

import asyncio

from cumulet.host.driver import Guest, MigrationParameters, MigrationPhase, MigrationProgress
from cumulet.host.endpoint import Endpoint, Peer

MIB = 1024 * 1024


class Copy:
    """One copy. Times are virtual seconds since its start. It is computed in closed form: nothing ticks."""

    def __init__(
        self,
        guest: Guest,
        endpoint: Endpoint,
        parameters: MigrationParameters,
        source: Peer,
        dirty_rate_mib_s: float,
        started_us: int,
    ) -> None:
        self.endpoint = endpoint
        self.source = source
        self.memory = guest.memory_mib * MIB
        gib = guest.disk_gib + sum(disk.size_mib for disk in guest.disks) / 1024
        self.disk = int(gib * 16) * MIB if parameters.copy_disk else 0  # A guest has written 16 MiB of each GiB.
        self.bandwidth = parameters.bandwidth_mib_s * MIB
        self.downtime_limit = parameters.downtime_limit_ms / 1000
        self.dirty_rate = min(dirty_rate_mib_s * MIB, self.bandwidth * 100)
        self.started_us = started_us
        self.still_until_us = 0
        """Nothing is sent until then. It is in the past for a copy that goes on."""
        self.post_copy = parameters.post_copy
        self.forced_at: float | None = None
        self.post_copy_at: float | None = None
        """When the guest went on at the destination. The rest of its memory follows from then on."""
        self.told = False
        """Whether POST_COPY_READY has been announced."""
        self.news = asyncio.Event()
        """Set when it is ready for post-copy, and when it has ended."""
        self.ended = asyncio.Event()
        self.changed = asyncio.Event()
        self.outcome: MigrationPhase | None = None
        self.error: str | None = None

    def elapsed(self, now_us: int, *, speed: float) -> float:
        """Virtual seconds since it began, without those in which it stood still. `speed`: virtual seconds a second."""
        return (max(now_us, self.still_until_us) - self.started_us) / 1_000_000 * speed

    def stand_still(self, now_us: int, until_us: int) -> None:
        """Send nothing until `until_us`. A time that is earlier than the last one given lets it go on sooner."""
        begun = max(now_us, self.still_until_us)
        self.started_us += max(now_us, until_us) - begun
        self.still_until_us = until_us
        self.changed.set()

    @property
    def destination(self) -> str:
        return self.endpoint.peer.host

    @property
    def disk_seconds(self) -> float:
        return self.disk / self.bandwidth

    def remaining(self, at: float) -> float:
        """Bytes of memory still to send `at` seconds after the start."""
        active = max(0.0, at - self.disk_seconds)
        if self.forced_at is None or at <= self.forced_at:
            left = self.memory - (self.bandwidth - self.dirty_rate) * active
            return min(max(left, 0.0), float(self.memory))
        sends_from = max(self.forced_at, self.disk_seconds)
        if self.post_copy:
            sends_from = at if self.post_copy_at is None else self.post_copy_at
        return max(0.0, self.remaining(self.forced_at) - self.bandwidth * max(0.0, at - sends_from))

    @property
    def switchover_at(self) -> float | None:
        """When the guest stops for the last round; None if it never converges."""
        if self.forced_at is not None:
            return max(self.forced_at, self.disk_seconds)
        threshold = self.bandwidth * self.downtime_limit
        net = self.bandwidth - self.dirty_rate
        if self.memory <= threshold:
            return self.disk_seconds
        return self.disk_seconds + (self.memory - threshold) / net if net > 0 else None

    @property
    def completed_at(self) -> float | None:
        at = self.switchover_at
        if self.post_copy and self.forced_at is not None:
            at = self.post_copy_at
        return None if at is None else at + self.remaining(at) / self.bandwidth

    @property
    def ready_at(self) -> float | None:
        """When the guest stands still and post-copy waits for the commit; None without post-copy."""
        return self.switchover_at if self.post_copy and self.forced_at is not None else None

    def progress(self, at: float) -> MigrationProgress:
        remaining = int(self.remaining(at))
        disk_done = min(self.disk, int(self.bandwidth * at))
        processed = int(min(self.bandwidth * max(0.0, at - self.disk_seconds), self.memory * 50.0))
        switchover = self.switchover_at
        if self.outcome is not None:
            phase = self.outcome
        elif at < self.disk_seconds:
            phase = MigrationPhase.DISK
        elif switchover is None or at < switchover or (self.ready_at is not None and not self.told):
            phase = MigrationPhase.ACTIVE
        elif self.ready_at is None:
            phase = MigrationPhase.SWITCHOVER
        else:
            phase = MigrationPhase.POST_COPY_READY if self.post_copy_at is None else MigrationPhase.POST_COPY
        completed = phase is MigrationPhase.COMPLETED
        downtime = None
        if completed and switchover is not None:
            stood = self.post_copy_at - switchover if self.post_copy_at is not None else None
            downtime = self.remaining(switchover) / self.bandwidth if stood is None else stood
        return MigrationProgress(
            phase=phase,
            error=self.error,
            memory_total=self.memory,
            memory_processed=max(processed, self.memory) if completed else processed,
            memory_remaining=0 if completed else remaining,
            disk_total=self.disk,
            disk_processed=self.disk if completed else disk_done,
            disk_remaining=0 if completed else self.disk - disk_done,
            rate_bytes_s=float(self.bandwidth),
            dirty_rate_bytes_s=self.dirty_rate,
            rounds=1 + processed // max(1, self.memory),
            downtime_ms=int(downtime * 1000) if downtime is not None else None,
            elapsed_ms=int(at * 1000),
        )
