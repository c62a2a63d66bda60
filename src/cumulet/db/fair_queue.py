"""Which job the database's threads take next: one of the caller served least, so that many jobs of one delay no other.

What keeps leases comes before all else, then the cloud's own work: the steps of operations. Every other caller has a
lane: its project, else its user, else its address. A lane is charged the time its jobs took, and the lane charged least
is next: start-time fair queueing (Goyal, Vin and Cheng 1996). A lane gets no credit for time in which it asked for
nothing.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, InvalidStateError
from contextvars import ContextVar
from typing import Any

import msgspec

from cumulet.errors import Unavailable

CLOUD = ""
"""The lane of the cloud's own work."""
LEASES = "leases"
"""The lane of what keeps leases: their renewal, and hearing hosts. Behind the steps of many operations it would come
late, and who is late loses what it holds."""
OWN = frozenset({CLOUD, LEASES})
"""Lanes of no caller: their jobs are never refused, and are not charged."""
MOST_WAITING = 512
"""Jobs of one lane that may wait; more are refused with 503."""
CLOUD_SECONDS = 0.05
"""For so long the cloud's own work is served in a row while others wait; then one job of another lane is."""
LEASES_SECONDS = 0.05
"""The same for what keeps leases: a control plane that starts asks many hosts, and each may have to be told much."""

NICE = 5
"""How much lower the priority of threads is that work behind others."""
LOWEST_PRIORITY = 19

served: ContextVar[str] = ContextVar("served", default=CLOUD)
"""The lane of the caller. The web kernel sets it for each request; work outside of requests is the cloud's own."""


@contextlib.contextmanager
def before_all_else() -> Iterator[None]:
    """What the block asks of the database, and the tasks that it creates, is of the lane `LEASES`."""
    before = served.set(LEASES)
    try:
        yield
    finally:
        served.reset(before)


@contextlib.contextmanager
def like_other_work() -> Iterator[None]:
    """What the block asks of the database is of the lane `CLOUD`, also in a task that `before_all_else` has created."""
    before = served.set(CLOUD)
    try:
        yield
    finally:
        served.reset(before)


class Job(msgspec.Struct, eq=False):
    """A function of a transaction that waits for a thread, the future of its result, and its lane."""

    fn: Callable[[Any], Any]
    future: Future[Any] = msgspec.field(default_factory=Future)
    lane: str = msgspec.field(default_factory=served.get)

    def fail(self, error: BaseException) -> None:
        """Its caller may have given up meanwhile: that ends no thread."""
        with contextlib.suppress(InvalidStateError):
            self.future.set_exception(error)


class _Lane(msgspec.Struct, eq=False):
    charged: float
    """Seconds, on the queue's own clock: see `FairQueue._now`."""
    waiting: deque[Job] = msgspec.field(default_factory=deque)
    running: int = 0
    in_a_row: float = 0.0
    """Seconds of work since it last asked for nothing."""


class FairQueue:
    """Jobs for some threads. `most_at_once`: how many of them may serve one lane at the same time; `most_waiting`: how
    many of one lane may wait. A lane that has asked for `long_seconds` of work without a pause is served by one."""

    def __init__(
        self, *, most_at_once: int, most_waiting: int = MOST_WAITING, long_seconds: float = float("inf")
    ) -> None:
        self._most_at_once = most_at_once
        self._long_seconds = long_seconds
        self._most_waiting = most_waiting
        self._changed = threading.Condition(threading.Lock())
        self._lanes: dict[str, _Lane] = {}
        self._waiting = 0
        self._running = 0
        self._now = 0.0
        """What the lane served last had been charged: a lane that comes, or comes back, begins there."""
        self._cloud_in_a_row = 0.0
        self._leases_in_a_row = 0.0
        self._closed = False

    def put(self, job: Job) -> None:
        """Queue a job. Unavailable if too many of its lane wait already."""
        with self._changed:
            lane = self._lanes.get(job.lane)
            if lane is None:
                lane = self._lanes[job.lane] = _Lane(charged=self._now)
            if len(lane.waiting) >= self._most_waiting and job.lane not in OWN:
                raise Unavailable("Too many requests at once. Try again soon.", headers={"Retry-After": "1"})
            if not lane.waiting and not lane.running:
                lane.charged, lane.in_a_row = max(lane.charged, self._now), 0.0
            lane.waiting.append(job)
            self._waiting += 1
            self._changed.notify()

    def get(self, *, wait: bool = True) -> Job | None:
        """The next job, to be given back with `done`. None: none is ready; with `wait`, the queue is closed and
        empty."""
        with self._changed:
            while (lane := self._next()) is None:
                if not wait or (self._closed and not self._waiting):
                    return None
                self._changed.wait()
            job = lane.waiting.popleft()
            lane.running += 1
            self._waiting -= 1
            self._running += 1
            if job.lane != LEASES:
                self._leases_in_a_row = 0.0
            if job.lane not in OWN:
                self._now = max(self._now, lane.charged)
                self._cloud_in_a_row = 0.0
            return job

    def done(self, job: Job, seconds: float) -> None:
        """The job has ended; it took so many seconds."""
        with self._changed:
            lane = self._lanes[job.lane]
            lane.running -= 1
            lane.charged += seconds
            lane.in_a_row += seconds
            self._running -= 1
            if job.lane == CLOUD:
                self._cloud_in_a_row += seconds
            if job.lane == LEASES:
                self._leases_in_a_row += seconds
            if not self._running and not self._waiting:
                self._lanes.clear()  # nobody competes: charges are forgotten
                self._now = 0.0
            elif not lane.running and not lane.waiting and (job.lane in OWN or lane.charged <= self._now):
                del self._lanes[job.lane]
            if self._closed:
                self._changed.notify_all()

    @property
    def busy(self) -> bool:
        """Whether a job waits, or is being done."""
        return bool(self._waiting or self._running)

    def close(self) -> None:
        """Serve what waits; then `get` returns None."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _next(self) -> _Lane | None:
        leases, cloud = (self._if_waiting(name) for name in (LEASES, CLOUD))
        if leases is not None and self._leases_in_a_row < LEASES_SECONDS:
            return leases
        if cloud is not None and self._cloud_in_a_row < CLOUD_SECONDS:
            return cloud
        best: _Lane | None = None
        for name, lane in self._lanes.items():
            may = name not in OWN and lane.waiting and lane.running < self._most_of(lane)
            if may and (best is None or lane.charged < best.charged):
                best = lane
        return best or cloud or leases

    def _if_waiting(self, name: str) -> _Lane | None:
        lane = self._lanes.get(name)
        return lane if lane is not None and lane.waiting else None

    def _most_of(self, lane: _Lane) -> int:
        return self._most_at_once if lane.in_a_row < self._long_seconds else 1


def serve(
    queue: FairQueue,
    run: Callable[[Callable[[Any], Any]], Any],
    computed: Callable[[str, float], None] = lambda lane, seconds: None,
) -> None:
    """A thread's life: `run` each job's function until the queue is closed and empty. `computed` is told for which lane
    it has computed, and how long."""
    while (job := queue.get()) is not None:
        begun, used = time.perf_counter(), time.thread_time()
        try:
            if job.future.set_running_or_notify_cancel():
                job.future.set_result(run(job.fn))
        except BaseException as error:
            job.fail(error)
        finally:
            queue.done(job, time.perf_counter() - begun)
            computed(job.lane, time.thread_time() - used)


def serve_behind_others(queue: FairQueue) -> None:
    """As `serve`, on a thread of lower priority, for jobs that take a core for long: where processors are scarce, the
    rest of the API comes first. The jobs' functions get nothing."""
    if sys.platform == "linux":
        thread = threading.get_native_id()
        os.setpriority(os.PRIO_PROCESS, thread, min(os.getpriority(os.PRIO_PROCESS, thread) + NICE, LOWEST_PRIORITY))
    serve(queue, lambda work: work(None))
