"""A cloud for the tests of sagas: killed and started again on the folder it left, and asked what it says."""

from __future__ import annotations

import asyncio
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import sqlalchemy as sa

import cumulet.testing
from cumulet.compute.model import VmState
from cumulet.compute.store import hosts, migrations, servers
from cumulet.conductor.saga import request_force, running_operation
from cumulet.db.engine import Tx
from cumulet.network import bindings_for_compute as bindings
from cumulet.testing import JsonObject, TestCloud, agreement
from cumulet.testing.running import in_memory

from .faults import Fault, Place, Script

SETTLED_SECONDS = 30.0
POLL_SECONDS = 0.005


class Stage:
    """A cloud that is killed and started again on the same folder, as often as it takes."""

    def __init__(self, state: Path | None = None, **settings: Any) -> None:
        """`state`: default a folder in memory, if there is room, until `end`."""
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        if state is None:
            self._folder = tempfile.TemporaryDirectory(prefix="cumulet-", dir=in_memory())
            state = Path(self._folder.name) / "state"
        self._state = state
        self.settings = settings
        self._stack = ExitStack()
        self.left_well = True
        self.cloud: TestCloud
        self.start()

    def start(self) -> None:
        self.cloud = self._stack.enter_context(cumulet.testing.cloud(state=self._state, **self.settings))

    def stop(self) -> None:
        self._stack.close()

    def end(self) -> None:
        self.stop()
        if self._folder is not None:
            self._folder.cleanup()

    def plan(self, faults: dict[Place, Fault]) -> Script:
        """From now on operations meet these faults."""
        script = Script(kill=self.cloud.kill_conductor, planned=dict(faults))
        self.cloud.embedded.runner.sagas = script.sagas()
        return script

    def read(self, fn: Callable[[Tx], Any]) -> Any:
        return self.cloud.embedded.db.read(fn)

    def ports(self, server_id: str) -> list[JsonObject]:
        answer = self.cloud.persona("admin").compute("GET", f"/servers/{server_id}/os-interface")
        found: list[JsonObject] = answer["interfaceAttachments"]
        return found

    def images_of(self, server_id: str) -> list[str]:
        """The states of the images that were made of it."""
        found = self.cloud.persona("admin").request("GET", "/image/v2/images")["images"]
        return [image["status"] for image in found if image.get("instance_uuid") == server_id]

    def problems(self) -> list[str]:
        world = self.cloud.embedded.world
        assert world is not None
        guests = {host: self.cloud.guests(host) for host in self.cloud.hosts}
        linked = {host: asyncio.run(world.drivers[host].in_force()).linked for host in self.cloud.hosts}
        return [*self.read(lambda tx: list(agreement.disagreements(tx, guests, linked))), *self._left_on_hosts()]

    def _left_on_hosts(self) -> Iterator[str]:
        """What no record speaks of: devices in guests whose ports are gone, and disks that are still being copied."""
        world = self.cloud.embedded.world
        assert world is not None
        for host, driver in world.drivers.items():
            for server_id in driver._snapshots:
                yield f"{host} keeps a snapshot of {server_id[:8]}"
            for server_id, found in driver._guests.items():
                has = {nic.port_id for nic in found.guest.nics}
                ports = self._bound(server_id)
                if has != ports:
                    yield f"the guest of {server_id[:8]} on {host} has the ports {sorted(has)}, not {sorted(ports)}"

    def _bound(self, server_id: str) -> set[str]:
        """The ports of a server by their records."""
        return set(self.read(lambda tx: bindings.hosts_of(tx, server_id)))

    def strays(self) -> list[str]:
        """Guests on hosts that answer, and that their servers do not belong to. A reconciler will remove them."""
        rows = self.read(lambda tx: tx.all(sa.select(servers.c.id, servers.c.host)))
        belongs = {row.id: row.host for row in rows}
        down = sa.select(hosts.c.name).where(hosts.c.forced_down)
        silent = {row.name for row in self.read(lambda tx: tx.all(down))}
        return [
            f"guest {server_id[:8]} is on {host}"
            for host in set(self.cloud.hosts) - silent
            for server_id in self.cloud.guests(host)
            if belongs[server_id] != host
        ]

    def require_struck(self, script: Script) -> None:
        """Every fault has struck. Some are noted after their commit, by which the last operation may have ended."""
        until = time.monotonic() + SETTLED_SECONDS
        while script.planned:
            assert time.monotonic() < until, f"these have not struck: {script.planned}"
            time.sleep(POLL_SECONDS)

    def unfinished(self) -> list[str]:
        return list(self.read(lambda tx: list(agreement.unfinished(tx))))

    def record(self, server_id: str) -> Any:
        return self.read(lambda tx: tx.first(sa.select(servers).where(servers.c.id == server_id)))

    def move(self, server_id: str) -> Any:
        return self.read(lambda tx: tx.first(sa.select(migrations).where(migrations.c.server_id == server_id)))

    def is_rescued(self, record: Any) -> bool:
        """Whether its host says so."""
        world = self.cloud.embedded.world
        assert world is not None
        return world.drivers[record.host]._guests[record.id].rescue_image is not None

    def create(self, *, dirty_rate_mib_s: int | None = None) -> str:
        """Ask for a server with a port; its id."""
        client = self.cloud.persona("admin")
        image = client.request("GET", "/image/v2/images?name=cumulet-tiny")["images"][0]["id"]
        flavor = next(f["id"] for f in client.compute("GET", "/flavors")["flavors"] if f["name"] == "m1.nano")
        if dirty_rate_mib_s is not None:
            flavor = self.busy_flavor(dirty_rate_mib_s)
        body = {"server": {"name": "one", "imageRef": image, "flavorRef": flavor, "networks": "auto"}}
        answer = client.compute("POST", "/servers", body)
        assert answer.status == 202, answer.text
        server_id: str = answer["server"]["id"]
        return server_id

    def busy_flavor(self, rate_mib_s: int) -> str:
        """A flavor whose guests dirty so much memory."""
        client = self.cloud.persona("admin")
        wanted = {"name": f"busy-{uuid.uuid4()}", "vcpus": 1, "ram": 1024, "disk": 1}
        flavor_id: str = client.compute("POST", "/flavors", {"flavor": wanted})["flavor"]["id"]
        specs = {"extra_specs": {"cumulet:dirty_rate_mib_s": str(rate_mib_s)}}
        assert client.compute("POST", f"/flavors/{flavor_id}/os-extra_specs", specs).status == 200
        return flavor_id

    def force_complete(self, server_id: str) -> None:
        """Wish it on the running operation, whatever step it is at: the API would have us wait for the copy."""
        database, wake = self.cloud.embedded.db, self.cloud.embedded.runner

        def wish(tx: Tx) -> None:
            operation = running_operation(tx, server_id)
            if operation is not None:
                request_force(tx, wake, operation.id)

        database.write(wish)

    def created(self, *, dirty_rate_mib_s: int | None = None) -> str:
        """A server that runs."""
        server_id = self.create(dirty_rate_mib_s=dirty_rate_mib_s)
        self.settle()
        assert self.record(server_id).vm_state == VmState.ACTIVE
        return server_id

    def force_down(self, host: str, down: bool) -> None:
        admin = self.cloud.persona("admin")
        services = admin.compute("GET", "/os-services?binary=nova-compute")["services"]
        service_id = next(service["id"] for service in services if service["host"] == host)
        assert admin.compute("PUT", f"/os-services/{service_id}", {"forced_down": down}).status == 200

    def all_back(self) -> None:
        """No host is away any more, and each has been looked at since."""
        for host in self.cloud.hosts:
            self.force_down(host, False)
        self.cloud.reconcile()

    def settle(self) -> None:
        """Wait until nobody is at work any more."""
        until = time.monotonic() + SETTLED_SECONDS
        while left := self.unfinished():
            assert time.monotonic() < until, left
            time.sleep(POLL_SECONDS)
