"""Real guests, killed for real: while one moves, something is killed or stopped; judged from outside only.

Afterwards the guest is on exactly one host, record, processes, disks, shares and bindings agree, nothing is left over,
no second copy ever ran, and no record the guest had fsynced is lost. `make crash RUNS=n`; each run is decided by its
seed (``CUMULET_CRASH_SEED`` is the first).
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from random import Random

import pytest

from cumulet.compute.live_migration import LIVE_MIGRATION
from cumulet.host.driver import Image
from cumulet.host.qemu.facts import QemuFacts
from cumulet.image.tiny import RECORD_AREA_OFFSET, RECORD_BYTES, RECORD_COUNT

from .crash_cloud import HOSTS, CrashCloud, Sight, kill, until
from .serial_watch import SerialWatch

RUNS = int(os.environ.get("CUMULET_CRASH_RUNS", "4"))
FIRST_SEED = int(os.environ.get("CUMULET_CRASH_SEED", "0"))
SETTLED_SECONDS = 120.0
LOOK_SECONDS = 0.001
STOPPED_SECONDS = (2.0, 12.0)
"""How long a process is stopped: up to longer than a host may be silent."""
HANGS_SECONDS = 40.0
"""Longer than a copy may be without progress."""


class Victim(StrEnum):
    CONTROL_PLANE = "control plane killed"
    SOURCE_QEMU = "source QEMU killed"
    DESTINATION_QEMU = "destination QEMU killed"
    SOURCE_AGENT = "source agent killed"
    DESTINATION_AGENT = "destination agent killed"
    EVERYTHING = "everything killed"
    DESTINATION_QEMU_STOPPED = "destination QEMU stopped"
    SOURCE_AGENT_STOPPED = "source agent stopped"
    DESTINATION_AGENT_STOPPED = "destination agent stopped"


STEPS = [item.name for item in LIVE_MIGRATION.plan]
MOMENTS: dict[str, float] = {"start_destination": 1.0, "copy_memory": 3.0, "resume_guest": 0.05, "discard_source": 0.05}
"""Each step on a host, and up to how many seconds after its begin; the others are over with the one before them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """All that a seed decides."""

    seed: int
    victim: Victim
    step: str
    delay: float
    stopped: float

    @classmethod
    def of(cls, seed: int) -> Run:
        random = Random(seed)
        victims, steps = list(Victim), list(MOMENTS)
        # Side by side through both lists, their lengths having no common divisor: each pair comes in its turn.
        step = steps[(seed + 1) % len(steps)]
        victim = victims[seed % len(victims)]
        delay = random.uniform(0.0, MOMENTS[step])
        stopped = random.uniform(*STOPPED_SECONDS)
        if victim is Victim.DESTINATION_QEMU_STOPPED and seed // (len(victims) * len(steps)) % 2:
            stopped = HANGS_SECONDS
        return cls(seed=seed, victim=victim, step=step, delay=delay, stopped=stopped)

    def __str__(self) -> str:
        return f"seed {self.seed}: {self.victim} {self.delay:.3f} s into {self.step}"


class Stage:
    """The cloud, and the two servers of the runs."""

    def __init__(self, base: Path) -> None:
        self.cloud = CrashCloud(base)
        self.base = base
        self.servers: list[str] = []
        self.left_well = True
        self.cloud.start()

    def pair(self) -> tuple[str, str]:
        """Two servers of one request that have lived through everything so far; the first one is to be moved."""
        if not self.servers:
            self.servers = self.cloud.create(2)
        self.servers.reverse()
        return self.servers[0], self.servers[1]

    def replace_servers(self) -> None:
        for server_id in self.servers:
            self.cloud.delete(server_id)
        self.servers = []


@pytest.fixture(scope="module")
def stages(facts: QemuFacts, image: Image) -> Iterator[list[Stage]]:
    made: list[Stage] = []
    yield made
    try:
        if made and made[-1].left_well:
            made[-1].cloud.stop()
    finally:
        for stage in made:
            stage.cloud.destroy()


@pytest.fixture
def stage(stages: list[Stage], tmp_path: Path) -> Stage:
    """The cloud that the run before has left, if it left it well."""
    if not stages or not stages[-1].left_well:
        if stages:
            stages[-1].cloud.destroy()
        stages.append(Stage(tmp_path))
    stages[-1].left_well = False
    return stages[-1]


@pytest.mark.parametrize("seed", range(FIRST_SEED, FIRST_SEED + RUNS))
def test_whatever_is_killed_one_copy_runs_and_nothing_is_left_over(stage: Stage, seed: int) -> None:
    run = Run.of(seed)
    print(f"\n{run}", flush=True)
    cloud = stage.cloud
    moved, stays = stage.pair()
    source = cloud.host(moved)
    destination = next(host for host in HOSTS if host != source)
    bystander = cloud.guests(stays)
    folders = {host: cloud.folder(host, moved) for host in HOSTS}
    with SerialWatch(moved, folders) as watch:
        until("the guest is heard", 30.0, watch.newest_written)
        begun = time.monotonic()
        operation = cloud.move(moved, destination)
        struck = strike_when(cloud, operation, run, lambda: strike(cloud, run, moved, source, destination))
        if cloud.process is not None and cloud.process.poll() is not None:
            cloud.start()
        settle(cloud, moved)
        settled = time.monotonic() - begun
        for process in cloud.guests(moved).values():
            until("the guest is heard where it is", 60.0, partial(watch.heard_from, process))
        last = cloud.sight(operation)
        memory_lost = judge_state(cloud, run, watch, moved, source, destination, last)
    verdict = f"{run.victim} at {struck}: {last.status}, {cloud.show(moved)['status']} on {cloud.host(moved)}"
    print(
        f"{verdict}{', its memory lost' if memory_lost else ''}, settled {settled:.1f} s; {watch.heard()}", flush=True
    )
    assert watch.double() == []
    judge_disk(cloud, stage.base, moved, watch)
    if run.victim is not Victim.EVERYTHING:
        assert cloud.guests(stays) == bystander, "the other server has not noticed"
    if cloud.show(moved)["status"] == "ACTIVE":
        judge_alive(cloud, moved)
    if memory_lost or run.victim is Victim.EVERYTHING:
        stage.replace_servers()
    stage.left_well = True


def test_ctrl_c_in_the_middle_of_a_move_ends_both_processes_of_the_guest(
    facts: QemuFacts, image: Image, tmp_path: Path
) -> None:
    cloud = CrashCloud(tmp_path)
    try:
        cloud.start("--hosts", "2")
        server_id = cloud.create(1)[0]
        source = cloud.host(server_id)
        operation = cloud.move(server_id, next(host for host in HOSTS if host != source))
        copying = STEPS.index("copy_memory")
        until("memory is copied", 60.0, lambda: cloud.sight(operation).position >= copying, pause=LOOK_SECONDS)
        cloud.terminate()
        assert cloud.guests(server_id) == {}
        cloud.start()
        settle(cloud, server_id)
        assert cloud.show(server_id)["status"] == "SHUTOFF"
        cloud.stop()
    finally:
        cloud.destroy()


# -- striking


def strike_when(cloud: CrashCloud, operation: str, run: Run, blow: Callable[[], int]) -> str:
    """Wait for the moment, looking at the operation's row; the step it was at when it was struck."""
    wanted = STEPS.index(run.step)
    deadline = time.monotonic() + 60.0
    sight = cloud.sight(operation)
    while not sight.ended and sight.position < wanted:
        assert time.monotonic() < deadline, sight
        time.sleep(LOOK_SECONDS)
        sight = cloud.sight(operation)
    threading.Event().wait(run.delay)
    before = cloud.sight(operation)
    struck = blow()
    return f"{step_of(before)}{'' if struck else ' (nothing was there)'}"


def step_of(sight: Sight) -> str:
    if sight.ended:
        return f"after its end ({sight.status})"
    return f"{'undo ' if sight.status == 'unwinding' else ''}{STEPS[sight.position]}"


def strike(cloud: CrashCloud, run: Run, server_id: str, source: str, destination: str) -> int:
    """How many processes were struck: none where the victim is not there yet, or no more."""
    guests = cloud.guests(server_id)
    match run.victim:
        case Victim.CONTROL_PLANE:
            cloud.kill()
            return 1
        case Victim.SOURCE_AGENT:
            return kill_all([cloud.agent(source)])
        case Victim.DESTINATION_AGENT:
            return kill_all([cloud.agent(destination)])
        case Victim.SOURCE_QEMU:
            return kill_all([pid for host, pid in guests.items() if host == source])
        case Victim.DESTINATION_QEMU:
            return kill_all([pid for host, pid in guests.items() if host == destination])
        case Victim.EVERYTHING:
            of_all = [pid for one in cloud.servers() for pid in cloud.guests(one).values()]
            agents = [cloud.agent(host) for host in HOSTS]
            cloud.kill()
            return 1 + kill_all([*agents, *of_all])
        case Victim.DESTINATION_QEMU_STOPPED:
            return stop_for(run, [pid for host, pid in guests.items() if host == destination])
        case Victim.SOURCE_AGENT_STOPPED:
            return stop_for(run, [cloud.agent(source)])
        case Victim.DESTINATION_AGENT_STOPPED:
            return stop_for(run, [cloud.agent(destination)])


def kill_all(pids: list[int]) -> int:
    for pid in pids:
        kill(pid, signal.SIGKILL)
    return len(pids)


def stop_for(run: Run, pids: list[int]) -> int:
    for pid in pids:
        kill(pid, signal.SIGSTOP)
    if pids:
        threading.Event().wait(run.stopped)
    for pid in pids:
        kill(pid, signal.SIGCONT)
    return len(pids)


# -- judging


def settle(cloud: CrashCloud, server_id: str) -> None:
    """Until nobody is at work and all agree; in bounded time."""
    deadline = time.monotonic() + SETTLED_SECONDS
    while problems := cloud.problems(server_id):
        assert time.monotonic() < deadline, (problems, cloud.last_words())
        threading.Event().wait(0.2)


def judge_state(
    cloud: CrashCloud, run: Run, watch: SerialWatch, server_id: str, source: str, destination: str, last: Sight
) -> bool:
    """Its status and its host are those that this blow may lead to; True where the guest's memory was lost."""
    server = cloud.show(server_id)
    status, host = server["status"], server["OS-EXT-SRV-ATTR:host"]
    assert last.status in ("done", "unwound"), last
    assert host == (destination if last.status == "done" else source)
    guest_killed = run.victim in (Victim.SOURCE_QEMU, Victim.EVERYTHING, Victim.DESTINATION_QEMU)
    assert status == "ACTIVE" or (status == "SHUTOFF" and guest_killed)
    booted = any(voice.booted for voice in watch.voices)
    assert guest_killed or not booted, "nothing but a kill of its own process costs a guest its memory"
    if run.victim is Victim.SOURCE_QEMU and host == destination:
        assert status == "ACTIVE"
        assert not booted
    if run.victim is Victim.DESTINATION_QEMU and host == source:
        assert status == "ACTIVE"
        assert not booted
    return booted or status == "SHUTOFF"


def judge_disk(cloud: CrashCloud, base: Path, server_id: str, watch: SerialWatch) -> None:
    """Every record the guest said it had fsynced is in its disk file, read from outside."""
    disk = cloud.folder(cloud.host(server_id), server_id) / "vm" / "disk.qcow2"
    area = base / "area.raw"
    area.unlink(missing_ok=True)
    said = watch.newest_written()
    command = ["qemu-img", "dd", "-U", "-f", "qcow2", "-O", "raw", f"bs={RECORD_BYTES}"]
    skip = RECORD_AREA_OFFSET // RECORD_BYTES
    # `count` is counted from the start of the input.
    command += [f"skip={skip}", f"count={skip + RECORD_COUNT}", f"if={disk}", f"of={area}"]
    subprocess.run(command, check=True, capture_output=True)
    content = area.read_bytes()
    assert len(content) == RECORD_BYTES * RECORD_COUNT
    lost = []
    for number in said:
        place = number % RECORD_COUNT * RECORD_BYTES
        words = content[place : place + RECORD_BYTES].split()
        if len(words) != 3 or words[2].decode() != server_id or int(words[1]) < number:
            lost.append((number, words))
    assert said
    assert lost == []


def judge_alive(cloud: CrashCloud, server_id: str) -> None:
    """New ticks reach the API's console."""

    def newest() -> str:
        return next((line for line in reversed(cloud.console(server_id).splitlines()) if line.startswith("tick")), "")

    before = newest()
    until("new ticks", 30.0, lambda: newest() != before)
