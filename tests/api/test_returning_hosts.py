"""A host that was down comes back with guests that are nobody's any more. It gets no others before they are removed."""

from __future__ import annotations

from cumulet.agent.agent import Agent
from cumulet.bus.in_process import InProcessLink
from cumulet.host import messages as m
from cumulet.testing import Client, TestCloud
from tests.links import Way, instead, silent

from .servers import create_pair, host_of, image_and_flavor


class RemovesNothing(Way):
    """Its guests hang, and cannot be removed now."""

    async def send(self, message: m.Message[object]) -> object:
        if isinstance(message, m.Destroy):
            raise m.VerbFailed("a test keeps this guest")
        return await super().send(message)


def deleted_while_its_host_was_silent(cloud: TestCloud, admin: Client, member: Client) -> tuple[str, str]:
    """A server that is gone, and the host that still has its guest."""
    server_id = create_pair(member)[0]
    host = host_of(admin, server_id)
    with silent(cloud, host):
        cloud.clock.advance(2 * cloud.embedded.settings.host_silent_seconds)
        cloud.reconcile()
        assert member.compute("DELETE", f"/servers/{server_id}").status == 204
        admin.wait("it to be gone", lambda: admin.compute("GET", f"/servers/{server_id}").status == 404)
    return server_id, host


def boot_at(admin: Client, host: str) -> str:
    wanted = {"name": "next", "networks": "none", "host": host} | image_and_flavor(admin)
    answer = admin.compute("POST", "/servers", {"server": wanted}, version="2.74")
    assert answer.status == 202, answer.text
    return str(answer["server"]["id"])


def test_a_host_that_is_back_gets_no_servers_before_it_has_removed_what_it_lost(
    cloud: TestCloud, admin: Client, member: Client
) -> None:
    server_id, host = deleted_while_its_host_was_silent(cloud, admin, member)
    with instead(cloud, host, RemovesNothing):
        cloud.reconcile()
        assert server_id in cloud.guests(host)
        services = admin.compute("GET", f"/os-services?host={host}&binary=nova-compute")["services"]
        assert [service["state"] for service in services] == ["up"]
        refused = boot_at(admin, host)
        admin.wait_for_status(refused, "ERROR")
        path = f"/servers/{refused}/os-instance-actions"
        request = admin.compute("GET", path)["instanceActions"][0]["request_id"]
        assert "HOST_RETURNING" in str(admin.compute("GET", f"{path}/{request}")["instanceAction"]["events"])
    cloud.reconcile()
    assert server_id not in cloud.guests(host)
    admin.wait_for_status(boot_at(admin, host), "ACTIVE")


def test_a_guest_that_was_deleted_while_its_host_was_away_is_removed_with_the_generation_of_its_record(
    cloud: TestCloud, admin: Client, member: Client
) -> None:
    """The host's welcome names that generation after the host has reported an earlier one, which it then refuses."""
    server_id, host = deleted_while_its_host_was_silent(cloud, admin, member)
    link = cloud.embedded.hosts.link(host)
    assert isinstance(link, InProcessLink)
    assert isinstance(link._agent, Agent)
    link._agent.session = cloud.clock.uuid()  # As if it was started again.
    cloud.reconcile()
    assert server_id not in cloud.guests(host)


class OutOfDate(Way):
    """Between its report and our command the host has accepted a command of a later generation."""

    async def send(self, message: m.Message[object]) -> object:
        if isinstance(message, m.Destroy):
            raise m.StaleGeneration("of an earlier generation")
        return await super().send(message)


def test_a_removal_that_a_host_refuses_as_out_of_date_does_not_count_as_done(
    cloud: TestCloud, admin: Client, member: Client
) -> None:
    server_id, host = deleted_while_its_host_was_silent(cloud, admin, member)
    with instead(cloud, host, OutOfDate):
        cloud.reconcile()
        assert server_id in cloud.guests(host)
        admin.wait_for_status(boot_at(admin, host), "ERROR")
    cloud.reconcile()
    assert server_id not in cloud.guests(host)
    admin.wait_for_status(boot_at(admin, host), "ACTIVE")
