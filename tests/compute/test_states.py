"""What is done with a guest needs a host, whatever the record says of its state."""

from __future__ import annotations

import msgspec
import pytest
import sqlalchemy as sa

from cumulet.compute.model import VmState
from cumulet.compute.states import ALLOWED, require_state
from cumulet.compute.store import get_server, servers
from cumulet.errors import Conflict
from cumulet.testing import Client, TestCloud
from cumulet.web.operation import Caller
from tests.api.servers import create_pair

ADMIN = Caller(user_id="u", user_name="admin", user_domain_id="default", roles=frozenset({"admin"}))
WITHOUT_HOST = {
    "delete",
    "forceDelete",
    "restore",
    "unshelve",
    "update metadata",
    "delete metadata",
    "update tag",
    "update tags",
    "delete tag",
    "delete tags",
}
"""Only the record changes, or it is what makes a guest."""
ACTIONS: tuple[tuple[str, object], ...] = (
    ("changePassword", {"adminPass": "tVhT1bJ5"}),
    ("createBackup", {"name": "b", "backup_type": "daily", "rotation": 1}),
    ("createImage", {"name": "i"}),
    ("migrate", None),
    ("os-migrateLive", {"host": None, "block_migration": "auto"}),
    ("os-stop", None),
    ("pause", None),
    ("reboot", {"type": "HARD"}),
    ("reboot", {"type": "SOFT"}),
    ("rescue", None),
    ("resize", {"flavorRef": "1"}),
    ("shelve", None),
    ("suspend", None),
    ("trigger_crash_dump", None),
)


def test_each_action_with_a_guest_needs_a_host(cloud: TestCloud, member: Client) -> None:
    made = create_pair(member)[0]
    whole = cloud.embedded.db.read(lambda tx: get_server(tx, made))
    for action, allowed in ALLOWED.items():
        for state in allowed.vm_states if allowed.vm_states is not None else VmState:
            task = None if allowed.task_states is None else min(allowed.task_states, key=str)
            server = msgspec.structs.replace(whole, vm_state=state, task_state=task)
            require_state(server, action, ADMIN)
            if action in WITHOUT_HOST:
                require_state(msgspec.structs.replace(server, host=None), action, ADMIN)
                continue
            with pytest.raises(Conflict, match="is not ready"):
                require_state(msgspec.structs.replace(server, host=None), action, ADMIN)


@pytest.mark.parametrize(("action", "body"), ACTIONS, ids=lambda part: part if isinstance(part, str) else "")
def test_a_record_that_is_wrong_reaches_no_host(
    cloud: TestCloud, admin: Client, member: Client, action: str, body: object
) -> None:
    made = create_pair(member)[0]
    nowhere = sa.update(servers).where(servers.c.id == made).values(host=None)
    cloud.embedded.db.write(lambda tx: tx.execute(nowhere))
    if action == "resize":
        body = {"flavorRef": admin.compute("GET", "/flavors")["flavors"][-1]["id"]}
    answer = admin.action(made, {action: body}, version="2.55")
    assert (answer.status, "is not ready" in answer.text) == (409, True), answer.text
    assert cloud.embedded.db.read(lambda tx: get_server(tx, made)).task_state is None
