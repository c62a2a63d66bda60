"""Real guests whose keepers are killed in the middle of an image, a rebuild, a rescue, shelving or a suspend.

The blow: `kill -9` of the control plane and both agents at once, when the operation is at a step; with
CUMULET_LIFE_CRASH=all at every step. In the end every part of the cloud tells the same of the server, which runs again;
nothing is left on its host; and every record that it said it had fsynced before the blow is on its disk, but for a
rebuild, which is to lose them.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cumulet.drivers.qemu import guest_files
from cumulet.drivers.qemu.facts import QemuFacts
from cumulet.host.driver import Image
from cumulet.processes.parts import SAGAS

from .crash_cloud import HOSTS, CrashCloud, kill, until
from .crash_judgement import Records, judge_alive, settle
from .serial_watch import SerialWatch

pytestmark = pytest.mark.qemu

ACTIONS: dict[str, dict[str, object]] = {
    "snapshot": {"createImage": {"name": "image"}},
    "rebuild": {"rebuild": {"imageRef": ""}},
    "rescue": {"rescue": None},
    "shelve": {"shelve": None},
    "power": {"suspend": None},
}
BACK: dict[str, dict[str, object]] = {
    "RESCUE": {"unrescue": None},
    "SHELVED_OFFLOADED": {"unshelve": None},
    "SHUTOFF": {"os-start": None},
    "SUSPENDED": {"resume": None},
}
"""What has a server run again that has ended in this status."""
EVERY = os.environ.get("CUMULET_LIFE_CRASH") == "all"
PLACES = [
    (name, position)
    for name in ACTIONS
    for position in (range(len(SAGAS[name].plan)) if EVERY else [len(SAGAS[name].steps) - 1])
]
LOOK_SECONDS = 0.002
OPERATION_SECONDS = 120.0


@pytest.fixture(scope="module")
def cloud(facts: QemuFacts, image: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CrashCloud]:
    del facts, image
    made = CrashCloud(tmp_path_factory.mktemp("life"), "--leave-guests", "--set", "host_silent_seconds=4")
    try:
        made.start()
        yield made
        made.stop()
    finally:
        made.destroy()


@pytest.fixture(scope="module")
def server(cloud: CrashCloud) -> str:
    """One that lives through all of it."""
    return cloud.create(1)[0]


def struck(cloud: CrashCloud, server: str, position: int) -> int:
    """Kill them once the newest operation of the server is at `position`, or as soon as it is past it; where it was."""
    database = sqlite3.connect(f"file:{cloud.state / 'cumulet.db'}?mode=ro", uri=True)
    statement = "SELECT status, position FROM operations WHERE subject = ? ORDER BY created_at_us DESC"
    agents = [cloud.agent(host) for host in HOSTS]
    deadline = time.monotonic() + OPERATION_SECONDS
    while True:
        status, at = database.execute(statement, (server,)).fetchone()
        if at >= position or status in ("done", "unwound"):
            break
        assert time.monotonic() < deadline, (status, at)
        time.sleep(LOOK_SECONDS)
    for pid in (cloud.pid, *agents):
        kill(pid, signal.SIGKILL)
    database.close()
    return int(at)


def at_rest(cloud: CrashCloud, server: str) -> str:
    """The status once nobody is at work on it."""
    operations = "/compute/v2.1/cumulet/operations"
    until("nobody is at work", OPERATION_SECONDS, lambda: not cloud.admin.get(operations)["operations"])
    until("it has no task", 30.0, lambda: cloud.show(server)["OS-EXT-STS:task_state"] is None)
    return str(cloud.show(server)["status"])


def running_again(cloud: CrashCloud, server: str, action: dict[str, object]) -> None:
    for _ in range(3):
        status = at_rest(cloud, server)
        if status == "ACTIVE":
            return
        back = BACK.get(status, action)  # One whose rebuild failed is rebuilt.
        answer = cloud.admin.act(server, back)
        assert answer.status == 202, (status, answer)
    raise AssertionError(f"{server} does not run again: {status}")


def left_over(cloud: CrashCloud, server: str) -> list[str]:
    """Of copies, rescue disks and images that wait for what never comes."""
    folders = [cloud.folder(host, server) / "vm" for host in HOSTS]
    files = [
        str(folder / name)
        for folder in folders
        for name in (guest_files.SNAPSHOT, guest_files.RESCUE, guest_files.RAW)
        if (folder / name).exists()
    ]
    images = cloud.admin.get("/image/v2/images")["images"]
    return files + [f"image {one['name']} is {one['status']}" for one in images if one["status"] != "active"]


@pytest.mark.parametrize(("name", "position"), PLACES, ids=str)
def test_whatever_dies_the_server_runs_again_and_has_what_it_fsynced(
    cloud: CrashCloud, server: str, tmp_path: Path, name: str, position: int
) -> None:
    action = ACTIONS[name]
    if name == "rebuild":
        action = {"rebuild": {"imageRef": cloud.show(server)["image"]["id"]}}
    with SerialWatch(server, {host: cloud.folder(host, server) for host in HOSTS}) as watch:
        until("the guest writes", 60.0, lambda: len(watch.newest_written()) >= 100)
        answer = cloud.admin.act(server, action)
        assert answer.status in (200, 202), answer
        at = struck(cloud, server, position)
        said = watch.newest_written()
    begun = time.monotonic()
    cloud.start_again()
    running_again(cloud, server, action)
    settle(cloud, server)
    step = SAGAS[name].plan[min(at, len(SAGAS[name].plan) - 1)].name
    print(f"\n{name}: struck at {step}, settled after {time.monotonic() - begun:.1f} s", flush=True)
    records = Records(cloud, tmp_path, cloud.host(server), server)
    judge_alive(cloud, server, seconds=120.0)
    assert left_over(cloud, server) == []
    if name != "rebuild":
        lost = {number: seen for number in said if (seen := records.at_place_of(number))[0] < number}
        assert lost == {}
    for image in cloud.admin.get("/image/v2/images?name=image")["images"]:
        cloud.admin.must("DELETE", f"/image/v2/images/{image['id']}")
