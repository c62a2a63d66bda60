"""Requests to Network during a run: routers, their interfaces and gateways, floating IPs, port forwardings."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Mapping
from random import Random

import sqlalchemy as sa

from cumulet.network.forwarding_records import port_forwardings
from cumulet.network.store import floating_ips, ports, routers
from cumulet.testing.simulation.cloud import SimulatedCloud
from cumulet.testing.simulation.foundation import PROJECTS

Ask = Callable[[str, str, str, object], Awaitable[object]]
"""Caller, method, path below Network's, body."""
MOST_ROUTERS = 3
"""Routers of a project; with so many, one is deleted or changed instead of made."""
_PROJECT: sa.BindParameter[str] = sa.bindparam("of_project")
_ROUTERS = sa.select(routers.c.id).where(routers.c.project_id == _PROJECT).order_by(routers.c.id)
_FLOATING = sa.select(floating_ips.c.id).where(floating_ips.c.project_id == _PROJECT).order_by(floating_ips.c.id)
_LEADING_NOWHERE = _FLOATING.where(floating_ips.c.port_id.is_(None))
_FORWARDINGS = (
    sa.select(port_forwardings.c.id, port_forwardings.c.floating_ip_id)
    .where(port_forwardings.c.project_id == _PROJECT)
    .order_by(port_forwardings.c.id)
)
_PORTS = (
    sa.select(ports.c.id)
    .where(ports.c.project_id == _PROJECT, ports.c.server_id.is_not(None), ports.c.network_id == sa.bindparam("of_net"))
    .order_by(ports.c.id)
)


class NetworkWorkload:
    """Requests of both projects."""

    def __init__(self, cloud: SimulatedCloud, ask: Ask) -> None:
        self._cloud = cloud
        self._ask = ask

    async def first_routers(self) -> None:
        """Give each project a router with a gateway, and a floating IP, before anything goes wrong."""
        for project in PROJECTS:
            await self._router(project, gateway=True)
            for router_id in self._ids(_ROUTERS, project):
                await self._interface(project, router_id, "add")
            outside = self._cloud.foundation.outside
            await self._asked(project, "POST", "floatingips", {"floatingip": {"floating_network_id": outside}})

    def request(self, random: Random) -> tuple[str, Coroutine[object, None, None]]:
        """The story of a request, and the request."""
        project = random.choice(PROJECTS)
        its_routers = self._ids(_ROUTERS, project)
        router_id = random.choice(its_routers) if its_routers else None
        if router_id is None or random.random() < 0.1:
            if len(its_routers) < MOST_ROUTERS:
                gateway = random.random() < 0.7
                return f"{project} makes a router", self._router(project, gateway=gateway)
            return f"{project} deletes a router", self._asked(project, "DELETE", f"routers/{its_routers[0]}")
        kind = random.choice((self._change_router, self._lead, self._lead, self._forward, self._forward, self._forward))
        return kind(random, project, router_id)

    # -- routers

    async def _router(self, project: str, *, gateway: bool) -> None:
        info = {"external_gateway_info": {"network_id": self._cloud.foundation.outside}} if gateway else {}
        await self._asked(project, "POST", "routers", {"router": {"name": "r", **info}})

    async def _interface(self, project: str, router_id: str, verb: str) -> None:
        body = {"subnet_id": self._cloud.foundation.subnets[project]}
        await self._asked(project, "PUT", f"routers/{router_id}/{verb}_router_interface", body)

    def _change_router(self, random: Random, project: str, router_id: str) -> tuple[str, Coroutine[object, None, None]]:
        which = random.choice(("add", "add", "remove", "out", "out", "in", "down", "up"))
        name = f"router {router_id[:8]}"
        if which in ("add", "remove"):
            return f"{project} asks {which} an interface of {name}", self._interface(project, router_id, which)
        outside = self._cloud.foundation.outside
        changes: Mapping[str, Mapping[str, object]] = {
            "out": {"external_gateway_info": {"network_id": outside}},
            "in": {"external_gateway_info": {}},
            "down": {"admin_state_up": False},
            "up": {"admin_state_up": True},
        }
        request = self._asked(project, "PUT", f"routers/{router_id}", {"router": changes[which]})
        return f"{project} asks {which} of {name}", request

    # -- floating IPs

    def _lead(self, random: Random, project: str, _router_id: str) -> tuple[str, Coroutine[object, None, None]]:
        """Take a floating IP, associate it with a port, with another, with none, or delete it."""
        held, port_id = self._ids(_FLOATING, project), self._port(random, project)
        if not held or (len(held) < 2 and random.random() < 0.2):
            wanted: dict[str, object] = {"floating_network_id": self._cloud.foundation.outside}
            if port_id is not None and random.random() < 0.7:
                wanted["port_id"] = port_id
            return f"{project} takes a floating IP", self._asked(project, "POST", "floatingips", {"floatingip": wanted})
        floating_id = random.choice(held)
        if random.random() < 0.1:
            return f"{project} gives a floating IP back", self._asked(project, "DELETE", f"floatingips/{floating_id}")
        leads_to = port_id if random.random() < 0.8 else None
        body = {"floatingip": {"port_id": leads_to}}
        request = self._asked(project, "PUT", f"floatingips/{floating_id}", body)
        return f"{project} leads a floating IP to {leads_to[:8] if leads_to else 'nobody'}", request

    def _forward(self, random: Random, project: str, _router_id: str) -> tuple[str, Coroutine[object, None, None]]:
        """Make or delete a port forwarding."""
        held, port_id = self._ids(_FLOATING, project), self._port(random, project)
        present = self._cloud.db.read(lambda tx: tx.all(_FORWARDINGS, {"of_project": project}))
        if present and (random.random() < 0.4 or not held):
            one = random.choice(present)
            path = f"floatingips/{one.floating_ip_id}/port_forwardings/{one.id}"
            return f"{project} forwards a port no more", self._asked(project, "DELETE", path)
        if not held or port_id is None:
            return self._lead(random, project, _router_id)
        outer = random.randrange(1, 3)
        body = {"internal_port_id": port_id, "internal_port": 80, "external_port": outer, "protocol": "tcp"}
        # A floating IP with a port is refused, so mostly free ones are tried.
        free = self._ids(_LEADING_NOWHERE, project)
        path = f"floatingips/{random.choice(free or held)}/port_forwardings"
        return f"{project} forwards a port", self._asked(project, "POST", path, {"port_forwarding": body})

    # -- inside

    def _ids(self, statement: sa.Select[tuple[str]], project: str) -> list[str]:
        return [row.id for row in self._cloud.db.read(lambda tx: tx.all(statement, {"of_project": project}))]

    def _port(self, random: Random, project: str) -> str | None:
        values = {"of_project": project, "of_net": self._cloud.networks[project]}
        found = self._cloud.db.read(lambda tx: [row.id for row in tx.all(_PORTS, values)])
        return random.choice(found) if found else None

    async def _asked(self, project: str, method: str, path: str, body: object = None) -> None:
        await self._ask(project, method, f"/network/v2.0/{path}", body)
