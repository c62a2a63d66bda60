"""The password a guest has encrypted for its owner: none, as no guest can report one yet."""

from __future__ import annotations

from cumulet.compute.flavors import ShowQuery
from cumulet.compute.model import Server
from cumulet.compute.rules import MEMBER, READER
from cumulet.compute.service import COMPUTE
from cumulet.compute.sight import server_in_sight
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import rule

SHOW = rule("os_compute_api:os-server-password:show", READER)
CLEAR = rule("os_compute_api:os-server-password:clear", MEMBER)
PATH = "/servers/{server_id}/os-server-password"


@COMPUTE.operation("GET", PATH, rules=(Rule(SHOW),), target=server_in_sight, query=ShowQuery)
def show_server_password(call: Call[Server, None]) -> dict[str, str]:
    """Show the encrypted password: empty, as long as no guest has reported one."""
    return {"password": call.target.system_metadata.get("password", "")}


@COMPUTE.operation("DELETE", PATH, rules=(Rule(CLEAR),), target=server_in_sight, success=204)
def clear_server_password(call: Call[Server, None]) -> None:
    """Forget the encrypted password."""
