"""What a rebuild that fails brings back, and what has changed meanwhile and stays so."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from cumulet.compute import operations
from cumulet.compute.server_password import PASSWORD, TAKEN, record_posted
from cumulet.compute.store import get_server, settle_server
from cumulet.db.engine import Tx
from cumulet.host import messages as m
from cumulet.host.telling import Posted
from cumulet.testing import Client, TestCloud
from tests.links import Way, instead

from .servers import create_pair, host_of
from .test_create_image import made


@pytest.fixture
def server(member: Client) -> str:
    return create_pair(member)[0]


class Refuses(Way):
    """A host that does not let go of a guest. Meanwhile its owner clears the guest's password."""

    meanwhile: Callable[[], Awaitable[object]]

    async def send(self, message: m.Message[object]) -> object:
        if isinstance(message, m.Destroy):
            await self.meanwhile()
            raise m.VerbFailed("no")
        return await super().send(message)


def test_a_password_that_is_cleared_meanwhile_does_not_come_back_with_what_was_before(
    cloud: TestCloud, admin: Client, member: Client, server: str
) -> None:
    db, host = cloud.embedded.db, host_of(admin, server)
    before = db.read(lambda tx: get_server(tx, server)).system_metadata
    db.write(lambda tx: record_posted(tx, server, host, Posted(id="first", content="sealed"), now_us=1))
    assert member.compute("GET", f"/servers/{server}/os-server-password")["password"] == "sealed"

    def cleared(tx: Tx) -> None:
        metadata = operations.metadata_without(tx, server, PASSWORD)
        settle_server(tx, server, now_us=2, system_metadata=metadata)

    with instead(cloud, host, Refuses) as way:
        way.meanwhile = lambda: db.write_async(cleared)
        image = made(member, server)
        assert member.action(server, {"rebuild": {"imageRef": image["id"]}}).status == 202
        cloud.idle()
    assert member.wait_for_status(server, "ACTIVE")["image"]["id"] != image["id"]
    assert member.compute("GET", f"/servers/{server}/os-server-password")["password"] == ""
    after = db.read(lambda tx: get_server(tx, server)).system_metadata
    assert after == before | {TAKEN: "first"}
