"""changePassword: QEMU's agent in the guest sets it, while the request waits. What it was is kept nowhere here."""

from __future__ import annotations

from typing import Annotated

from cumulet.compute import guest_agent, operations
from cumulet.compute.model import Server
from cumulet.compute.rules import MEMBER
from cumulet.compute.server_actions import PATH
from cumulet.compute.service import COMPUTE
from cumulet.compute.sight import server_in_sight
from cumulet.compute.states import require_state
from cumulet.compute.store import new_action
from cumulet.conductor.saga import Failure
from cumulet.db.engine import Tx
from cumulet.errors import Conflict
from cumulet.host.guest_agent_messages import SetPassword
from cumulet.host.messages import HostError
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import rule
from cumulet.web.schema import Body, Key

CHANGE_PASSWORD = rule("os_compute_api:os-admin-password", MEMBER)


SECONDS = 20.0
"""How long the host is waited for. It gives the agent in the guest less (`drivers.qemu.guest_agent.ANSWER_SECONDS`)."""


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
async def change_password(call: Call[Server, ChangePassword]) -> None:
    """Have the agent in a guest set its administrator's password. 409: there is none, or it does not do it."""
    server = call.target
    require_state(server, "changePassword", call.caller)
    if not guest_agent.is_in(server.image_properties):
        raise Conflict("QEMU guest agent is not enabled", reason="NO_GUEST_AGENT")
    assert server.host is not None  # It is ACTIVE.
    wanted = SetPassword(
        server_id=server.id,
        user=guest_agent.administrator(server.image_properties),
        password=call.body.admin_password,
    )
    failure: Failure | None = None
    try:
        await call.cloud.hosts.send(server.host, wanted, seconds=SECONDS)
    except HostError as error:
        failure = Failure(reason="AGENT", public="Failed to set admin password.", private=str(error))
    await call.cloud.db.write_async(lambda tx: _record(tx, call, failure))
    if failure is not None:
        raise Conflict(
            f"Failed to set admin password on {server.id} because error setting admin password",
            private=failure.private,
            reason="AGENT",
        )


def _record(tx: Tx, call: Call[Server, ChangePassword], failure: Failure | None) -> None:
    """As an action of the server's, with its outcome."""
    caller, now = call.caller, call.cloud.clock.now_us()
    action_id = new_action(
        tx,
        call.target.id,
        "changePassword",
        request_id=call.request_id,
        user_id=caller.user_id,
        project_id=caller.project_id,
        now_us=call.now_us,
    )
    operations.start_event(tx, action_id, "compute_set_admin_password", host=call.target.host, now_us=call.now_us)
    operations.finish_events(tx, action_id, now_us=now, failure=failure)
