"""Hosts whose agents are of the version before, while a fleet is upgraded: what they do not know they are not told."""

from __future__ import annotations

import msgspec

from cumulet.host import messages as m
from cumulet.host.looking import SINCE_PROTOCOL, Look
from cumulet.testing import Client, TestCloud
from tests.links import Way, instead

from .servers import host_of
from .test_compute_servers import create


class Older(Way):
    """An agent of the version before, which does not know the verb `look`, on a host that fails to stop guests."""

    async def send(self, message: m.Message[object]) -> object:
        if isinstance(message, Look):
            raise m.HostError("not understood: 'look'")
        if isinstance(message, m.Stop):
            raise m.VerbFailed("planted")
        answer = await super().send(message)
        if isinstance(message, m.AskFacts):
            return msgspec.structs.replace(answer, protocol=SINCE_PROTOCOL - 1)
        return answer


def test_an_operation_that_is_undone_only_asks_what_its_guest_is(
    cloud: TestCloud, admin: Client, member: Client
) -> None:
    server = create(member)["id"]
    with instead(cloud, host_of(admin, server), Older):
        cloud.reconcile()
        assert member.action(server, {"os-stop": None}).status == 202
        member.wait("its end", lambda: member.server(server)["OS-EXT-STS:task_state"] is None)
    assert member.server(server)["status"] == "ACTIVE"
    action = member.compute("GET", f"/servers/{server}/os-instance-actions")["instanceActions"][0]
    assert (action["action"], action["message"]) == ("stop", "Error")
