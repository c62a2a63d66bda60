"""One run: a seed decides the machines, the faults, the requests and every delay. `run` returns the result."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random

import msgspec

from cumulet.db.engine import Tx
from cumulet.testing.simulation.cloud import SimulatedCloud
from cumulet.testing.simulation.faults import Weather, draw
from cumulet.testing.simulation.foundation import foundation
from cumulet.testing.simulation.invariants import Broken, check_quiet, kind_of, outcomes
from cumulet.testing.simulation.liveness import needless, unexplained
from cumulet.testing.simulation.trouble import Trouble
from cumulet.testing.simulation.virtual_time import NothingLeft, VirtualLoop
from cumulet.testing.simulation.workload import Workload

SETTLING_SECONDS = 30.0
"""Virtual seconds from the end of the last fault until everything must be at rest."""
PACES = (0.3, 0.4, 0.4, 1.0)
"""The average of virtual seconds from step to step, one of these in a run."""
ENDING_ROUNDS = 20
IMPORTING = 0.12
"""The share of runs in which images are imported."""
TRUNKED = 0.5
"""Of the runs whose hosts have networks, the share with trunks."""
TELLING = 0.2
"""The share of runs in which names, items and passwords of servers change, and hosts are told of it."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a run. `broken` None: every invariant held. `settled_after`: virtual seconds after the faults
    ended."""

    seed: int
    steps: int
    broken: str | None
    kind: str | None
    """Which invariant was broken, in a word or two."""
    settled_after: float
    virtual_seconds: float
    counts: dict[str, int]
    """What the run exercised, as ``group: what`` -> how often."""
    log: tuple[str, ...]

    @property
    def digest(self) -> str:
        return hashlib.sha256("\n".join(self.log).encode()).hexdigest()[:16]


@dataclass(slots=True)
class Log:
    """The story of a run: virtual time and one line each."""

    loop: VirtualLoop
    lines: list[str] = field(default_factory=list)

    def say(self, text: str) -> None:
        self.lines.append(f"{self.loop.now:10.4f}  {text}")


def run(seed: int, *, steps: int, only: frozenset[int] | None = None) -> Outcome:
    """Run `steps` steps of requests and faults, end the faults, wait for rest, check. `only`: do just these steps."""
    foundation()
    loop = VirtualLoop()
    asyncio.set_event_loop(loop)
    log = Log(loop)
    simulation = _Simulation(loop, log, seed, steps, only)
    broken = kind = None
    try:
        loop.run_until_complete(simulation.play())
    except Broken as problem:
        broken, kind = str(problem), problem.kind
    except NothingLeft:
        kind = "deadlock"
        broken = "deadlock: everybody waits for something that will never come"
    finally:
        _close(loop)
    if broken is not None:
        log.say(f"BROKEN: {broken}")
    return Outcome(
        seed=seed,
        steps=steps,
        broken=broken,
        kind=kind,
        settled_after=simulation.settled_after,
        virtual_seconds=loop.now,
        counts=dict(sorted(simulation.counts().items())),
        log=tuple(log.lines),
    )


def _close(loop: VirtualLoop) -> None:
    """End every task. One that is dropped half-way would give a warning when it is collected."""
    quiet = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        for _ in range(ENDING_ROUNDS):
            tasks = asyncio.all_tasks(loop)
            if not tasks:
                break
            for task in tasks:
                task.cancel()
            loop.run_until_complete(asyncio.wait(tasks, timeout=1.0))
    finally:
        logging.disable(quiet)
        asyncio.set_event_loop(None)
        loop.close()


class _Simulation:
    def __init__(self, loop: VirtualLoop, log: Log, seed: int, steps: int, only: frozenset[int] | None) -> None:
        self._loop = loop
        self._log = log
        self._seed = seed
        self._steps = steps
        self._only = only
        self._counts: Counter[str] = Counter()
        self.settled_after = 0.0

    def counts(self) -> Counter[str]:
        return self._counts

    async def play(self) -> None:
        random = Random(self._seed)  # noqa: S311 - a seed that decides everything is the point
        storm, weather = draw(random), Weather()
        importing = Random(f"{self._seed}/imports").random() < IMPORTING  # noqa: S311
        trunked = Random(f"{self._seed}/trunks").random() < TRUNKED  # noqa: S311
        telling = Random(f"{self._seed}/telling").random() < TELLING  # noqa: S311
        cloud = SimulatedCloud(
            self._loop, random, weather, self._log.say, importing=importing, trunked=trunked, telling=telling
        )
        await cloud.start()
        trouble = Trouble(cloud, random)
        workload = Workload(cloud, random, self._log.say, self._counts)
        await workload.first_servers(random)
        self._log.say(f"faults: {storm}")
        weather.become(storm)
        pace = random.choice(PACES)
        for step in range(self._steps):
            # Each step has random numbers of its own: leaving one out changes no other.
            step_random = Random(f"{self._seed}/{step}")  # noqa: S311
            await self._pause(cloud, step_random.expovariate(1 / pace))
            if self._only is None or step in self._only:
                await self._step(trouble, workload, step_random, step)
        self._log.say("the faults heal")
        weather.become(Weather())
        await trouble.heal()
        try:
            await self._settle(cloud, workload)
            self._require(cloud, "unexplained", unexplained)
            if storm.is_calm:
                self._counts["runs: quiet"] += 1
                self._require(cloud, "failed needlessly", lambda tx: needless(tx, cloud.settings))
                self._require(cloud, "failed needlessly", lambda _: workload.imports.needless())
        finally:
            self._counts.update(outcomes(cloud))

    def _require(self, cloud: SimulatedCloud, kind: str, problems: Callable[[Tx], Iterator[str]]) -> None:
        found = cloud.db.read(lambda tx: list(problems(tx)))
        if found:
            raise Broken(kind, "; ".join(found))

    async def _pause(self, cloud: SimulatedCloud, seconds: float) -> None:
        await asyncio.sleep(seconds)
        cloud.always.look()

    async def _step(self, trouble: Trouble, workload: Workload, random: Random, step: int) -> None:
        fault = trouble.draw(random)
        if fault is not None:
            kind, story = fault
            self._counts[f"faults: {kind}"] += 1
            self._log.say(f"[{step}] fault: {story}")
            return
        workload.begin(random, step)

    async def _settle(self, cloud: SimulatedCloud, workload: Workload) -> None:
        healed = self._loop.now
        problems: list[str] = []
        while self._loop.now - healed < SETTLING_SECONDS:
            await self._pause(cloud, 0.25)
            problems = check_quiet(cloud, workload)
            if not problems:
                self.settled_after = self._loop.now - healed
                return
        raise Broken(
            kind_of(problems), f"not at rest {SETTLING_SECONDS:g} s after the faults healed: " + "; ".join(problems)
        )
