"""A fleet is struck while a guest moves between its machines; judged from outside, as the crash runs of one machine.

`make crash-fleet RUNS=n SEED=n RESULTS=file`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from tests.fleet.crash import FleetCloud, Result, Run, fleet_to_strike, strike
from tests.fleet.machines import reason_not
from tests.qemu.crash_cloud import until
from tests.qemu.crash_judgement import judge_alive, judge_disk
from tests.qemu.crash_results import AS_MUST_BE, _commit
from tests.qemu.serial_watch import SerialWatch

RUNS = int(os.environ.get("CUMULET_CRASH_RUNS", "2"))
FIRST_SEED = int(os.environ.get("CUMULET_CRASH_SEED", "1"))
RESULTS = os.environ.get("CUMULET_CRASH_RESULTS")
WHY = reason_not()
pytestmark = [
    pytest.mark.qemu,
    pytest.mark.postgres,
    pytest.mark.skipif(WHY is not None, reason=f"no fleet can be run here: {WHY}"),
]


@pytest.fixture(scope="module")
def cloud() -> Iterator[FleetCloud]:
    folder = Path(tempfile.mkdtemp(prefix="cumulet-crash-", dir="/tmp"))  # PostgreSQL's own user has to reach it.
    try:
        with fleet_to_strike(folder) as fleet:
            yield FleetCloud(fleet)
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def servers(cloud: FleetCloud) -> list[str]:
    return cloud.create(2)


LEFT_BADLY: list[int] = []
"""Seeds of runs that failed: the next ones would be told about them."""


@pytest.mark.parametrize(
    "run", [Run.of(seed) for seed in range(FIRST_SEED, FIRST_SEED + RUNS)], ids=lambda run: run.seed
)
def test_whatever_befalls_a_fleet_one_copy_runs_and_nothing_is_left_over(
    cloud: FleetCloud, servers: list[str], tmp_path: Path, run: Run
) -> None:
    if LEFT_BADLY:
        pytest.fail(f"not tried: the run of seed {LEFT_BADLY[0]} has left the fleet as it failed")
    try:
        with noted(Result(**msgspec.structs.asdict(run))) as result:
            tell(cloud, servers, tmp_path, run, result)
    except BaseException:
        LEFT_BADLY.append(run.seed)
        raise


@contextlib.contextmanager
def noted(result: Result) -> Iterator[Result]:
    """How the block ends is its verdict; its line is printed, and added to `RESULTS`."""
    result.at, result.commit = datetime.now(UTC).isoformat(timespec="seconds"), _commit()
    try:
        yield result
        result.verdict = AS_MUST_BE
    except BaseException as problem:
        result.verdict = " ".join(f"{type(problem).__name__}: {problem}".split())[:500]
        raise
    finally:
        print(f"\n{msgspec.json.encode(result).decode()}", flush=True)
        if RESULTS:
            with open(RESULTS, "ab", buffering=0) as lines:
                lines.write(msgspec.json.encode(result) + b"\n")


def tell(cloud: FleetCloud, servers: list[str], scratch: Path, run: Run, result: Result) -> None:
    """Move, strike, let it settle, judge."""
    moved, stays = servers[run.seed % 2], servers[1 - run.seed % 2]
    source = cloud.host(moved)
    destination = next(host for host in cloud.hosts if host != source)
    before, bystander = cloud.guests(moved), cloud.guests(stays)
    assert (set(before), len(bystander)) == ({source}, 1), "both run when it begins"
    with SerialWatch(moved, {host: cloud.folder(host, moved) for host in cloud.hosts}) as watch:
        until("the guest is heard", 60.0, watch.newest_written)
        begun = time.monotonic()
        cloud.move(moved, destination)
        time.sleep(run.after_s)
        moves = cloud.admin.get(f"/compute/v2.1/os-migrations?instance_uuid={moved}")["migrations"]
        result.struck_at = str(max(moves, key=lambda one: int(one["id"]))["status"]) if moves else "not begun"
        strike(cloud.fleet, run, source=source, destination=destination)
        cloud.settle(moved)
        result.settled_s = round(time.monotonic() - begun, 1)
        result.move = cloud.moved(moved)
        [process] = cloud.guests(moved).values()
        until("the guest is heard where it is", 90.0, lambda: watch.heard_from(process))
        until("and writes", 60.0, watch.newest_written)
        for server in (moved, stays):
            alive(cloud, server, watch)
    assert watch.double() == []
    assert not any(voice.booted for voice in watch.voices), "nothing has killed its memory"
    judge_disk(cloud, scratch, moved, watch)
    assert cloud.guests(stays) == bystander, "the other server has not noticed"
    listening = {name: cloud.fleet.machines[name].listeners() for name in cloud.hosts}
    assert not any(listening.values()), f"nothing listens for a move any more: {listening}"


def alive(cloud: FleetCloud, server: str, watch: SerialWatch) -> None:
    """`judge_alive`; where it is not so, with what its own console and the records say."""
    try:
        judge_alive(cloud, server, seconds=60.0)
    except AssertionError as problem:
        answer = cloud.admin.act(server, {"os-getConsoleOutput": {"length": 5}})
        raise AssertionError(
            f"{problem}; its console, heard beside the API: {watch.heard()}; the API's: {answer.status} "
            f"{answer.text[-300:]}; {cloud.show(server)['status']} on {cloud.host(server)}, processes "
            f"{cloud.guests(server)}; {cloud.last_words()[-3000:]}"
        ) from problem
