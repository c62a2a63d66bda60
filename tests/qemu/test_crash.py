"""Real guests, killed for real: while one moves, something is killed, stopped or cut off; judged from outside only.

Afterwards the guest is on exactly one host, record, processes, disks, shares and bindings agree, nothing is left over,
no second copy ever ran or was heard, and no record the guest had fsynced is lost. Each run is decided by its seed
(`crash_run`); `make crash RUNS=n SEED=n RESULTS=file`.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from cumulet.drivers.qemu.facts import QemuFacts
from cumulet.host.driver import Image

from . import crash_results, userfaultfd
from .crash_cloud import HOSTS, CrashCloud, Sight, kill, until
from .crash_judgement import SETTLED_SECONDS, judge_alive, judge_disk, judge_reached, settle
from .crash_load import flood
from .crash_results import AS_MUST_BE, Result
from .crash_run import STEPS, Moment, Run, Victim
from .crash_stage import Stage
from .serial_watch import SerialWatch

RUNS = int(os.environ.get("CUMULET_CRASH_RUNS", "4"))
FIRST_SEED = int(os.environ.get("CUMULET_CRASH_SEED", "116"))
"""From here on four in a row flood, kill and stop, two of them in the switchover and two right after the commit."""
POST_COPY = os.environ.get("CUMULET_CRASH_POST_COPY") == "1"
"""Whether the moves are forced to complete, in post-copy."""
DECIDED = [Run.of(seed, post_copy=POST_COPY) for seed in range(FIRST_SEED, FIRST_SEED + RUNS)]
RESULTS = os.environ.get("CUMULET_CRASH_RESULTS")
"""A file to which each run adds a line."""
LOOK_SECONDS = 0.001
MOVE_SECONDS = 180.0
"""Longer than a move may take in these clouds."""


@pytest.fixture(scope="module")
def stages(facts: QemuFacts, image: Image) -> Iterator[list[Stage]]:
    made: list[Stage] = []
    yield made
    try:
        if made and made[-1].left_well:
            made[-1].end()
    finally:
        for stage in made:
            stage.destroy()


@pytest.fixture
def stage(stages: list[Stage], tmp_path: Path) -> Stage:
    """The cloud that the run before has left, if it left it well."""
    if not stages or not stages[-1].left_well:
        if stages:
            stages.pop().destroy()
        stages.append(Stage(tmp_path))
    stages[-1].left_well = False
    return stages[-1]


@pytest.fixture(scope="module")
def results() -> Iterator[list[Result]]:
    found: list[Result] = []
    yield found
    print("", *crash_results.tables(found), sep="\n", flush=True)


@pytest.fixture(scope="module", autouse=POST_COPY)
def post_copy_allowed() -> Iterator[None]:
    with userfaultfd.allowed():
        yield


@pytest.mark.parametrize("run", DECIDED, ids=lambda run: run.seed)
def test_whatever_befalls_a_move_one_copy_runs_and_nothing_is_left_over(
    stage: Stage, results: list[Result], run: Run
) -> None:
    if (run.victim.cuts or run.victim is Victim.DISK_FULL) and stage.networks is None:
        stage.left_well = True
        pytest.skip("only root can make the namespaces whose network is cut, and the disk that is full")
    print(f"\n{run}", flush=True)
    result, begun = Result.of(run), time.monotonic()
    try:
        tell(stage, run, result)
        result.verdict = AS_MUST_BE
        stage.left_well = True
    except BaseException as problem:
        result.verdict = " ".join(f"{type(problem).__name__}: {problem}".split())[:500]
        raise
    finally:
        result.took_s = round(time.monotonic() - begun, 1)
        results.append(result)
        print(result, flush=True)
        if RESULTS:
            crash_results.append(Path(RESULTS), result)


def tell(stage: Stage, run: Run, result: Result) -> None:
    """Move, strike, let it settle, judge."""
    cloud = stage.cloud
    moved, stays = stage.pair()
    source = cloud.host(moved)
    destination = next(host for host in HOSTS if host != source)
    bystander = cloud.guests(stays)
    folders = {host: cloud.folder(host, moved) for host in HOSTS}
    agents = {host: cloud.agent(host) for host in HOSTS}
    with SerialWatch(moved, folders) as watch, stage.heard(moved) as frames:
        until("the guest is heard", 30.0, watch.newest_written)
        scene = Scene(
            stage=stage,
            run=run,
            watch=watch,
            source=source,
            destination=destination,
            moved=moved,
            stays=stays,
            agents=agents,
        )
        begun = time.monotonic()
        operation = cloud.move(moved, destination)
        await_moment(scene, operation)
        result.struck_at = step_of(cloud.sight(operation), stands_still=watch.stands_still[source].is_set())
        result.struck = strike(scene, operation)
        if run.victim.kills_the_control_plane:
            cloud.start_again()
        settle(cloud, moved)
        result.settled_s = round(time.monotonic() - begun, 1)
        for process in cloud.guests(moved).values():
            until("the guest is heard where it is", 60.0, partial(watch.heard_from, process))
        last = cloud.sight(operation)
        result.post_copy = cloud.was_post_copy(operation)
        result.operation, result.status = last.status, cloud.show(moved)["status"]
        print(watch.heard(), flush=True)
        result.memory_lost = judge_state(scene, last, post_copy=result.post_copy)
    assert watch.double() == []
    if frames is not None:
        result.frames = frames.turns()
        assert result.frames, "the guest has said something on its network"
        assert frames.double() == []
    judge_disk(cloud, stage.base, moved, watch)
    if run.victim is not Victim.EVERYTHING:
        assert cloud.guests(stays) == bystander, "the other server has not noticed"
    if result.status == "ACTIVE":
        judge_alive(cloud, moved)
        judge_reached(cloud, moved)
    if run.victim is Victim.EVERYTHING:
        stage.give_up(moved, stays)
    elif result.memory_lost:
        stage.give_up(moved)


def test_ctrl_c_in_the_middle_of_a_move_ends_both_processes_of_the_guest(
    facts: QemuFacts, image: Image, tmp_path: Path
) -> None:
    cloud = CrashCloud(tmp_path)
    try:
        cloud.start()
        server_id = cloud.create(1)[0]
        source = cloud.host(server_id)
        operation = cloud.move(server_id, next(host for host in HOSTS if host != source))
        copying = STEPS.index("copy_memory")
        until("memory is copied", 60.0, lambda: cloud.sight(operation).position >= copying, pause=LOOK_SECONDS)
        cloud.terminate()
        assert cloud.guests(server_id) == {}
        cloud.start()
        settle(cloud, server_id)
        assert cloud.show(server_id)["status"] == "ACTIVE", "what ran runs again, and once"
        cloud.stop()
    finally:
        cloud.destroy()


# -- striking


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Who is who in one run. `agents` are those before the blow."""

    stage: Stage
    run: Run
    watch: SerialWatch
    source: str
    destination: str
    moved: str
    stays: str
    agents: dict[str, int]

    @property
    def cloud(self) -> CrashCloud:
        return self.stage.cloud

    def qemu(self, host: str) -> list[int]:
        """The moved guest's process on a host: none where there is none (yet, or any more)."""
        return [pid for where, pid in self.cloud.guests(self.moved).items() if where == host]


def await_moment(scene: Scene, operation: str) -> None:
    """Until the move is where the run wants it, and the delay after; or until it has ended."""
    cloud, run = scene.cloud, scene.run
    if run.post_copy:
        await_sight(cloud, operation, lambda sight: sight.unwinding or sight.position >= STEPS.index("copy_memory"))
        cloud.force(scene.moved)
    match run.moment:
        case Moment.ACCEPTED:
            pass
        case Moment.SWITCHOVER:
            await_sight(cloud, operation, lambda sight: scene.watch.stands_still[scene.source].is_set())
        case Moment.CANCEL_COPY | Moment.DESTROY_DESTINATION:
            await_sight(cloud, operation, lambda sight: sight.position >= STEPS.index("copy_memory"))
            threading.Event().wait(run.abort_after)
            cloud.abort(scene.moved)
            wanted = STEPS.index(run.moment.step)
            await_sight(cloud, operation, lambda sight: sight.unwinding and sight.position <= wanted)
        case _:
            wanted = STEPS.index(run.moment.step)
            await_sight(cloud, operation, lambda sight: sight.unwinding or sight.position >= wanted)
    threading.Event().wait(run.delay)


def await_sight(cloud: CrashCloud, operation: str, wanted: Callable[[Sight], bool]) -> None:
    deadline = time.monotonic() + MOVE_SECONDS
    while not (sight := cloud.sight(operation)).ended and not wanted(sight):
        assert time.monotonic() < deadline, sight
        time.sleep(LOOK_SECONDS)


def step_of(sight: Sight, *, stands_still: bool) -> str:
    if sight.ended:
        return f"after its end ({sight.status})"
    step = STEPS[sight.position]
    if sight.unwinding:
        return f"undo {step}"
    return Moment.SWITCHOVER if stands_still and step == "copy_memory" else step


def strike(scene: Scene, operation: str) -> int:
    """How many processes were struck: none where the victim is not there yet, or no more."""
    cloud, run, agents = scene.cloud, scene.run, scene.agents
    source, destination = scene.source, scene.destination
    match run.victim:
        case Victim.CONTROL_PLANE:
            return kill_all([cloud.pid])
        case Victim.SOURCE_AGENT:
            return kill_all([agents[source]])
        case Victim.DESTINATION_AGENT:
            return kill_all([agents[destination]])
        case Victim.SOURCE_AGENT_TWICE:
            return kill_twice(scene, source)
        case Victim.DESTINATION_AGENT_TWICE:
            return kill_twice(scene, destination)
        case Victim.SOURCE_QEMU:
            return kill_all(scene.qemu(source))
        case Victim.DESTINATION_QEMU:
            return kill_all(scene.qemu(destination))
        case Victim.KEEPERS:
            return kill_all([cloud.pid, *agents.values()])
        case Victim.EVERYTHING:
            guests = [pid for one in (scene.moved, scene.stays) for pid in cloud.guests(one).values()]
            return kill_all([cloud.pid, *agents.values(), *guests])
        case Victim.CONTROL_PLANE_STOPPED:
            return stop_for(run, [cloud.pid])
        case Victim.SOURCE_QEMU_STOPPED:
            return stop_for(run, scene.qemu(source))
        case Victim.DESTINATION_QEMU_STOPPED:
            return stop_for(run, scene.qemu(destination))
        case Victim.SOURCE_AGENT_STOPPED:
            return stop_for(run, [agents[source]])
        case Victim.DESTINATION_AGENT_STOPPED:
            return stop_for(run, [agents[destination]])
        case Victim.CUT | Victim.CUT_UNTIL_THE_END | Victim.LINKS_DOWN:
            return cut(scene, operation)
        case Victim.DISK_FULL:
            assert scene.stage.disk is not None
            with scene.stage.disk.full():
                threading.Event().wait(run.lasts)
            return 1
        case Victim.FLOOD:
            return flood(cloud.admin, run.lasts)


def kill_all(pids: list[int]) -> int:
    for pid in pids:
        kill(pid, signal.SIGKILL)
    return len(pids)


def kill_twice(scene: Scene, host: str) -> int:
    """The agent, and the one that is started in its place."""
    first = scene.agents[host]
    kill(first, signal.SIGKILL)
    second = scene.cloud.agent(host, other_than=first)
    threading.Event().wait(scene.run.pause)
    return 1 + kill_all([second])


def stop_for(run: Run, pids: list[int]) -> int:
    for pid in pids:
        kill(pid, signal.SIGSTOP)
    if pids:
        threading.Event().wait(run.lasts)
    for pid in pids:
        kill(pid, signal.SIGCONT)
    return len(pids)


def cut(scene: Scene, operation: str) -> int:
    """The network between the hosts, both ways; their agents are reached all the time."""
    networks = scene.stage.networks
    assert networks is not None
    match scene.run.victim:
        case Victim.LINKS_DOWN:
            networks.links_down()
            threading.Event().wait(scene.run.lasts)
            networks.links_up()
        case Victim.CUT:
            networks.cut()
            threading.Event().wait(scene.run.lasts)
            networks.heal()
        case _:
            networks.cut()
            until("the move ends", SETTLED_SECONDS, lambda: scene.cloud.sight(operation).ended)
            networks.heal()
    return len(HOSTS)


# -- judging


def judge_state(scene: Scene, last: Sight, *, post_copy: bool) -> bool:
    """Its status and its host are those that this blow may lead to; True where the guest's memory was lost.

    In post-copy both QEMUs have some of it: there a kill of either costs the guest its memory, but not its disk.
    """
    run = scene.run
    server = scene.cloud.show(scene.moved)
    status, host = server["status"], server["OS-EXT-SRV-ATTR:host"]
    assert last.ended, last
    assert host == (scene.destination if last.status == "done" else scene.source)
    assert scene.cloud.moved(scene.moved) in (("completed",) if last.status == "done" else ("error", "cancelled"))
    assert status == "ACTIVE" or (status == "SHUTOFF" and run.victim.kills_a_guest)
    booted = [voice for voice in scene.watch.voices if voice.booted]
    assert run.victim.kills_a_guest or not booted, (
        "nothing but a kill of its own process costs a guest its memory",
        [(voice.host, voice.process, list(voice.other)) for voice in booted],
        scene.cloud.last_words(),
    )
    if run.victim is Victim.SOURCE_QEMU and host == scene.destination:
        assert status == "ACTIVE"
        assert post_copy or not booted
    if run.victim is Victim.DESTINATION_QEMU and host == scene.source:
        assert status == "ACTIVE"
        assert not booted
    return bool(booted) or status == "SHUTOFF"
