"""What crash tests demand in the end, seen from outside: all agree, no fsynced record is lost, the guest lives."""

from __future__ import annotations

import re
import subprocess
import threading
import time
from pathlib import Path

from cumulet.image.tiny_init import RECORD_AREA_OFFSET, RECORD_BYTES, RECORD_COUNT

from .crash_cloud import CrashCloud, until
from .serial_watch import SerialWatch

SETTLED_SECONDS = 120.0
_PONG = re.compile(r"pong \d+ \S+")


def settle(cloud: CrashCloud, server_id: str) -> None:
    """Until nobody is at work and all agree; in bounded time."""
    deadline = time.monotonic() + SETTLED_SECONDS
    while problems := cloud.problems(server_id):
        assert time.monotonic() < deadline, (problems, cloud.last_words())
        threading.Event().wait(0.2)


class Records:
    """The records in a guest's disk file, read from outside, also while it writes."""

    def __init__(self, cloud: CrashCloud, scratch: Path, host: str, server_id: str) -> None:
        disk = cloud.folder(host, server_id) / "vm" / "disk.qcow2"
        area = scratch / "area.raw"
        area.unlink(missing_ok=True)
        command = ["qemu-img", "dd", "-U", "-f", "qcow2", "-O", "raw", f"bs={RECORD_BYTES}"]
        skip = RECORD_AREA_OFFSET // RECORD_BYTES
        # `count` is counted from the start of the input.
        command += [f"skip={skip}", f"count={skip + RECORD_COUNT}", f"if={disk}", f"of={area}"]
        subprocess.run(command, check=True, capture_output=True)
        self._content = area.read_bytes()
        assert len(self._content) == RECORD_BYTES * RECORD_COUNT

    def at_place_of(self, number: int) -> tuple[int, str]:
        """The number and the server of the record that is where `number` belongs; (0, "") where there is none."""
        place = number % RECORD_COUNT * RECORD_BYTES
        words = self._content[place : place + RECORD_BYTES].split()
        return (int(words[1]), words[2].decode()) if len(words) == 3 else (0, "")


def judge_disk(cloud: CrashCloud, scratch: Path, server_id: str, watch: SerialWatch) -> None:
    """Every record the guest said it had fsynced is in its disk file."""
    said = watch.newest_written()
    assert said
    records = Records(cloud, scratch, cloud.host(server_id), server_id)
    found = {number: records.at_place_of(number) for number in said}
    lost = {number: seen for number, seen in found.items() if seen[0] < number or seen[1] != server_id}
    assert lost == {}


def judge_alive(cloud: CrashCloud, server_id: str, *, seconds: float = 30.0) -> None:
    """New ticks reach the API's console; within `seconds`, which is less than a boot may take."""

    def newest() -> str:
        return next((line for line in reversed(cloud.console(server_id).splitlines()) if line.startswith("tick")), "")

    before = newest()
    until("new ticks", seconds, lambda: newest() != before)


def judge_reached(cloud: CrashCloud, server_id: str, *, seconds: float = 60.0) -> None:
    """The guest's pings of its router are answered, on whatever hosts either is; where it has a network."""
    if cloud.network is None:
        return

    def pongs() -> int:
        return max(
            (int(line.split()[1]) for line in cloud.console(server_id).splitlines() if _PONG.fullmatch(line)), default=0
        )

    before = pongs()
    until("answers to its pings", seconds, lambda: pongs() > before, pause=0.25)
