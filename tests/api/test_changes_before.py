"""`changes-before`: what an answer shows as changed at a second is found by that second."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from cumulet.compute.store import instance_actions, migrations, servers
from cumulet.db.engine import Tx
from cumulet.testing import Client, TestCloud
from tests.api.test_compute_servers import create

CHANGED_US = 1_800_000_000_700_000
THEN, BEFORE_THEN = "2027-01-15T08:00:00Z", "2027-01-15T07:59:59Z"


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("/servers?", "servers"),
        ("/servers/{}/os-instance-actions?", "instanceActions"),
        ("/os-migrations?", "migrations"),
    ],
)
def test_what_is_shown_as_changed_at_a_second_is_found_by_it(
    cloud: TestCloud, member: Client, admin: Client, path: str, key: str
) -> None:
    server_id = create(member)["id"]
    assert admin.action(server_id, {"os-migrateLive": {"host": None, "block_migration": "auto"}}).status == 202
    cloud.idle()

    def change(tx: Tx) -> None:
        for table in (servers, instance_actions, migrations):
            tx.execute(sa.update(table).values(updated_at_us=CHANGED_US))

    cloud.embedded.db.write(change)
    place = path.format(server_id)
    who = member if key == "servers" else admin
    for asked, found in ((THEN, True), (BEFORE_THEN, False)):
        answer = who.compute("GET", f"{place}changes-before={asked}", version="2.66")
        assert answer.status == 200
        assert bool(answer[key]) is found, asked
