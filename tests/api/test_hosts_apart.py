"""Hosts that `cumulet up` makes on its machine do not reach hosts that have joined: no move between them is tried."""

from __future__ import annotations

import msgspec
import pytest

import cumulet.testing
from cumulet.host import messages as m
from tests.links import Way, instead

from .servers import AUTO, create_pair, event_details, host_of, last_migration, other


class OnTheWire(Way):
    """The agent says the address of the wire between the hosts that `cumulet up` makes."""

    async def send(self, message: m.Message[object]) -> object:
        answer = await super().send(message)
        return msgspec.structs.replace(answer, address="198.18.0.1") if isinstance(message, m.AskFacts) else answer


@pytest.mark.parametrize("made", ["the source", "the destination"])
def test_no_server_moves_between_them_and_the_record_says_why(made: str) -> None:
    with cumulet.testing.cloud() as cloud:
        admin, member = cloud.persona("admin"), cloud.persona("member")
        server = create_pair(member)[0]
        source = host_of(admin, server)
        destination = other(source)
        with instead(cloud, source if made == "the source" else destination, OnTheWire):
            cloud.reconcile()
            old = admin.action(server, {"os-migrateLive": {"host": destination, **AUTO}}, version="2.30")
            assert old.status == 400, old.text
            assert admin.action(server, {"os-migrateLive": {"host": destination, **AUTO}}).status == 202
            admin.wait("its end", lambda: last_migration(admin, server)["status"] == "error")
            assert f"{destination}: HOSTS_APART" in event_details(admin, server)
            assert admin.action(server, {"migrate": None}).status == 202
            admin.wait("its end", lambda: f"{destination}: HOSTS_APART" in event_details(admin, server, "migrate"))
        assert host_of(admin, server) == source
