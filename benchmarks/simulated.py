"""The control plane alone, on simulated hosts: what a cloud costs besides its guests."""

from __future__ import annotations

import itertools
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks import floods, uploads
from benchmarks.cloud import MeasuredCloud, running
from benchmarks.connection import Connection, UnexpectedAnswer
from benchmarks.report import Measure, Result
from cumulet.compute.scheduler import HostView, Need, pick

HOSTS = 10
"""A host takes 256 vCPUs; a thousand servers need four, and moves some room besides."""
SERVERS = "/compute/v2.1/servers"
WAIT_SECONDS = 120.0
IDLE_SECONDS = 20.0

START = Measure(
    name="start_to_first_answer", title="process start to first authenticated answer", unit="s", goal=1.0, baseline=2.7
)
RESTART = Measure(name="restart_to_first_answer", title="the same, on state that exists", unit="s", goal=1.0)
GET = Measure(name="get_server_p50", title="GET /servers/{id}, one client, p50", unit="ms", goal=2.0, baseline=19)
RATE = Measure(
    name="get_server_rate_8_clients",
    title="GET /servers/{id}, 8 clients",
    unit="1/s",
    goal=1500,
    baseline=51,
    better="higher",
)
DETAIL = Measure(name="detail_of_1000", title="GET /servers/detail of 1,000", unit="ms", goal=60)
BOOT = Measure(name="post_to_active", title="one server, POST to ACTIVE", unit="ms", goal=20, baseline=400)
HUNDRED = Measure(
    name="100_servers_one_request", title="100 servers from one request, all ACTIVE", unit="s", goal=2.0, baseline=41
)
MOVE = Measure(name="live_migration", title="os-migrateLive to completed", unit="ms", goal=50, baseline=560)
MOVES = Measure(
    name="100_live_migrations_8_clients", title="100 live migrations by 8 clients", unit="s", goal=5.0, baseline=94
)
BOOT_OF_MANY = Measure(
    name="boot_among_1000_hosts", title="one server to ACTIVE among 1,000 hosts, as a multiple of 2", unit="x", goal=1.3
)
MOVE_OF_MANY = Measure(
    name="move_among_1000_hosts", title="live migration among 1,000 hosts, as a multiple of 2", unit="x", goal=1.3
)
IDLE = Measure(name="idle_cpu_1000_hosts", title="CPU of a cloud of 1,000 idle simulated hosts", unit="%", goal=5.0)
PICK = Measure(name="pick_of_1000_hosts", title="picking a host among 1,000", unit="ms", goal=2.0, baseline=1090)
MEMORY = Measure(
    name="resident_with_1000_servers", title="resident memory with 1,000 servers", unit="MB", goal=150, baseline=270
)


def measure(folder: Path) -> Iterator[Result]:
    """All of it, in one cloud that fills up to a thousand servers."""
    yield from _starts(folder)
    with running(folder / "cloud", hosts=HOSTS) as cloud:
        bench = Bench(cloud)
        yield bench.boot()
        yield bench.move()
        yield bench.hundred()
        yield bench.moves()
        bench.fill(1000)
        yield bench.get()
        yield bench.rate()
        yield bench.detail()
        yield Result(MEMORY, cloud.resident_mb())
    with running(folder / "flooded", hosts=2) as cloud:
        yield from uploads.measure(cloud.admin, folder)
        yield from floods.measure(cloud.admin, *cloud.user)
    yield _pick()
    yield from _many_hosts(folder)


def _starts(folder: Path) -> Iterator[Result]:
    """Each three times, the best: the first start of all reads the programs from disk, and this machine is shared."""
    first, again = [], []
    for number in range(3):
        state = folder / f"start-{number}"
        with running(state, hosts=2) as cloud:
            first.append(cloud.first_answer_seconds)
        with running(state, hosts=2) as cloud:
            again.append(cloud.first_answer_seconds)
    yield Result(START, min(first))
    yield Result(RESTART, min(again))


def _many_hosts(folder: Path) -> Iterator[Result]:
    """The same boots and moves among 2 hosts and among 1,000; and what those cost while nobody asks anything."""
    boots, moves = [], []
    for hosts in (2, 1000):
        with running(folder / f"hosts-{hosts}", hosts=hosts) as cloud:
            bench = Bench(cloud)
            boots.append(bench.boot().value)
            moves.append(bench.move().value)
            if hosts == 1000:
                before, begun = cloud.cpu_seconds(), time.perf_counter()
                time.sleep(IDLE_SECONDS)
                idle = (cloud.cpu_seconds() - before) / (time.perf_counter() - begun)
    yield Result(BOOT_OF_MANY, boots[1] / boots[0])
    yield Result(MOVE_OF_MANY, moves[1] / moves[0])
    yield Result(IDLE, idle * 100)


def _pick() -> Result:
    """The scheduler's own work: filter and weigh a thousand hosts, half of them unfit."""
    hosts = [
        HostView(
            name=f"host{n}",
            zone="nova",
            up=True,
            disabled=n % 4 == 0,
            free_vcpus=64.0,
            free_memory_mib=float(65_536 - n % 97) if n % 2 else 64.0,
            free_disk_gib=1000.0,
            driver="simulated",
            cpu_models=frozenset({"simulated"}),
            machine_types=frozenset({"simulated-1.0"}),
        )
        for n in range(1000)
    ]
    need = Need(vcpus=1, memory_mib=128, disk_gib=1)
    return Result(PICK, statistics.median(_milliseconds(lambda: pick(hosts, need)) for _ in range(50)))


def _milliseconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return (time.perf_counter() - begun) * 1000


class Bench:
    """The measurements that need a running cloud."""

    def __init__(self, cloud: MeasuredCloud) -> None:
        self.admin = cloud.admin
        project = self.admin.ask("GET", "/identity/v3/auth/projects")["projects"][0]["id"]
        self.quotas = f"/compute/v2.1/os-quota-sets/{project}"
        self.admin.ask("PUT", self.quotas, {"quota_set": {"instances": -1, "cores": -1, "ram": -1}})
        flavors = {one["name"]: one["id"] for one in self.admin.ask("GET", "/compute/v2.1/flavors")["flavors"]}
        image = self.admin.ask("GET", "/image/v2/images?name=cumulet-tiny")["images"][0]["id"]
        self.template = {"flavorRef": flavors["m1.nano"], "imageRef": image, "networks": "none"}
        self.names = (f"bench-{n}" for n in itertools.count())

    def create(self, count: int) -> list[str]:
        """`count` servers from one request, without waiting; their ids."""
        server = {**self.template, "name": next(self.names), "min_count": count, "max_count": count}
        reservation = self.admin.ask("POST", SERVERS, {"server": {**server, "return_reservation_id": True}})
        listed = self.admin.ask("GET", f"{SERVERS}?reservation_id={reservation['reservation_id']}")["servers"]
        return [one["id"] for one in listed]

    def boot(self) -> Result:
        """POST one server, then look until it is ACTIVE."""
        return Result(BOOT, statistics.median(self.boot_once() for _ in range(30)))

    def boot_once(self) -> float:
        """Milliseconds."""
        body = {"server": {**self.template, "name": next(self.names)}}
        begun = time.perf_counter()
        created = self.admin.ask("POST", SERVERS, body)["server"]["id"]
        _until(self.admin, f"{SERVERS}/{created}", lambda answer: answer["server"]["status"] == "ACTIVE")
        return (time.perf_counter() - begun) * 1000

    def hundred(self) -> Result:
        """One request, a hundred servers, until the last is ACTIVE."""
        times = []
        for _ in range(3):
            begun = time.perf_counter()
            ids = set(self.create(100))
            _until(self.admin, f"{SERVERS}/detail?status=BUILD&limit=1", lambda answer: not answer["servers"])
            times.append(time.perf_counter() - begun)
            if len(ids) != 100:
                raise UnexpectedAnswer(f"{len(ids)} servers from one request for 100")
        return Result(HUNDRED, statistics.median(times))

    def move(self) -> Result:
        """os-migrateLive to a host of the scheduler's choice, then look until the record says completed."""
        server = self.create(1)[0]
        _until(self.admin, f"{SERVERS}/{server}", lambda answer: answer["server"]["status"] == "ACTIVE")
        return Result(MOVE, statistics.median(_move(self.admin, server) for _ in range(20)))

    def moves(self) -> Result:
        """A hundred servers, eight clients, each moving its share one after the other."""
        servers = self.create(100)
        _until(self.admin, f"{SERVERS}/detail?status=BUILD&limit=1", lambda answer: not answer["servers"])
        shares = [servers[n::8] for n in range(8)]
        clients = [self.admin.again() for _ in shares]

        def work(client: Connection, share: list[str]) -> None:
            for server in share:
                _move(client, server)

        begun = time.perf_counter()
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(work, clients, shares))
        return Result(MOVES, time.perf_counter() - begun)

    def fill(self, total: int) -> None:
        """Make it `total` servers, all ACTIVE."""
        present = self.admin.ask("GET", f"{self.quotas}/detail")["quota_set"]["instances"]["in_use"]
        while present < total:
            present += len(self.create(min(100, total - present)))
        building = f"{SERVERS}?status=BUILD&limit=1"
        _until(self.admin, building, lambda answer: not answer["servers"], pause_seconds=0.1)

    def get(self) -> Result:
        server = self.admin.ask("GET", f"{SERVERS}?limit=1")["servers"][0]["id"]
        request = self.admin.prepared("GET", f"{SERVERS}/{server}")
        times = [_milliseconds(lambda: self.admin.exchange(request)) for _ in range(1000)]
        return Result(GET, statistics.median(times))

    def rate(self) -> Result:
        """Eight connections, each asking again as soon as it is answered, for five seconds."""
        listed = self.admin.ask("GET", f"{SERVERS}?limit=8")["servers"]
        clients = [self.admin.again() for _ in listed]
        stop = threading.Event()

        def work(client: Connection, server: str) -> int:
            request = client.prepared("GET", f"{SERVERS}/{server}")
            count = 0
            while not stop.is_set():
                status, _, _ = client.exchange(request)
                if status != 200:
                    raise UnexpectedAnswer(f"GET under load: {status}")
                count += 1
            return count

        with ThreadPoolExecutor(8) as pool:
            begun = time.perf_counter()
            counts = [pool.submit(work, client, one["id"]) for client, one in zip(clients, listed, strict=True)]
            stop.wait(5.0)
            stop.set()
            answered = sum(count.result() for count in counts)
        return Result(RATE, answered / (time.perf_counter() - begun))

    def detail(self) -> Result:
        request = self.admin.prepared("GET", f"{SERVERS}/detail?limit=1000")
        times = [_milliseconds(lambda: self.admin.exchange(request)) for _ in range(20)]
        return Result(DETAIL, statistics.median(times))


def _move(client: Connection, server: str) -> float:
    """Live-migrate once; milliseconds until the migration record says completed."""
    begun = time.perf_counter()
    client.ask("POST", f"{SERVERS}/{server}/action", {"os-migrateLive": {"host": None, "block_migration": "auto"}})
    path = f"/compute/v2.1/os-migrations?instance_uuid={server}&limit=1"

    def ended(answer: Any) -> bool:
        status = answer["migrations"][0]["status"]
        if status in ("error", "failed", "cancelled"):
            raise UnexpectedAnswer(f"the migration of {server} ended as {status}")
        return bool(status == "completed")

    _until(client, path, ended)
    return (time.perf_counter() - begun) * 1000


def _until(client: Connection, path: str, good: Callable[[Any], bool], *, pause_seconds: float = 0.001) -> None:
    """Ask again and again until the answer is good, with pauses: the server needs the core more than we do."""
    deadline = time.perf_counter() + WAIT_SECONDS
    while not good(client.ask("GET", path)):
        if time.perf_counter() > deadline:
            raise UnexpectedAnswer(f"GET {path}: not good within {WAIT_SECONDS:.0f} s")
        time.sleep(pause_seconds)
