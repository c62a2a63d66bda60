"""A machine of a fleet is cut off from everything: its guests end there before they may start elsewhere.

`make crash-fleet RUNS=n SEED=n RESULTS=file` runs it as often as the blows of `test_crash.py`.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import msgspec
import pytest

from tests.fleet.crash import FENCE_SECONDS, FENCING, LONG_SECONDS, Blow, FleetCloud, Result, Run, fleet_to_strike
from tests.fleet.machines import reason_not, unplugged
from tests.fleet.test_crash import FIRST_SEED, alive, noted
from tests.qemu.crash_cloud import BOOT_SECONDS, until
from tests.qemu.crash_judgement import Records
from tests.qemu.serial_watch import SerialWatch

RUNS = int(os.environ.get("CUMULET_CRASH_RUNS", "1"))
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
        with fleet_to_strike(folder, FENCING) as fleet:
            yield FleetCloud(fleet)
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def servers(cloud: FleetCloud) -> list[str]:
    return cloud.create(2)


@pytest.mark.parametrize("seed", range(FIRST_SEED, FIRST_SEED + RUNS))
def test_what_a_machine_ran_that_is_cut_off_starts_elsewhere_and_never_runs_twice(
    cloud: FleetCloud, servers: list[str], tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    run = Run(seed, Blow.FENCED, 0.0, round(chance.uniform(*LONG_SECONDS), 2))
    with noted(Result(**msgspec.structs.asdict(run))) as result:
        tell(cloud, servers, tmp_path, run, result)


def tell(cloud: FleetCloud, servers: list[str], scratch: Path, run: Run, result: Result) -> None:
    """Cut the machine of one server off; evacuate all that it ran; give it back; judge."""
    source = cloud.host(servers[run.seed % 2])
    destination = next(host for host in cloud.hosts if host != source)
    lost = [server for server in servers if cloud.host(server) == source]
    stays = {server: cloud.guests(server) for server in servers if server not in lost}
    with ExitStack() as watching:
        watches = {
            server: watching.enter_context(SerialWatch(server, {one: cloud.folder(one, server) for one in cloud.hosts}))
            for server in lost
        }
        for server, watch in watches.items():
            until(f"{server} is heard", 60.0, watch.newest_written)
        until("the host would end its guests", 60.0, partial(cloud.lease_held, source))
        begun = time.monotonic()
        with unplugged(cloud.fleet.machines[source]):
            refused = cloud.evacuate(lost[0])
            assert (refused.status, "still in use" in refused.message) == (400, True), refused.text
            until("the host is down", 60.0, lambda: cloud.service(source)["state"] == "down")
            assert time.monotonic() - begun >= FENCE_SECONDS
            result.struck_at = "down"
            assert not [server for server in lost if cloud.guests(server)], "nobody told them"
            cloud.force_down(source, down=True)
            for server, watch in watches.items():
                said = watch.newest_written()
                assert cloud.evacuate(server).status == 200
                until("it runs elsewhere", 120.0, partial(runs_on, cloud, server, destination))
                kept = Records(cloud, scratch, source, server)
                found = {number: kept.at_place_of(number) for number in said}
                gone = {number: seen for number, seen in found.items() if seen[0] < number or seen[1] != server}
                assert gone == {}, "what it had fsynced is on the disk of the machine that is away"
                [process] = cloud.guests(server).values()
                until("it boots", BOOT_SECONDS, partial(watch.heard_from, process))
            time.sleep(run.lasts_s)  # It comes back to guests that run elsewhere for long.
        cloud.start_agent(source)
        cloud.force_down(source, down=False)
        for server in lost:
            cloud.settle(server)
            result.move = cloud.moved(server)
        result.settled_s = round(time.monotonic() - begun, 1)
        for server, watch in watches.items():
            assert watch.double() == []
            alive(cloud, server, watch)
    assert not [server for server in lost if cloud.folder(source, server).exists()], "what was left there is removed"
    assert {server: cloud.guests(server) for server in stays} == stays, "the others have not noticed"


def runs_on(cloud: FleetCloud, server: str, host: str) -> bool:
    shown = cloud.show(server)
    return (shown["OS-EXT-SRV-ATTR:host"], shown["status"], set(cloud.guests(server))) == (host, "ACTIVE", {host})
