"""`make scale`: what a cloud costs as it has more hosts: simulated ones, on a PostgreSQL server of its own.

Writes what it found to `docs/scale.json`, and the page and the curves that are made of it.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import msgspec

from benchmarks.cloud import MeasuredCloud, running
from benchmarks.connection import UnexpectedAnswer
from benchmarks.scale_page import FILE, Point, write_page
from benchmarks.simulated import SERVERS, Bench
from cumulet.testing.databases import postgresql_server

SERVERS_A_HOST, MOST_SERVERS = 10, 1000
"""The most servers that exist while pages are listed; to make one takes time."""
IDLE_SECONDS = 20.0
PAGE = 100
PAGES = 20
STEP = 500
"""Servers that are made, by requests of a hundred, before all of them have to be ACTIVE."""
BOOTS = 20
"""Of which the CPU is counted: on a machine that others use, it says more than the time."""
LONGEST_START_SECONDS = 600.0


def measured(folder: Path, hosts: int, database: str, most: int) -> Point:
    """A cloud of so many hosts: started, filled with at most so many servers, listed, left alone, started again."""
    state = folder / f"hosts-{hosts}"
    started = partial(running, state, hosts=hosts, database=database, start_seconds=LONGEST_START_SECONDS)
    with started() as cloud:
        start = cloud.first_answer_seconds
        bench = Bench(cloud)
        boot, move = bench.boot().value, bench.move().value
        before = cloud.cpu_seconds()
        for _ in range(BOOTS):
            bench.boot_once()
        boot_cpu = (cloud.cpu_seconds() - before) / BOOTS
        few = page_ms(cloud, last=False)
        begun = time.perf_counter()
        servers = min(hosts * SERVERS_A_HOST, most)
        for total in range(STEP, servers + STEP, STEP):
            bench.fill(min(total, servers))
            cloud.admin.log_in(*cloud.user)  # A token lives for an hour, and many servers take longer.
        filled = time.perf_counter() - begun
        first, last = page_ms(cloud, last=False), page_ms(cloud, last=True)
        time.sleep(IDLE_SECONDS / 4)  # Wait until all that has begun has ended.
        before, begun = cloud.cpu_seconds(), time.perf_counter()
        time.sleep(IDLE_SECONDS)
        idle = (cloud.cpu_seconds() - before) / (time.perf_counter() - begun)
        resident = cloud.resident_mb()
    with started() as cloud:
        begun = time.perf_counter()
        Bench(cloud).boot_once()
        restart = cloud.first_answer_seconds + time.perf_counter() - begun
        restart_cpu = cloud.cpu_seconds()
    return Point(
        hosts=hosts,
        servers=servers,
        start_s=round(start, 2),
        restart_s=round(restart, 2),
        restart_cpu_s=round(restart_cpu, 2),
        boot_ms=round(boot, 1),
        boot_cpu_ms=round(boot_cpu * 1000, 1),
        move_ms=round(move, 1),
        fill_s=round(filled, 1),
        page_of_few_ms=round(few, 2),
        first_page_ms=round(first, 2),
        last_page_ms=round(last, 2),
        idle_cpu_percent=round(idle * 100, 1),
        resident_mb=round(resident, 0),
    )


def page_ms(cloud: MeasuredCloud, *, last: bool) -> float:
    """A page of a hundred servers with details: the first page, or one from the other end."""
    path = f"{SERVERS}/detail?limit={PAGE}"
    if last:
        oldest = cloud.admin.ask("GET", f"{SERVERS}?sort_key=created_at&sort_dir=asc&limit={PAGE + 1}")["servers"]
        path += f"&marker={oldest[-1]['id']}"
    request = cloud.admin.prepared("GET", path)
    times = []
    for _ in range(PAGES):
        begun = time.perf_counter()
        cloud.admin.exchange(request)
        times.append((time.perf_counter() - begun) * 1000)
    return statistics.median(times)


def points(numbers: Sequence[int], most: int) -> Iterator[Point]:
    for hosts in numbers:
        with (
            tempfile.TemporaryDirectory(prefix="cumulet-scale-", dir="/tmp") as folder,
            postgresql_server("-c max_connections=200") as database,
        ):
            try:
                yield measured(Path(folder), hosts, database, most)
            except UnexpectedAnswer:
                log = (Path(folder) / f"hosts-{hosts}.log").read_text().splitlines()
                print(*[line for line in log if '"ERROR"' in line][-2:], sep="\n", file=sys.stderr)
                raise


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("hosts", nargs="*", type=int, default=[10, 100, 1000])
    parser.add_argument("--servers", type=int, default=MOST_SERVERS, help="the most servers that are made")
    chosen = parser.parse_args()
    known = msgspec.json.decode(FILE.read_bytes(), type=list[Point]) if FILE.exists() else []
    for found in points(chosen.hosts, chosen.servers):
        now, load = datetime.now(UTC).isoformat(timespec="seconds"), round(os.getloadavg()[0], 1)
        point = msgspec.structs.replace(found, at=now, load=load, cores=os.cpu_count() or 1)
        print(point, flush=True)
        known = sorted([one for one in known if one.hosts != point.hosts] + [point], key=lambda one: one.hosts)
        FILE.write_bytes(msgspec.json.format(msgspec.json.encode(known)) + b"\n")
        write_page(known)
    return 0


if __name__ == "__main__":
    sys.exit(main())
