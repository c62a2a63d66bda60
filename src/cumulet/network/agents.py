"""Neutron's agents: ``/agents``. Neutron has several agents on a host; here it is one, shown once for each task.

Agents cannot be put on networks and routers by hand. The host of a router follows from the hosts in service
(`router_hosts`), and each host answers DHCP and metadata for its own guests.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Annotated

import msgspec
import sqlalchemy as sa

from cumulet.clock import iso_z
from cumulet.db.engine import Tx, metadata
from cumulet.errors import Conflict, NotFound
from cumulet.network import bodies, filtering, hosts, paging, policy, resource
from cumulet.network.bodies import text
from cumulet.network.hosts import Host
from cumulet.network.networks import NETWORKS
from cumulet.network.resource import View
from cumulet.network.router_hosts import host_of
from cumulet.network.routers import ROUTERS
from cumulet.network.service import NETWORK
from cumulet.network.store import Network, Router, find, networks, port_bindings, ports, routers
from cumulet.network.trunk_ports import WAYS, Way
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import rule
from cumulet.web.schema import UNSET, Body, Json, Unset

SHOW = rule("get_agent", policy.ADMIN, description="See the agents of hosts")
UPDATE = rule("update_agent", policy.ADMIN, description="Describe an agent")
DELETE = rule("delete_agent", policy.ADMIN, description="Forget an agent")
DHCP_AGENTS = rule("get_dhcp-agents", policy.ADMIN, description="See which hosts answer DHCP on a network")
DHCP_NETWORKS = rule("get_dhcp-networks", policy.ADMIN, description="See the networks on which a host answers DHCP")
L3_AGENTS = rule("get_l3-agents", policy.ADMIN, description="See which host has a router")
L3_ROUTERS = rule("get_l3-routers", policy.ADMIN, description="See the routers of a host")

agent_descriptions = sa.Table(
    "network_agent_descriptions",
    metadata,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("description", sa.String(255), nullable=False),
)

PATH = "/agents/{agent_id}"
BINARY = "cumulet-agent"


class Task(StrEnum):
    """What a host's agent does for its networks."""

    PORTS = "Cumulet agent"
    DHCP = "DHCP agent"
    METADATA = "Metadata agent"
    ROUTERS = "L3 agent"


class Agent(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    task: Task
    host: Host


def _agents(tx: Tx) -> list[Agent]:
    return [
        Agent(id=str(uuid.uuid5(uuid.UUID(host.id), task.name)), task=task, host=host)
        for host in hosts.wiring(tx)
        for task in Task
    ]


def _views(tx: Tx, found: Sequence[Agent]) -> list[View]:
    said = {row.id: row.description for row in tx.all(sa.select(agent_descriptions))}
    return [
        {
            "id": agent.id,
            "agent_type": agent.task.value,
            "binary": BINARY,
            "topic": "N/A",
            "host": agent.host.name,
            "admin_state_up": True,
            "alive": agent.host.up,
            "availability_zone": agent.host.zone if agent.task in (Task.DHCP, Task.ROUTERS) else None,
            "created_at": _time(agent.host.created_at_us),
            "started_at": _time(agent.host.started_at_us),
            "heartbeat_timestamp": _time(agent.host.seen_at_us),
            "description": said.get(agent.id),
            "configurations": {"features": sorted(agent.host.features)},
        }
        for agent in found
    ]


def _time(us: int) -> str:
    """``2026-11-28 17:00:00``: Neutron writes times so for agents only."""
    return str(iso_z(us)).replace("T", " ").removesuffix("Z")


_READ: dict[str, paging.Reader] = {
    "id": str,
    "agent_type": str,
    "binary": str,
    "topic": str,
    "host": str,
    "description": str,
    "availability_zone": str,
    "admin_state_up": filtering.truth,
    "alive": filtering.truth,
}


def _listed(call: Call[object, object], found: Sequence[Agent], path: str | None = None, **more: object) -> View:
    return paging.of_few(call, "agents", [view | more for view in _views(call.tx, found)], _READ, path=path)


def _unknown(agent_id: str) -> NotFound:
    return NotFound(f"Agent {agent_id} could not be found.", reason="AgentNotFound")


def _target(call: Call[object, object]) -> Agent:
    """The agent in the path, for administrators; 404 for others."""
    for agent in _agents(call.tx):
        if agent.id == call.path["agent_id"] and call.authorise(SHOW, {}):
            return agent
    raise _unknown(call.path["agent_id"])


def _of_task(task: Task) -> Callable[[Call[object, object]], Agent]:
    def target(call: Call[object, object]) -> Agent:
        agent = _target(call)
        if agent.task is not task:
            raise _unknown(agent.id)
        return agent

    return target


class UpdateAgent(Body):
    admin_state_up: bodies.Truth | Unset = UNSET
    description: Annotated[str, Json({"maxLength": 255})] | Unset | None = UNSET


@NETWORK.operation("GET", "/agents", rules=())
def list_agents(call: Call[None, None]) -> View:
    """List the agents of all hosts that have networks; for others than administrators there are none."""
    return _listed(call, _agents(call.tx) if call.authorise(SHOW, {}) else [], "agents")


@NETWORK.operation("GET", PATH, rules=(), target=_target)
def show_agent(call: Call[Agent, None]) -> View:
    """Show an agent."""
    return {"agent": _views(call.tx, [call.target])[0]}


@NETWORK.operation("PUT", PATH, rules=(Rule(UPDATE),), target=_target, body=UpdateAgent, body_key="agent")
def update_agent(call: Call[Agent, UpdateAgent]) -> View:
    """Describe an agent. To take it out of service, disable its host in Compute."""
    agent, body = call.target, call.body
    if body.admin_state_up is False:
        raise Conflict(
            f"Agent {agent.id} is host {agent.host.name} itself: disable its compute service instead.",
            reason="AgentIsItsHost",
        )
    if body.description is not UNSET:
        call.tx.execute(sa.delete(agent_descriptions).where(agent_descriptions.c.id == agent.id))
        call.tx.execute(sa.insert(agent_descriptions).values(id=agent.id, description=text(body.description)))
    return {"agent": _views(call.tx, [agent])[0]}


@NETWORK.operation("DELETE", PATH, rules=(Rule(DELETE),), target=_target, success=204)
def delete_agent(call: Call[Agent, None]) -> None:
    """Always refused: an agent is there as long as its host."""
    raise Conflict(
        f"Agent {call.target.id} is host {call.target.host.name} itself: remove the host instead.",
        reason="AgentIsItsHost",
    )


# -- the networks and routers of agents


@NETWORK.operation(
    "GET", "/networks/{network_id}/dhcp-agents", rules=(Rule(DHCP_AGENTS),), target=resource.target(NETWORKS)
)
def list_dhcp_agents(call: Call[Network, None]) -> View:
    """List the agents that answer DHCP on a network: those of the hosts that have servers' ports of it."""
    names = {row.host for way in WAYS for row in call.tx.all(_hosts_of(call.target.id, way))}
    return _listed(call, [agent for agent in _agents(call.tx) if agent.task is Task.DHCP and agent.host.name in names])


def _hosts_of(network_id: str, way: Way) -> sa.Select[tuple[str]]:
    return (
        sa.select(port_bindings.c.host)
        .select_from(way.joined)
        .where(ports.c.network_id == network_id, way.server_id.is_not(None))
        .distinct()
    )


@NETWORK.operation("GET", f"{PATH}/dhcp-networks", rules=(Rule(DHCP_NETWORKS),), target=_of_task(Task.DHCP))
def list_dhcp_networks(call: Call[Agent, None]) -> View:
    """List the networks on which an agent answers DHCP."""
    of_host = [
        networks.c.id.in_(
            sa.select(ports.c.network_id)
            .select_from(way.joined)
            .where(port_bindings.c.host == call.target.host.name, way.server_id.is_not(None))
        )
        for way in WAYS
    ]
    found = find(call.tx, Network, sa.or_(*of_host))[: call.cloud.settings.largest_page]
    return resource.shown_many(call, NETWORKS, found)


def _with_routers(tx: Tx) -> tuple[str, ...]:
    return tuple(host.name for host in hosts.wiring(tx) if host.may_have_routers)


@NETWORK.operation("GET", "/routers/{router_id}/l3-agents", rules=(Rule(L3_AGENTS),), target=resource.target(ROUTERS))
def list_l3_agents(call: Call[Router, None]) -> View:
    """List the agent of the host that has a router; none where no host can have one."""
    place = host_of(call.target.id, _with_routers(call.tx)) if call.target.admin_state_up else None
    found = [agent for agent in _agents(call.tx) if agent.task is Task.ROUTERS and agent.host.name == place]
    return _listed(call, found, ha_state=None)


@NETWORK.operation("GET", f"{PATH}/l3-routers", rules=(Rule(L3_ROUTERS),), target=_of_task(Task.ROUTERS))
def list_l3_routers(call: Call[Agent, None]) -> View:
    """List the routers that a host has."""
    able = _with_routers(call.tx)
    here = [
        router
        for router in find(call.tx, Router, routers.c.admin_state_up)
        if host_of(router.id, able) == call.target.host.name
    ]
    return resource.shown_many(call, ROUTERS, here[: call.cloud.settings.largest_page])
