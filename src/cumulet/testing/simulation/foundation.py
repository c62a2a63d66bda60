"""The beginning of every run, made once in a process: services, policy, routes, a database with first content."""

from __future__ import annotations

import asyncio
import atexit
import copy
import functools
import os
import tempfile
from collections.abc import MutableMapping
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import sqlalchemy as sa

from cumulet.compute import drift
from cumulet.compute.store import flavors
from cumulet.db import schema
from cumulet.db.engine import Tx
from cumulet.fleet.hosts import Hosts
from cumulet.image import store as image_store
from cumulet.processes.ground import Ground
from cumulet.processes.parts import PARTS, load_services
from cumulet.processes.serving import cloud_of
from cumulet.settings import Settings
from cumulet.testing.simulation.database import SimulatedDatabase
from cumulet.testing.simulation.virtual_time import EPOCH_US, VirtualClock, VirtualLoop
from cumulet.web.app import App
from cumulet.web.context import Cloud
from cumulet.web.operation import Caller
from cumulet.web.policy import Policy

FLAVORS: tuple[tuple[str, int, int, int, int, dict[str, str]], ...] = (
    ("tiny", 1, 256, 1, 20, {}),
    ("busy", 1, 1024, 1, 5000, {}),
    ("large", 2, 2048, 2, 100, {}),
    ("fast", 1, 256, 1, 20, {"trait:CUSTOM_FAST": "required"}),
    ("dedicated", 1, 256, 1, 20, {"hw:cpu_policy": "dedicated"}),
)
"""(id, vcpus, memory MiB, disk GiB, dirty rate MiB/s, extra specs)"""
FURTHER_DISKS: dict[str, tuple[int, int]] = {"large": (1, 512)}
"""By flavor: GiB of its ephemeral disk, MiB of swap."""
FAST_HOST = "host1"
"""The host with the trait."""
IMAGE_ID = "00000000-0000-4000-8000-000000000001"

Answered = tuple[int, Any]
"""A request's status, and its JSON."""
PROJECTS = ("red", "blue")
GROUPS: tuple[tuple[str, dict[str, int]], ...] = (
    ("anti-affinity", {}),
    ("anti-affinity", {"max_server_per_host": 2}),
    ("affinity", {}),
    ("soft-anti-affinity", {}),
    ("soft-affinity", {}),
)
"""Policy and rules of the server groups that each project has in every run."""
_ROLES = frozenset({"member", "reader", "manager"})
CALLERS = {
    "admin": Caller(
        user_id="admin", user_name="admin", user_domain_id="default", roles=_ROLES | {"admin"}, project_id="operators"
    ),
    **{
        project: Caller(user_id=project, user_name=project, user_domain_id="default", roles=_ROLES, project_id=project)
        for project in PROJECTS
    },
}


@dataclass(frozen=True, slots=True)
class Foundation:
    """`first_state`: the database's content to go back to. `networks`, `subnets`: ids, by project; `outside`: of the
    external network. `groups`: ids of each project's server groups, in the order of `GROUPS`."""

    db: SimulatedDatabase
    first_state: bytes
    networks: dict[str, str]
    subnets: dict[str, str]
    outside: str
    groups: dict[str, list[str]]
    policy: Policy
    app: App

    def app_of(self, cloud: Cloud) -> App:
        """The checked routes, for requests to this cloud."""
        app = copy.copy(self.app)
        app.cloud = cloud
        app.registry = msgspec.structs.replace(app.registry, cloud=cloud)
        return app


@functools.cache
def foundation() -> Foundation:
    """The first call must not be inside a running event loop."""
    services = load_services()
    policy = Policy.load()
    db = SimulatedDatabase()
    schema.prepare(db)
    _watch_claims(db)
    _watch_losses(db)
    _watch_operations(db)
    _watch_floating_ips(db)
    _watch_trunks(db)
    db.at_once.watch(db.driver)
    rows = [
        {
            "flavor_id": name, "name": name, "vcpus": vcpus, "memory_mib": memory, "disk_gib": disk,
            "ephemeral_gib": FURTHER_DISKS.get(name, (0, 0))[0], "swap_mib": FURTHER_DISKS.get(name, (0, 0))[1],
            "rxtx_factor": 1.0, "is_public": True, "disabled": False,
            "extra_specs": {"cumulet:dirty_rate_mib_s": str(rate), **specs}, "created_at_us": EPOCH_US,
        }
        for name, vcpus, memory, disk, rate, specs in FLAVORS
    ]  # fmt: skip
    db.write(lambda tx: tx.execute(sa.insert(flavors), rows))
    db.write(lambda tx: image_store.add(tx, _image()))
    loop = VirtualLoop()
    settings = Settings(state_dir=state_dir(), database_url="sqlite://")
    ground = Ground(settings=settings, db=db, clock=VirtualClock(loop, Random(0)), hosts=Hosts())  # noqa: S311
    app = App(cloud_of(PARTS, ground, identity=Identity(), policy=policy, wake=_Nobody()), services)
    asyncio.set_event_loop(loop)
    made = {project: loop.run_until_complete(_network(app, project, "10.0.0.0/16")) for project in PROJECTS}
    outside, _ = loop.run_until_complete(_network(app, "admin", "203.0.113.0/24", external=True))
    groups = {p: [loop.run_until_complete(_group(app, p, *group)) for group in GROUPS] for p in PROJECTS}
    asyncio.set_event_loop(None)
    loop.close()
    return Foundation(
        db=db,
        first_state=db.driver.serialize(),
        networks={project: network_id for project, (network_id, _) in made.items()},
        subnets={project: subnet_id for project, (_, subnet_id) in made.items()},
        outside=outside,
        groups=groups,
        policy=policy,
        app=app,
    )


def _watch_claims(db: SimulatedDatabase) -> None:
    """A trigger reports writes of claims, of inventories, and of a server's host, flavor or deletion."""

    def touched() -> None:
        db.claims_touched = True

    db.driver.create_function("claims_touched", 0, touched)
    for table in ("allocations", "inventories", "servers"):
        for event in ("INSERT", "UPDATE OF host, flavor, deleted_at_us" if table == "servers" else "UPDATE", "DELETE"):
            trigger = f"simulation_{event.split()[0]}_{table} AFTER {event} ON {table}"
            db.driver.execute(f"CREATE TRIGGER {trigger} BEGIN SELECT claims_touched(); END")


def _watch_losses(db: SimulatedDatabase) -> None:
    """A trigger reports each server whose record says that its host has lost the guest."""
    db.driver.create_function("guest_lost", 2, lambda server_id, host: db.lost.append((server_id, host)))
    db.driver.execute(
        "CREATE TRIGGER simulation_lost AFTER UPDATE OF fault_message ON servers "
        f"WHEN NEW.fault_message = '{drift.LOST}' BEGIN SELECT guest_lost(NEW.id, NEW.host); END"
    )


def _watch_operations(db: SimulatedDatabase) -> None:
    """Triggers report when a host goes down or comes up, and when an operation goes back, or on after its end."""

    def marked() -> None:
        db.host_marked = True

    db.driver.create_function("host_marked", 0, marked)
    db.driver.execute(
        "CREATE TRIGGER simulation_up AFTER UPDATE OF up ON hosts WHEN NEW.up != OLD.up BEGIN SELECT host_marked(); END"
    )
    db.driver.create_function("done_again", 3, lambda *what: db.done_again.append(" ".join(map(str, what))))
    db.driver.execute(
        "CREATE TRIGGER simulation_once AFTER UPDATE OF status, position ON operations "
        "WHEN OLD.ended_at_us IS NOT NULL OR (OLD.status = 'unwinding' AND NEW.status IN ('forward', 'done')) "
        "OR (OLD.status = 'forward' AND NEW.status = 'forward' AND NEW.position < OLD.position) "
        "BEGIN SELECT done_again(NEW.saga, OLD.status || ' at ' || OLD.position, NEW.status || ' at ' || NEW.position);"
        " END"
    )


def _watch_floating_ips(db: SimulatedDatabase) -> None:
    """Triggers report writes to tables that floating IPs depend on."""

    def touched() -> None:
        db.floating_touched = True

    db.driver.create_function("floating_touched", 0, touched)
    for table in ("floating_ips", "port_forwardings", "routers", "port_addresses"):
        for event in ("INSERT", "UPDATE", "DELETE"):
            trigger = f"simulation_{event}_{table} AFTER {event} ON {table}"
            db.driver.execute(f"CREATE TRIGGER {trigger} BEGIN SELECT floating_touched(); END")


def _watch_trunks(db: SimulatedDatabase) -> None:
    """Triggers report writes to trunks, and to what their invariants say of ports."""

    def touched() -> None:
        db.trunks_touched = True

    db.driver.create_function("trunks_touched", 0, touched)
    events = [("ports", "UPDATE OF status, server_id"), ("trunk_subports", "UPDATE"), ("trunk_subports", "INSERT")]
    for table, event in (*events, ("trunks", "INSERT")):
        trigger = f"simulation_trunks_{event.split()[0]}_{table} AFTER {event} ON {table}"
        db.driver.execute(f"CREATE TRIGGER {trigger} BEGIN SELECT trunks_touched(); END")


async def _network(app: App, caller: str, cidr: str, *, external: bool = False) -> tuple[str, str]:
    """A network with a subnet, so that servers have ports whose bindings move with them; the ids of both."""
    wanted = {"name": caller} | ({"router:external": True} if external else {})
    _, made = await request(app, caller, "POST", "/network/v2.0/networks", {"network": wanted})
    network_id: str = made["network"]["id"]
    subnet = {"network_id": network_id, "cidr": cidr, "ip_version": 4}
    status, made = await request(app, caller, "POST", "/network/v2.0/subnets", {"subnet": subnet})
    assert status == 201
    subnet_id: str = made["subnet"]["id"]
    return network_id, subnet_id


async def _group(app: App, project: str, policy: str, rules: dict[str, int]) -> str:
    body = {"server_group": {"name": policy, "policy": policy, "rules": rules}}
    status, answer = await request(app, project, "POST", "/compute/v2.1/os-server-groups", body)
    assert status == 200
    group_id: str = answer["server_group"]["id"]
    return group_id


def state_dir() -> Path:
    """A folder of this process, which goes with the process that asked first: one that this one is forked from."""
    folder = _folder() / str(os.getpid())
    folder.mkdir(exist_ok=True)
    return folder


@functools.cache
def _folder() -> Path:
    folder = tempfile.TemporaryDirectory(prefix="cumulet-simulation-")
    atexit.register(folder.cleanup)
    return Path(folder.name)


class Identity:
    """The identity service of a simulation: a token is a name in `CALLERS`."""

    async def authenticate(self, token: str, *, service: str, method: str, path: str) -> Caller | None:
        return CALLERS.get(token)


class _Nobody:
    """A `Wake` for the time before there is a conductor: nothing may wake one."""

    def operation(self, tx: Tx, operation_id: str) -> None:
        raise AssertionError(f"operation {operation_id} before there is a conductor")


def _image() -> image_store.Image:
    return image_store.Image(
        id=IMAGE_ID, name="image", owner=None, status="active", visibility="public", disk_format="raw",
        container_format="bare", min_disk=0, min_ram=0, protected=False, os_hidden=False, size=1, virtual_size=1,
        checksum="0" * 32, os_hash_value="0" * 128, created_at_us=EPOCH_US, updated_at_us=EPOCH_US,
    )  # fmt: skip


async def request(
    app: App, caller: str, method: str, path: str, body: object = None, *, version: str = "2.96"
) -> Answered:
    """One request through the real dispatcher; returns status and JSON. A `body` of bytes is sent as it is."""
    raw = isinstance(body, bytes)
    content = body if isinstance(body, bytes) else msgspec.json.encode(body) if body is not None else b""
    path, _, query = path.partition("?")
    headers = [(b"x-auth-token", caller.encode()), (b"openstack-api-version", b"compute " + version.encode())]
    if content:
        kind = b"application/octet-stream" if raw else b"application/json"
        headers += [(b"content-type", kind), (b"content-length", str(len(content)).encode())]
    scope = {
        "type": "http", "http_version": "1.1", "method": method, "scheme": "https", "path": path,
        "raw_path": path.encode(), "query_string": query.encode(), "headers": [(b"host", b"127.0.0.1"), *headers],
        "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 443),
    }  # fmt: skip
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": content, "more_body": False}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    await app(scope, receive, send)
    answer = b"".join(message.get("body", b"") for message in sent[1:])
    return sent[0]["status"], msgspec.json.decode(answer) if answer else None
