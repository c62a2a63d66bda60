"""How long a copy may take, and how long it takes: patience and the simulated copy, against formulas of their own."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cumulet.compute.copying import follow_copy
from cumulet.conductor.saga import Context, StepFailed, Wishes
from cumulet.drivers.simulated.copy import Copy
from cumulet.host import messages as m
from cumulet.host.driver import Guest, MigrationParameters, MigrationPhase, MigrationProgress
from cumulet.host.endpoint import Endpoint, Peer
from cumulet.settings import Settings

GIB = 2**30
POLL_SECONDS = 0.5


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A copy as its source tells it, in seconds since it began, each a multiple of `POLL_SECONDS`."""

    grows_at: frozenset[float]
    """When one more byte has been sent."""
    silent_from: float
    completes_at: float
    memory_bytes: int
    disk_bytes: int
    stall_seconds: float
    seconds_per_gib: float
    by_force: bool

    @property
    def allowed_seconds(self) -> float:
        """How long the whole copy may take."""
        return self.seconds_per_gib * max(1.0, (self.memory_bytes + self.disk_bytes) / GIB)

    def outcome(self) -> tuple[str, bool]:
        """How it ends, and whether it is forced meanwhile: told in order of time, question by question."""
        grew, times, forced, at = 0.0, 1, False, 0.0
        first = True
        while True:
            at += POLL_SECONDS
            if at >= self.silent_from:
                return "SOURCE_SILENT", forced
            if at >= self.completes_at:
                return "completed", forced
            if first or at in self.grows_at:
                grew, first = at, False
            if at - grew > self.stall_seconds:
                return "NO_PROGRESS", forced
            if at > self.allowed_seconds * times:
                if not self.by_force or forced:
                    return "TIMED_OUT", forced
                times, forced = 2, True


seconds = st.integers(1, 60).map(lambda n: n * POLL_SECONDS)
plans = st.builds(
    Plan,
    grows_at=st.frozensets(seconds, max_size=60),
    silent_from=st.one_of(st.just(1e9), seconds),
    completes_at=seconds,
    memory_bytes=st.integers(1, 3 * GIB),
    disk_bytes=st.integers(0, 2 * GIB),
    stall_seconds=st.integers(1, 20).map(lambda n: n * POLL_SECONDS + 0.25),
    seconds_per_gib=st.integers(1, 20).map(lambda n: n * POLL_SECONDS + 0.125),
    by_force=st.booleans(),
)


class Source:
    """A context in which only the source's answers and the clock are there. Time passes while one waits."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.now, self.forced, self.step = plan, 0.0, 0, 0
        self.settings = Settings(
            state_dir=Path("/nonexistent"),
            database_url="",
            migration_progress_timeout_seconds=plan.stall_seconds,
            migration_timeout_seconds_per_gib=plan.seconds_per_gib,
            migration_timeout_action="force_complete" if plan.by_force else "abort",
        )
        self.clock = self.hosts = self
        self.server_id = self.operation_id = self.source = "one"
        self.generation = self.migration_id = 1

    def monotonic(self) -> float:
        return self.now

    async def send(self, host: str, message: m.Message[object], *, seconds: float | None = None) -> Any:
        if isinstance(message, m.ForceComplete):
            self.forced += 1
            return None
        assert isinstance(message, m.CopyProgress)
        self.now += message.wait_seconds
        if self.now >= self.plan.silent_from:
            raise m.HostUnreachable("it is silent")
        done = self.now >= self.plan.completes_at
        return MigrationProgress(
            phase=MigrationPhase.COMPLETED if done else MigrationPhase.ACTIVE,
            memory_total=self.plan.memory_bytes,
            disk_total=self.plan.disk_bytes,
            memory_processed=sum(at <= self.now for at in self.plan.grows_at),
        )

    async def record(self, fn: Callable[[object], None]) -> Wishes:
        return Wishes(abort=False, force=False)

    async def wait_for_wish(self, seconds: float) -> None:
        self.now += seconds


@given(plan=plans)
@settings(max_examples=400, deadline=None)
def test_patience_ends_when_it_is_said_to_end(plan: Plan) -> None:
    source = Source(plan)
    try:
        asyncio.run(follow_copy(cast("Context", source), source))
        how = "completed"
    except StepFailed as failed:
        how = failed.failure.reason
    assert (how, source.forced) == (plan.outcome()[0], int(plan.outcome()[1]))
    if how == "SOURCE_SILENT":
        assert source.now > plan.stall_seconds, "it was asked again for as long"


# -- the simulated copy

copies = st.builds(
    lambda memory, disk, bandwidth, downtime_ms, rate, copy_disk: Copy(
        Guest(server_id="one", name="one", vcpus=1, memory_mib=memory, disk_gib=disk, image=None),
        Endpoint(address="127.0.0.1", port=1, nbd_port=None, peer=Peer(host="host2", move="m", authority="two")),
        MigrationParameters(bandwidth_mib_s=bandwidth, downtime_limit_ms=downtime_ms, copy_disk=copy_disk),
        Peer(host="host1", move="m", authority="one"),
        float(rate),
        0,
    ),
    memory=st.integers(64, 4096),
    disk=st.integers(0, 20),
    bandwidth=st.integers(1, 2000),
    downtime_ms=st.integers(1, 2000),
    rate=st.integers(0, 2500),
    copy_disk=st.booleans(),
)


@given(copy=copies)
@settings(max_examples=300, deadline=None)
def test_a_copy_sends_all_that_was_there_and_all_that_was_dirtied(copy: Copy) -> None:
    """Bytes sent until the end are the disk's, the memory's, and what was dirtied while the guest ran."""
    stops, ends = copy.switchover_at, copy.completed_at
    if copy.dirty_rate >= copy.bandwidth and copy.memory > copy.bandwidth * copy.downtime_limit:
        assert (stops, ends) == (None, None)
        return
    assert stops is not None
    assert ends is not None
    dirtied = copy.dirty_rate * (stops - copy.disk_seconds)
    assert copy.bandwidth * ends == pytest.approx(copy.disk + copy.memory + dirtied, rel=1e-9)
    assert ends - stops <= copy.downtime_limit * (1 + 1e-9)
    copy.outcome = MigrationPhase.COMPLETED
    told = copy.progress(ends)
    assert told.downtime_ms == pytest.approx((ends - stops) * 1000, abs=1.001)
    assert (told.memory_remaining, told.disk_remaining, told.disk_processed) == (0, 0, copy.disk)


@given(copy=copies, forced_at=st.floats(0.0, 100.0), parts=st.lists(st.floats(0.0, 1.0), min_size=2, max_size=6))
@settings(max_examples=300, deadline=None)
def test_a_copy_that_is_forced_ends_whatever_its_guest_does(copy: Copy, forced_at: float, parts: list[float]) -> None:
    """The guest stands still from then on, so that what is left is sent at the full rate; nothing told goes back."""
    stops = copy.switchover_at
    if stops is not None and stops <= forced_at:
        return
    left = copy.remaining(max(forced_at, copy.disk_seconds))
    copy.forced_at = forced_at
    ends = copy.completed_at
    assert ends == pytest.approx(max(forced_at, copy.disk_seconds) + left / copy.bandwidth, rel=1e-9)
    assert ends is not None
    told = [copy.progress(ends * part) for part in sorted(parts)]
    for earlier, later in itertools.pairwise(told):
        assert later.memory_processed + later.disk_processed >= earlier.memory_processed + earlier.disk_processed
    assert all(0 <= each.memory_remaining <= copy.memory for each in told)
