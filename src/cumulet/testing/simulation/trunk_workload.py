"""Requests for trunks during a run: made, changed and deleted while servers boot, move and end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from random import Random

import sqlalchemy as sa

from cumulet.db.engine import Row
from cumulet.network.store import ports
from cumulet.network.trunk_records import trunk_subports, trunks
from cumulet.testing.simulation.cloud import SimulatedCloud
from cumulet.testing.simulation.foundation import IMAGE_ID, PROJECTS, Answered

Ask = Callable[[str, str, str, object], Awaitable[Answered]]
"""Caller, method, path, body."""
Asked = tuple[str, Coroutine[object, None, None]]
MOST_TRUNKS = 4
"""Trunks of a project; with so many, one is deleted instead of made."""
TAGS = (1, 2, 3)
"""So few that the same one is asked for twice."""
_PROJECT: sa.BindParameter[str] = sa.bindparam("of_project")
_TRUNKS = sa.select(trunks.c.id, trunks.c.port_id).where(trunks.c.project_id == _PROJECT).order_by(trunks.c.id)
_SUBPORTS = (
    sa.select(trunk_subports.c.port_id.label("id"), trunk_subports.c.trunk_id)
    .join(trunks, trunks.c.id == trunk_subports.c.trunk_id)
    .where(trunks.c.project_id == _PROJECT)
    .order_by(trunk_subports.c.port_id)
)
_SERVER_OF = sa.select(ports.c.server_id).where(ports.c.id == sa.bindparam("of_port"), ports.c.server_id.is_not(None))
_PORTS = (
    sa.select(ports.c.id)
    .where(ports.c.project_id == _PROJECT, ports.c.network_id == sa.bindparam("of_net"))
    .order_by(ports.c.id)
)


class TrunkWorkload:
    """Requests of both projects. Many are refused: for ports that are in a trunk, or have a server."""

    def __init__(self, cloud: SimulatedCloud, ask: Ask) -> None:
        self._cloud = cloud
        self._ask = ask

    def request(self, random: Random) -> Asked:
        """The story of a request, and the request."""
        project = random.choice(PROJECTS)
        present = self._rows(_TRUNKS, project)
        if not present or (len(present) < MOST_TRUNKS and random.random() < 0.3):
            return self._make(random, project)
        one = random.choice(present)
        if len(present) == MOST_TRUNKS and random.random() < 0.2:
            request = self._asked(project, "DELETE", f"trunks/{one.id}")
            return f"{project} deletes the trunk {one.id[:8]}", request
        kind = random.choice((self._add, self._add, self._remove, self._boot, self._boot, self._leave))
        return kind(random, project, one)

    def _make(self, random: Random, project: str) -> Asked:
        held = self._rows(_PORTS, project, of_net=self._cloud.networks[project])
        parent = random.choice(held).id if held and random.random() < 0.8 else None
        tag = random.choice(TAGS)

        async def make() -> None:
            port_id = parent or await self._port(project)
            subport = await self._port(project)
            if port_id is not None and subport is not None:
                await self._asked(project, "POST", "trunks", {"trunk": {"port_id": port_id, **_named(subport, tag)}})

        return f"{project} makes a trunk of {parent[:8] if parent else 'a new port'}", make()

    def _add(self, random: Random, project: str, trunk: Row) -> Asked:
        held, tag = self._rows(_PORTS, project, of_net=self._cloud.networks[project]), random.choice(TAGS)
        known = random.choice(held).id if held and random.random() < 0.3 else None

        async def add() -> None:
            subport = known or await self._port(project)
            if subport is not None:
                await self._asked(project, "PUT", f"trunks/{trunk.id}/add_subports", _named(subport, tag))

        return f"{project} adds a subport to {trunk.id[:8]}", add()

    def _remove(self, random: Random, project: str, trunk: Row) -> Asked:
        present = self._rows(_SUBPORTS, project)
        if not present:
            return self._add(random, project, trunk)
        one = random.choice(present)
        body = {"sub_ports": [{"port_id": one.id}]}
        request = self._asked(project, "PUT", f"trunks/{one.trunk_id}/remove_subports", body)
        return f"{project} takes a subport from {one.trunk_id[:8]}", request

    def _boot(self, random: Random, project: str, trunk: Row) -> Asked:
        """A server with a trunk's parent; now and then one with a subport, which is refused."""
        present = self._rows(_SUBPORTS, project)
        port_id = random.choice(present).id if present and random.random() < 0.3 else trunk.port_id
        server = {"name": "s", "flavorRef": "tiny", "imageRef": IMAGE_ID, "networks": [{"port": port_id}]}

        async def boot() -> None:
            await self._ask(project, "POST", "/compute/v2.1/servers", {"server": server})

        return f"{project} creates a server with the port {port_id[:8]}", boot()

    def _leave(self, random: Random, project: str, trunk: Row) -> Asked:
        """Pull a trunk's parent out of its server."""
        held = self._cloud.db.read(lambda tx: tx.all(_SERVER_OF, {"of_port": trunk.port_id}))
        if not held:
            return self._boot(random, project, trunk)
        path = f"/compute/v2.1/servers/{held[0].server_id}/os-interface/{trunk.port_id}"

        async def leave() -> None:
            await self._ask(project, "DELETE", path, None)

        return f"{project} pulls the parent of {trunk.id[:8]} out of its server", leave()

    # -- inside

    def _rows(self, statement: sa.Select[*tuple[object, ...]], project: str, **values: str) -> list[Row]:
        return self._cloud.db.read(lambda tx: list(tx.all(statement, {"of_project": project, **values})))

    async def _port(self, project: str) -> str | None:
        body = {"port": {"network_id": self._cloud.networks[project]}}
        status, answer = await self._ask(project, "POST", "/network/v2.0/ports", body)
        return str(answer["port"]["id"]) if status == 201 else None

    async def _asked(self, project: str, method: str, path: str, body: object = None) -> None:
        await self._ask(project, method, f"/network/v2.0/{path}", body)


def _named(port_id: str, tag: int) -> dict[str, object]:
    return {"sub_ports": [{"port_id": port_id, "segmentation_type": "vlan", "segmentation_id": tag}]}
