"""The password that a guest has encrypted for its owner and posted to the metadata service of its host."""

from __future__ import annotations

from cumulet.compute import untold
from cumulet.compute.flavors import ShowQuery
from cumulet.compute.model import Server
from cumulet.compute.rules import MEMBER, READER
from cumulet.compute.service import COMPUTE
from cumulet.compute.sight import server_in_sight
from cumulet.compute.store import get_server, settle_server, update_server
from cumulet.db.engine import Tx
from cumulet.host.telling import MOST_PASSWORD_CHARACTERS, Posted
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import rule

SHOW = rule("os_compute_api:os-server-password:show", READER)
CLEAR = rule("os_compute_api:os-server-password:clear", MEMBER)
PATH = "/servers/{server_id}/os-server-password"
PASSWORD, TAKEN = "password", "password_taken"
"""Keys of a server's system metadata. `TAKEN`: `Posted.id` of the last one, kept when the password is cleared, so that
a host that has not heard of that does not bring it back."""


def on_record(server: Server) -> str:
    """As its guest has encrypted it; empty: none."""
    return server.system_metadata.get(PASSWORD, "")


def taken(server: Server) -> str:
    return server.system_metadata.get(TAKEN, "")


def record_posted(tx: Tx, server_id: str, host: str | None, posted: Posted, *, now_us: int) -> None:
    """The server's host has told what its guest has posted. One that is on record, or was, stays as it is."""
    server = get_server(tx, server_id, deleted=True)
    if server.host != host or server.deleted_at_us is not None or taken(server) == posted.id:
        return
    known = {**server.system_metadata, TAKEN: posted.id}
    if not on_record(server):
        known[PASSWORD] = posted.content[:MOST_PASSWORD_CHARACTERS]
    settle_server(tx, server_id, now_us=now_us, system_metadata=known)
    untold.note(tx, server_id, now_us=now_us)  # Its host need not keep it any more.


@COMPUTE.operation("GET", PATH, rules=(Rule(SHOW),), target=server_in_sight, query=ShowQuery)
def show_server_password(call: Call[Server, None]) -> dict[str, str]:
    """Show the encrypted password: empty, as long as the guest has posted none."""
    return {"password": on_record(call.target)}


@COMPUTE.operation("DELETE", PATH, rules=(Rule(CLEAR),), target=server_in_sight, success=204)
def clear_server_password(call: Call[Server, None]) -> None:
    """Forget the encrypted password, so that the guest may post another. The guest's own password stays."""
    server = call.target
    if on_record(server):
        kept = {key: value for key, value in server.system_metadata.items() if key != PASSWORD}
        update_server(call.tx, server, now_us=call.now_us, system_metadata=kept)
        untold.note(call.tx, server.id, now_us=call.now_us)
