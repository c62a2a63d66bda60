"""changePassword: a guest's agent would set it, and no guest here has one that could be reached."""

from __future__ import annotations

from typing import Annotated

from cumulet.compute.model import Server
from cumulet.compute.rules import MEMBER
from cumulet.compute.server_actions import PATH
from cumulet.compute.service import COMPUTE
from cumulet.compute.sight import server_in_sight
from cumulet.compute.states import require_state
from cumulet.errors import Conflict
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import rule
from cumulet.web.schema import Body, Key

CHANGE_PASSWORD = rule("os_compute_api:os-admin-password", MEMBER)


class ChangePassword(Body):
    """Compute API, "Change Administrative Password (changePassword Action)"."""

    admin_password: Annotated[str, Key("adminPass")]


@COMPUTE.operation(
    "POST",
    PATH,
    action="changePassword",
    rules=(Rule(CHANGE_PASSWORD),),
    target=server_in_sight,
    body=ChangePassword,
    success=202,
)
def change_password(call: Call[Server, ChangePassword]) -> None:
    """Set the administrator's password in a guest: refused, in upstream's words for a guest without an agent."""
    require_state(call.target, "changePassword", call.caller)
    raise Conflict("QEMU guest agent is not enabled", reason="NO_GUEST_AGENT")
