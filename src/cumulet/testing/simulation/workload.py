"""Requests of users and administrators during a run, through the real API, and what was acknowledged."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from random import Random

import sqlalchemy as sa

from cumulet.compute.store import hosts, migrations, servers
from cumulet.db.engine import Row
from cumulet.network.store import ports
from cumulet.placement.store import resource_providers
from cumulet.testing.simulation.cloud import SimulatedCloud
from cumulet.testing.simulation.console_workload import SERIAL, Consoles
from cumulet.testing.simulation.foundation import FAST_HOST, GROUPS, IMAGE_ID, PROJECTS, Answered
from cumulet.testing.simulation.import_workload import Imports
from cumulet.testing.simulation.network_details import NetworkDetails
from cumulet.testing.simulation.network_workload import NetworkWorkload
from cumulet.testing.simulation.telling_workload import TellingWorkload
from cumulet.testing.simulation.trunk_workload import TrunkWorkload

_SERVERS = sa.select(servers.c.id, servers.c.project_id, servers.c.vm_state, servers.c.deleted_at_us).order_by(
    servers.c.number
)
_STRANDED = (
    sa.select(servers.c.id)
    .join(hosts, hosts.c.name == servers.c.host)
    .where(
        sa.or_(~hosts.c.up, hosts.c.forced_down, hosts.c.name.in_(sa.bindparam("of_silent", expanding=True))),
        servers.c.deleted_at_us.is_(None),
    )
    .order_by(servers.c.number)
)
_MIGRATIONS = sa.select(migrations.c.id, migrations.c.server_id, migrations.c.ended_at_us).order_by(migrations.c.id)
Asked = tuple[str, Coroutine[object, None, None]]
"""The story of a request, and the request."""
AUTO = {"block_migration": "auto"}
CREATED = (*["tiny"] * 6, "busy", "busy", "large", "large", "fast", "dedicated")
EVACUATION_TRIES = 4
GROUPED = 0.4
"""The share of requests for servers that name a server group."""


class Workload:
    """Requests under way and their answers. `created` and `deleted` hold ids whose request was acknowledged."""

    def __init__(self, cloud: SimulatedCloud, random: Random, say: Callable[[str], None], counts: Counter[str]) -> None:
        self._cloud = cloud
        self._say = say
        self._under_way: dict[asyncio.Task[None], str] = {}
        self.created: set[str] = set()
        self.deleted: set[str] = set()
        self._counts = counts
        self._network = NetworkWorkload(cloud, self._said)
        self._details = NetworkDetails(cloud, self._said)
        self._trunks = TrunkWorkload(cloud, self._said)
        self.telling = TellingWorkload(cloud, self._said)
        self._consoles = Consoles(cloud, counts)
        self.imports = Imports(cloud, self._said)

    def unanswered(self) -> list[str]:
        return [f"unanswered: {what}" for task, what in self._under_way.items() if not task.done()]

    def begin(self, random: Random, step: int) -> None:
        """Begin a request; its answer comes later."""
        kinds = {
            self._create: 5, self._migrate: 8, self._migrate_both: 2, self._delete: 3, self._abort: 3, self._force: 2,
            self._force_a_move: 3, self._power: 4, self._host: 1, self._resize: 2, self._migrate_cold: 1,
            self._decide: 2, self._evacuate: 4, self._image: 2, self._plug: 3, self._rebuild: 2, self._shelve: 3,
            self._rescue: 3, self._route: 8 if self._cloud.routed else 0,
            self._console: 3, self.imports.request: 8 if self._cloud.importing else 0,
            self._details.request: 60 if self._cloud.detailed else 0,
            self._trunk: 12 if self._cloud.trunked else 0, self.telling.request: 20 if self._cloud.telling else 0,
        }  # fmt: skip
        kind = random.choices(list(kinds), weights=list(kinds.values()))[0]
        self._counts[f"requests: {kind.__name__.strip('_')}"] += 1
        what, request = kind(random)
        self._say(f"[{step}] {what}")
        task = asyncio.ensure_future(request)
        self._under_way[task] = what
        task.add_done_callback(lambda done: self._under_way.pop(done, None))

    async def first_servers(self, random: Random) -> None:
        """Make what a run begins with, before anything goes wrong."""
        trait = sa.update(resource_providers).where(resource_providers.c.name == FAST_HOST)
        self._cloud.db.write(lambda tx: tx.execute(trait.values(traits=["CUSTOM_FAST"])))
        if self._cloud.routed:
            await self._network.first_routers()
        if self._cloud.detailed:
            await self._details.first()
        for _ in range(random.choice((0, 1, 2))):
            what, request = self._create(random)
            self._say(what)
            await request
        await asyncio.sleep(1.0)

    async def _ask(
        self, caller: str, method: str, path: str, body: object = None, *, version: str = "2.96"
    ) -> Answered:
        return await self._said(caller, method, f"/compute/v2.1{path}", body, version=version)

    async def _said(
        self, caller: str, method: str, path: str, body: object = None, *, version: str = "2.96"
    ) -> Answered:
        status, answer = await self._cloud.request(caller, method, path, body, version=version)
        self._counts[f"answers: {status}"] += 1
        self._say(f"    {status} to {method} {path}")
        return status, answer

    async def _asked(self, caller: str, method: str, path: str, body: object = None) -> None:
        """A request whose answer is only logged."""
        await self._ask(caller, method, path, body)

    async def _act(self, caller: str, server: Row, action: Mapping[str, object]) -> None:
        await self._ask(caller, "POST", f"/servers/{server.id}/action", action)

    def _server(self, random: Random, *, rather: tuple[str, ...] = ()) -> Row | None:
        """Any server of the records, now and then one that failed or is deleted; None: there is none.

        `rather`: in half of the cases a server in one of these states, if there is one.
        """
        rows: list[Row] = self._cloud.db.read(lambda tx: tx.all(_SERVERS, {}))
        living = [row for row in rows if row.deleted_at_us is None]
        fitting = [row for row in living if row.vm_state in rather]
        if fitting and random.random() < 0.5:
            return random.choice(fitting)
        chance = random.random()
        well = [row for row in living if row.vm_state != "error"]
        pool: list[Row] = rows if chance < 0.02 else living if chance < 0.2 else well
        return random.choice(pool) if pool else None

    def _console(self, random: Random) -> Asked:
        """Ask for the address of a server's console, and use it."""
        server = self._server(random)
        if server is None:
            return self._create(random)

        async def console() -> None:
            path = f"/servers/{server.id}/remote-consoles"
            status, answer = await self._ask(server.project_id, "POST", path, SERIAL)
            if status == 200:
                await self._consoles.use(answer["remote_console"]["url"], random)

        return f"{server.project_id} goes to the console of {server.id[:8]}", console()

    def _route(self, random: Random) -> Asked:
        return self._network.request(random)

    def _trunk(self, random: Random) -> Asked:
        return self._trunks.request(random)

    # -- kinds of requests

    def _create(self, random: Random) -> Asked:
        project, count = random.choice(PROJECTS), random.choice((1, 1, 2, 3))
        flavor = random.choice(CREATED)
        networks: object = random.choice(("none", [{"uuid": self._cloud.networks[project]}]))
        number = random.randrange(len(GROUPS)) if random.random() < GROUPED else None

        async def create() -> None:
            body: dict[str, object] = {
                "server": {
                    "name": "s", "flavorRef": flavor, "imageRef": IMAGE_ID, "networks": networks, "min_count": count,
                    "max_count": count, "return_reservation_id": True,
                }
            }  # fmt: skip
            if number is not None:
                body["os:scheduler_hints"] = {"group": self._cloud.foundation.groups[project][number]}
            status, answer = await self._ask(project, "POST", "/servers", body)
            if status == 202:
                reservation = answer["reservation_id"]
                rows = self._cloud.db.read(
                    lambda tx: tx.all(sa.select(servers.c.id).where(servers.c.reservation_id == reservation))
                )
                self.created |= {row.id for row in rows}

        grouped = "" if number is None else f" ({GROUPS[number][0]})"
        return f"{project} creates {count} {flavor}{grouped}", create()

    def _migrate(self, random: Random) -> Asked:
        server = self._server(random)
        if server is None:
            return self._create(random)
        named = random.random() < 0.5
        host = random.choice(list(self._cloud.machines)) if named else None
        caller = "admin" if named else random.choice(("admin", server.project_id))
        request = self._act(caller, server, {"os-migrateLive": {"host": host, **AUTO}})
        return f"{caller} moves {server.id[:8]} to {host or 'any host'}", request

    def _migrate_both(self, random: Random) -> Asked:
        one, two = self._server(random), self._server(random)
        if one is None or two is None:
            return self._create(random)

        async def migrate() -> None:
            body = {"os-migrateLive": {"host": None, **AUTO}}
            await asyncio.gather(*(self._act("admin", server, body) for server in (one, two)))

        return f"admin moves {one.id[:8]} and {two.id[:8]} at once", migrate()

    def _delete(self, random: Random) -> Asked:
        server = self._server(random)
        if server is None:
            return self._create(random)

        async def delete() -> None:
            status, _ = await self._ask(server.project_id, "DELETE", f"/servers/{server.id}")
            if status == 204:
                self.deleted.add(server.id)

        return f"{server.project_id} deletes {server.id[:8]}", delete()

    def _migration(self, random: Random) -> Row | None:
        """A migration; mostly one that is under way."""
        rows = self._cloud.db.read(lambda tx: tx.all(_MIGRATIONS, {}))
        under_way = [row for row in rows if row.ended_at_us is None]
        pool = under_way if under_way and random.random() < 0.9 else rows[-3:]
        return random.choice(pool) if pool else None

    def _abort(self, random: Random) -> Asked:
        migration = self._migration(random)
        if migration is None:
            return self._create(random)
        path = f"/servers/{migration.server_id}/migrations/{migration.id}"
        return f"admin aborts migration {migration.id}", self._asked("admin", "DELETE", path)

    def _force(self, random: Random) -> Asked:
        migration = self._migration(random)
        if migration is None:
            return self._create(random)

        path = f"/servers/{migration.server_id}/migrations/{migration.id}/action"
        return f"admin forces migration {migration.id}", self._asked("admin", "POST", path, {"force_complete": None})

    def _force_a_move(self, random: Random) -> Asked:
        """Force a live migration soon after it has begun, so that it ends in post-copy."""
        server = self._server(random)
        if server is None:
            return self._create(random)
        pause = random.uniform(0.1, 1.0)

        async def both() -> None:
            body = {"os-migrateLive": {"host": None, **AUTO}}
            status, _ = await self._ask("admin", "POST", f"/servers/{server.id}/action", body)
            await asyncio.sleep(pause)
            rows = self._cloud.db.read(lambda tx: tx.all(_MIGRATIONS, {}))
            mine = [row for row in rows if row.server_id == server.id and row.ended_at_us is None]
            if status == 202 and mine:
                path = f"/servers/{server.id}/migrations/{mine[-1].id}/action"
                await self._ask("admin", "POST", path, {"force_complete": None})

        return f"admin moves {server.id[:8]} to any host, and forces it after {pause:.1f} s", both()

    def _power(self, random: Random) -> Asked:
        server = self._server(random)
        if server is None:
            return self._create(random)
        sensible = {
            "active": ("os-stop", "pause", "suspend", "reboot", "trigger_crash_dump"),
            "paused": ("unpause",),
            "stopped": ("os-start",),
            "suspended": ("resume",),
        }
        action = random.choice(sensible.get(server.vm_state, ("os-stop",)))
        value = {"type": random.choice(("SOFT", "HARD"))} if action == "reboot" else None
        request = self._act(server.project_id, server, {action: value})
        return f"{server.project_id} asks {action} of {server.id[:8]}", request

    def _resize(self, random: Random) -> Asked:
        server = self._server(random)
        if server is None:
            return self._create(random)
        flavor = random.choice(("tiny", "busy", "large", "fast", "dedicated"))
        request = self._act(server.project_id, server, {"resize": {"flavorRef": flavor}})
        return f"{server.project_id} resizes {server.id[:8]} to {flavor}", request

    def _migrate_cold(self, random: Random) -> Asked:
        server = self._server(random)
        if server is None:
            return self._create(random)
        host = random.choice([None, *self._cloud.machines])
        request = self._act("admin", server, {"migrate": None if host is None else {"host": host}})
        return f"admin cold-migrates {server.id[:8]} to {host or 'any host'}", request

    def _evacuate(self, random: Random) -> Asked:
        """Evacuate a server of a host that is down or does not answer. If there is none, any server, which is refused.
        The request is repeated while it is refused because the host may still be alive."""
        silent = [name for name, one in self._cloud.machines.items() if one.cut_off or one.unheard or not one.powered]
        rows = self._cloud.db.read(lambda tx: tx.all(_STRANDED, {"of_silent": silent}))
        if not rows and random.random() < 0.8:
            return self._migrate(random)
        server = random.choice(rows) if rows else self._server(random)
        if server is None:
            return self._create(random)
        named = random.random() < 0.3
        host = random.choice(list(self._cloud.machines)) if named else None

        async def evacuate() -> None:
            # Until 2.94 a server that ran is started; from 2.95 on it stays stopped.
            body = {"evacuate": {"host": host} if host is not None else {}}
            version = random.choice(("2.94", "2.96"))
            for _ in range(EVACUATION_TRIES):
                status, _ = await self._ask("admin", "POST", f"/servers/{server.id}/action", body, version=version)
                if status != 400:
                    return
                await asyncio.sleep(random.uniform(0.5, 1.5))

        return f"admin evacuates {server.id[:8]} to {host or 'any host'}", evacuate()

    def _image(self, random: Random) -> Asked:
        """An image or a backup of a server; now and then it is deleted before it is made."""
        server = self._server(random)
        if server is None:
            return self._create(random)
        backup, regretted = random.random() < 0.5, random.random() < 0.2
        body: dict[str, object] = (
            {"createBackup": {"name": "b", "backup_type": "daily", "rotation": random.choice((0, 1, 2))}}
            if backup
            else {"createImage": {"name": "i"}}
        )

        async def image() -> None:
            status, answer = await self._ask(server.project_id, "POST", f"/servers/{server.id}/action", body)
            if status == 202 and regretted:
                await asyncio.sleep(0.3)
                self._cloud.images.delete(answer["image_id"])

        return f"{server.project_id} asks {next(iter(body))} of {server.id[:8]}", image()

    def _plug(self, random: Random) -> Asked:
        """Attach or detach a port."""
        server = self._server(random)
        if server is None:
            return self._create(random)
        held = self._cloud.db.read(
            lambda tx: tx.all(sa.select(ports.c.id).where(ports.c.server_id == server.id).order_by(ports.c.id))
        )
        path = f"/servers/{server.id}/os-interface"
        if held and random.random() < 0.5:
            port = random.choice(held).id
            request = self._asked(server.project_id, "DELETE", f"{path}/{port}")
            return f"{server.project_id} pulls a port out of {server.id[:8]}", request
        body = {"interfaceAttachment": {"net_id": self._cloud.networks[server.project_id], "tag": "attached"}}
        request = self._asked(server.project_id, "POST", path, body)
        return f"{server.project_id} plugs a port into {server.id[:8]}", request

    def _rebuild(self, random: Random) -> Asked:
        server = self._server(random)
        if server is None:
            return self._create(random)
        anew, caller = {"imageRef": IMAGE_ID, "name": f"rebuilt-{self._cloud.clock.now_us()}"}, server.project_id
        return f"{caller} rebuilds {server.id[:8]}", self._act(caller, server, {"rebuild": anew})

    def _shelve(self, random: Random) -> Asked:
        """Shelve a server, unshelve a shelved one, or offload a shelved one that is still on its host."""
        server = self._server(random, rather=("shelved", "shelved_offloaded"))
        if server is None:
            return self._create(random)
        action = "unshelve" if server.vm_state.startswith("shelved") else "shelve"
        if server.vm_state == "shelved" and random.random() < 0.4:
            action = "shelveOffload"
        hosts = self._cloud.machines if server.vm_state == "shelved_offloaded" else ()
        host = random.choice([None, None, *hosts])
        caller = "admin" if host is not None or action == "shelveOffload" else server.project_id
        value = {"host": host} if host is not None else None
        return f"{caller} asks {action} of {server.id[:8]}", self._act(caller, server, {action: value})

    def _rescue(self, random: Random) -> Asked:
        """Rescue a server, or unrescue a rescued one."""
        server = self._server(random, rather=("rescued",))
        if server is None:
            return self._create(random)
        action = "unrescue" if server.vm_state == "rescued" else "rescue"
        request = self._act(server.project_id, server, {action: None})
        return f"{server.project_id} asks {action} of {server.id[:8]}", request

    def _decide(self, random: Random) -> Asked:
        """Confirm or revert a resize; if there is none, resize a server."""
        rows = self._cloud.db.read(
            lambda tx: tx.all(
                sa.select(servers.c.id, servers.c.project_id)
                .where(servers.c.vm_state == "resized", servers.c.deleted_at_us.is_(None))
                .order_by(servers.c.number)
            )
        )
        if not rows:
            return self._resize(random)
        server, action = random.choice(rows), random.choice(("confirmResize", "revertResize"))
        request = self._act(server.project_id, server, {action: None})
        return f"{server.project_id} asks {action} of {server.id[:8]}", request

    def _host(self, random: Random) -> Asked:
        name, status = random.choice(list(self._cloud.machines)), random.choice(("disabled", "enabled", "enabled"))
        row = self._cloud.db.read(lambda tx: tx.first(sa.select(hosts.c.service_uuid).where(hosts.c.name == name)))
        assert row is not None
        change = self._asked("admin", "PUT", f"/os-services/{row.service_uuid}", {"status": status})
        return f"admin makes {name} {status}", change
