"""How a server's processors and memory lie on its host's NUMA nodes. Guests here are not pinned to any."""

from __future__ import annotations

from cumulet.compute.flavors import ShowQuery
from cumulet.compute.model import Server
from cumulet.compute.rules import READER
from cumulet.compute.service import COMPUTE
from cumulet.compute.sight import server_in_sight
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import rule

SHOW = rule("compute:server:topology:index", READER)


@COMPUTE.operation(
    "GET", "/servers/{server_id}/topology", rules=(Rule(SHOW),), target=server_in_sight, query=ShowQuery, since="2.78"
)
def show_topology(call: Call[Server, None]) -> dict[str, object]:
    """Show a server's NUMA nodes: none, since no guest is bound to any."""
    return {"nodes": [], "pagesize_kb": None}
