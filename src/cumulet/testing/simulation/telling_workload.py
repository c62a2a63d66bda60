"""What guests are told of their servers while a run lasts: names, items and passwords change as they boot and move."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Coroutine, Iterator
from random import Random
from typing import TYPE_CHECKING, NamedTuple

from cumulet.host.driver import GuestState
from cumulet.host.telling import META_DATA, PASSWORD

if TYPE_CHECKING:
    from cumulet.testing.simulation.cloud import SimulatedCloud
    from cumulet.testing.simulation.trunk_workload import Ask

Asked = tuple[str, Coroutine[object, None, None]]
"""The story of a request, and the request."""
KEYS = ("colour", "size")
_SERVERS = "SELECT id, project_id, host FROM servers WHERE deleted_at_us IS NULL ORDER BY number"
_KEPT = "SELECT system_metadata FROM servers WHERE id = ?"
_RECORDS = """
SELECT id, host, name, hostname, metadata, system_metadata FROM servers WHERE deleted_at_us IS NULL AND host IS NOT NULL
"""


class Living(NamedTuple):
    """A server that is not deleted."""

    id: str
    project_id: str
    host: str | None


class TellingWorkload:
    """Requests of both projects, and passwords that guests post."""

    def __init__(self, cloud: SimulatedCloud, ask: Ask) -> None:
        self._cloud = cloud
        self._ask = ask
        self._posts = itertools.count(1)
        self._cleared: set[tuple[str, str]] = set()
        """Servers, and passwords that were on record there before an acknowledged request to clear them."""

    def request(self, random: Random) -> Asked:
        present = [Living(*row) for row in self._cloud.db.driver.execute(_SERVERS)]
        if not present:
            return "nobody has a server to rename", self._asked("admin", "GET", "")
        server, number = random.choice(present), random.randrange(1000)
        path, name = f"/{server.id}", server.id[:8]
        kind = random.choice(("rename", "rename", "items", "items", "post", "clear"))
        if kind == "rename":
            pause = random.uniform(0.0, 2.0)
            return f"{server.project_id} renames {name} twice", self._rename(server, path, number, pause)
        if kind == "items":
            items = {"metadata": {random.choice(KEYS): str(number)}}
            method = random.choice(("PUT", "POST"))
            request = self._asked(server.project_id, method, f"{path}/metadata", items)
            return f"{server.project_id} changes items of {name}", request
        if kind == "clear":
            return f"{server.project_id} clears the password of {name}", self._clear(server, path)
        return f"the guest of {name} posts a password", self._post(server, f"encrypted-{next(self._posts)}")

    async def _rename(self, server: Living, path: str, number: int, pause: float) -> None:
        """Once more soon, so that what comes late would bring the first name back."""
        for name in (f"first-{number}", f"name-{number}"):
            await self._asked(server.project_id, "PUT", path, {"server": {"name": name, "hostname": name}})
            await asyncio.sleep(pause)

    async def _asked(self, caller: str, method: str, path: str, body: object = None) -> None:
        await self._ask(caller, method, f"/compute/v2.1/servers{path}", body)

    async def _clear(self, server: Living, path: str) -> None:
        (kept,) = self._cloud.db.driver.execute(_KEPT, (server.id,)).fetchone()
        whole = f"/compute/v2.1/servers{path}/os-server-password"
        status, _ = await self._ask(server.project_id, "DELETE", whole, None)
        content = json.loads(kept).get("password", "")
        if status == 204 and content:
            self._cleared.add((server.id, content))

    async def _post(self, server: Living, content: str) -> None:
        machine = self._cloud.machines.get(server.host or "")
        if machine is None or machine.agent is None:
            return
        if machine.driver.present().get(server.id) is GuestState.RUNNING:
            machine.driver.post_password(server.id, content)

    def wrong(self) -> Iterator[str]:
        """At rest: what each guest would be answered by its host is what the records say of its server."""
        if not self._cloud.telling:
            return
        for server_id, host, name, hostname, items, kept in self._cloud.db.driver.execute(_RECORDS):
            password = json.loads(kept).get("password", "")
            if (server_id, password) in self._cleared:
                yield f"the password of server {server_id[:8]} was cleared, and is there again"
            driver = self._cloud.machines[host].driver
            if server_id not in driver.present():
                continue
            files = driver.tells(server_id)
            meta = json.loads(files[META_DATA])
            told = (meta["name"], meta["hostname"], meta.get("meta", {}), files.get(PASSWORD, b"").decode())
            wanted = (name, hostname, json.loads(items), password)
            if told != wanted:
                yield f"server {server_id[:8]} is {wanted}, but its guest on {host} is told {told}"
