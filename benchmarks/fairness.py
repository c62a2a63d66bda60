"""What others notice while one caller floods the cloud with the most expensive requests of each kind.

It is compared with a quiet machine, and with an equal flood of another cloud on the same machine. The latter uses as
much of the few cores, so the rest of the difference is our cloud's own. `python -m benchmarks.fairness [FLOOD ...]`
measures these floods alone.
"""

from __future__ import annotations

import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from multiprocessing.synchronize import Event
from pathlib import Path

from benchmarks.cloud import MeasuredCloud, running
from benchmarks.connection import Connection, UnexpectedAnswer
from benchmarks.report import Measure, Result

CONNECTIONS = 3
"""Connections of the caller who floods; each asks again as soon as it is answered."""
ROUNDS = 400
"""Requests of the other caller; the result is their 99th percentile."""
FLOOD_SERVERS = 300
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ1ZL0tXcWfSJ8sQ5VRhEvM1YVXn6Fm7E9a2R1m3m3cB somebody"
COMPUTE = "/compute/v2.1"

GET = Measure(
    name="flood_get_p99", title="others' GET, p99 under the worst flood, as a multiple of quiet", unit="x", goal=3.0
)
POST = Measure(
    name="flood_post_p99", title="others' POST, p99 under the worst flood, as a multiple of quiet", unit="x", goal=3.0
)
OWN_GET = Measure(
    name="flood_get_p99_own",
    title="others' GET, p99 under the worst flood, as a multiple of that under one of another cloud",
    unit="x",
    goal=3.0,
)
OWN_POST = Measure(
    name="flood_post_p99_own",
    title="others' POST, p99 under the worst flood, as a multiple of that under one of another cloud",
    unit="x",
    goal=3.0,
)


def measure(folder: Path, only: Collection[str] = ()) -> Iterator[Result]:
    """The worst of all floods, or of those named; what each does is printed on the way."""
    with running(folder / "floods", hosts=2) as cloud, running(folder / "elsewhere", hosts=2) as elsewhere:
        other = user_of(cloud, "other")
        server = _server(cloud, other, 1)
        flooders = [user_of(one, "flooder") for one in (cloud, elsewhere)]
        for one, flooder in zip((cloud, elsewhere), flooders, strict=True):
            _server(one, flooder, FLOOD_SERVERS)
        quiet = _asked(other, server)
        worst = [1.0] * 4
        for here, there in zip(*map(floods, flooders), strict=True):
            if only and here[0] not in only:
                continue
            with flooding(flooders[1], there[1]):
                loaded = _asked(other, server)
            with flooding(flooders[0], here[1]):
                times = _asked(other, server)
            ratios = [time / before for time, before in zip(times * 2, quiet + loaded, strict=True)]
            print(
                f"  flood of {here[0]}: GET {times[0]:.1f} ms, {ratios[0]:.1f}x quiet, {ratios[2]:.1f}x a flood "
                f"elsewhere; POST {times[1]:.1f} ms, {ratios[1]:.1f}x, {ratios[3]:.1f}x"
            )
            worst = [max(before, now) for before, now in zip(worst, ratios, strict=True)]
    for measure, value in zip((GET, POST, OWN_GET, OWN_POST), worst, strict=True):
        yield Result(measure, value)


def floods(flooder: Connection) -> Iterator[tuple[str, list[bytes]]]:
    """(what it is, requests to make in turn)."""

    def one(method: str, path: str, body: object | None = None, version: str = "2.91") -> list[bytes]:
        request = flooder.prepared(method, path, body)
        return [request.replace(b"compute 2.96", f"compute {version}".encode())]

    server = flooder.ask("GET", f"{COMPUTE}/servers?limit=1")["servers"][0]["id"]
    flooder.exchange(one("POST", f"{COMPUTE}/os-keypairs", {"keypair": {"name": "there"}})[0])
    yield "keys whose name is taken", one("POST", f"{COMPUTE}/os-keypairs", {"keypair": {"name": "there"}})
    made = one("POST", f"{COMPUTE}/os-keypairs", {"keypair": {"name": "again"}})
    yield "keys made and deleted", made + one("DELETE", f"{COMPUTE}/os-keypairs/again")
    yield "the longest list", one("GET", f"{COMPUTE}/servers/detail?limit=1000")
    yield "actions", one("GET", f"{COMPUTE}/servers/{server}/os-instance-actions", version="2.1")
    ports = [{"network_id": "00000000-0000-4000-8000-000000000000"}] * 16
    yield "bulk creation that fails", one("POST", "/network/v2.0/ports", {"ports": ports})
    yield "changes", one("PUT", f"{COMPUTE}/servers/{server}/metadata", {"metadata": {f"{n}": "v" for n in range(100)}})
    bad = flooder.prepared("GET", f"{COMPUTE}/servers").replace(b"X-Auth-Token: gAAAA", b"X-Auth-Token: gAAAB")
    yield "tokens that are none", [bad]
    body = {"keypair": {"name": "x" * 100_000}}
    yield "large bodies that are refused", one("POST", f"{COMPUTE}/os-keypairs", body)
    yield "bodies of many values", one("POST", "/network/v2.0/ports", {"ports": [0] * 4000})


def _asked(other: Connection, server: str) -> tuple[float, float]:
    """p99 of GET and of POST, in ms, from another project."""
    get = other.prepared("GET", f"{COMPUTE}/servers/{server}")
    post = other.prepared("POST", f"{COMPUTE}/servers/{server}/metadata", {"metadata": {"a": "b"}})
    return _p99(other, get), _p99(other, post)


def _p99(client: Connection, request: bytes) -> float:
    times = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        status, _, content = client.exchange(request)
        times.append((time.perf_counter() - begun) * 1000)
        if status != 200:
            raise UnexpectedAnswer(f"{status} {content[:200]!r}")
        time.sleep(0.002)
    return statistics.quantiles(times, n=100)[98]


@contextmanager
def flooding(flooder: Connection, requests: list[bytes]) -> Iterator[None]:
    """The flood comes from processes of its own, which share only the cores with the measuring one."""
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    processes = [
        context.Process(target=_flood, args=(flooder.url, flooder.authority, requests, stop), daemon=True)
        for _ in range(CONNECTIONS)
    ]
    for process in processes:
        process.start()
    time.sleep(1.0)
    try:
        yield
    finally:
        stop.set()
        for process in processes:
            process.join(10)
            process.kill()


def _flood(url: str, authority: str, requests: list[bytes], stop: Event) -> None:
    client = Connection(url, authority)
    while not stop.is_set():
        for request in requests:
            client.exchange(request)


def user_of(cloud: MeasuredCloud, name: str) -> Connection:
    """A member of a project of the same name, logged in."""
    admin = cloud.admin
    named = {"name": name, "domain_id": "default"}
    project = admin.ask("POST", "/identity/v3/projects", {"project": named})["project"]["id"]
    user = admin.ask("POST", "/identity/v3/users", {"user": {**named, "password": f"of {name}"}})["user"]["id"]
    role = admin.ask("GET", "/identity/v3/roles?name=member")["roles"][0]["id"]
    admin.ask("PUT", f"/identity/v3/projects/{project}/users/{user}/roles/{role}")
    quota = {"instances": -1, "cores": -1, "ram": -1}
    admin.ask("PUT", f"{COMPUTE}/os-quota-sets/{project}", {"quota_set": quota})
    found = Connection(admin.url, admin.authority)
    found.log_in(name, f"of {name}", name)
    return found


def _server(cloud: MeasuredCloud, owner: Connection, count: int) -> str:
    """Make so many servers; the id of one."""
    flavors = {one["name"]: one["id"] for one in owner.ask("GET", f"{COMPUTE}/flavors")["flavors"]}
    image = owner.ask("GET", "/image/v2/images?name=cumulet-tiny")["images"][0]["id"]
    left = count
    while left:
        number = min(left, 100)
        wanted = {"name": "one", "flavorRef": flavors["m1.nano"], "imageRef": image, "networks": "none"}
        body = {"server": {**wanted, "min_count": number, "max_count": number}}
        owner.ask("POST", f"{COMPUTE}/servers", body)
        left -= number
    _until(lambda: not owner.ask("GET", f"{COMPUTE}/servers?status=BUILD&limit=1")["servers"])
    return str(owner.ask("GET", f"{COMPUTE}/servers?limit=1")["servers"][0]["id"])


def _until(good: Callable[[], bool]) -> None:
    while not good():
        time.sleep(0.05)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="cumulet-bench-") as where:
        for result in measure(Path(where), sys.argv[1:]):
            print(f"{result.measure.title}: {result.value:.3g} {result.measure.unit}")
