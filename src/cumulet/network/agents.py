"""Neutron's agents: ``/agents``. There are none: what Neutron's agents do, Cumulet's own host agents do."""

from __future__ import annotations

from cumulet.errors import NotFound
from cumulet.network.resource import View
from cumulet.network.service import NETWORK
from cumulet.web.operation import Call


@NETWORK.operation("GET", "/agents", rules=())
def list_agents(call: Call[None, None]) -> View:
    """List Neutron's agents: none, for everybody."""
    return {"agents": []}


@NETWORK.operation("GET", "/agents/{agent_id}", rules=())
def show_agent(call: Call[object, None]) -> View:
    """Show an agent of Neutron's: there is none, so every id is unknown, to whoever asks."""
    raise NotFound(f"Agent {call.path['agent_id']} could not be found", reason="AgentNotFound")
