"""Shelved servers that rest on their hosts, where the cloud is set so: taken off them, or started where they are."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import cumulet.testing
from cumulet.compute.shelved import AutomaticOffload
from cumulet.host import messages as m
from cumulet.host.driver import GuestState
from cumulet.testing import Client, TestCloud

from .test_live_migration import create_pair, host_of, leftovers
from .test_shelve import NOWHERE, images_of


@pytest.fixture(scope="module")
def resting() -> Iterator[TestCloud]:
    with cumulet.testing.cloud(shelved_offload_time=60) as running:
        yield running


@pytest.fixture
def admin(resting: TestCloud) -> Client:
    return resting.persona("admin")


@pytest.fixture
def member(resting: TestCloud) -> Client:
    return resting.persona("member")


@pytest.fixture
def server(resting: TestCloud, member: Client) -> Iterator[str]:
    """One that rests."""
    made = create_pair(member, networks="auto")[0]
    assert member.action(made, {"shelve": None}).status == 202
    member.wait_for_status(made, "SHELVED")
    yield made
    resting.reset()


def at(host: str, state: GuestState) -> dict[str, object]:
    return {"guests": {host: state}, "allocated": [host], "bound": [host]}


def passed(cloud: TestCloud, seconds: float) -> None:
    """It is later, and the conductor has looked."""
    cloud.clock.advance(seconds)
    cloud.await_(cloud.embedded.conductor.reconciler(AutomaticOffload).round())
    cloud.idle()


def test_it_keeps_host_share_and_ports_and_has_its_image(
    resting: TestCloud, admin: Client, member: Client, server: str
) -> None:
    host = host_of(admin, server)
    assert leftovers(resting, admin, server) == {
        "guests": {host: GuestState.STOPPED},
        "allocated": [host],
        "bound": [host],
    }
    assert [image["status"] for image in images_of(member, server)] == ["active"]
    assert member.server(server)["OS-EXT-STS:power_state"] == 4
    resting.reconcile()
    assert member.server(server)["status"] == "SHELVED"
    listed = member.compute("GET", "/servers?status=SHELVED")["servers"]
    assert server in [one["id"] for one in listed]


def test_unshelved_it_runs_where_it_was_and_its_image_is_gone(
    resting: TestCloud, admin: Client, member: Client, server: str
) -> None:
    host = host_of(admin, server)
    assert member.action(server, {"unshelve": None}).status == 202
    member.wait_for_status(server, "ACTIVE")
    assert leftovers(resting, admin, server) == {
        "guests": {host: GuestState.RUNNING},
        "allocated": [host],
        "bound": [host],
    }
    assert images_of(member, server) == []


def test_an_administrator_takes_it_off_its_host(resting: TestCloud, admin: Client, member: Client, server: str) -> None:
    assert member.action(server, {"shelveOffload": None}).status == 403
    assert admin.action(server, {"shelveOffload": None}).status == 202
    admin.wait_for_status(server, "SHELVED_OFFLOADED")
    assert leftovers(resting, admin, server) == NOWHERE
    assert admin.action(server, {"shelveOffload": None}).status == 409
    assert member.action(server, {"unshelve": None}).status == 202
    member.wait_for_status(server, "ACTIVE")


def test_after_its_time_it_leaves_by_itself(resting: TestCloud, admin: Client, member: Client, server: str) -> None:
    passed(resting, 30.0)
    assert member.server(server)["status"] == "SHELVED"
    passed(resting, 31.0)
    assert member.server(server)["status"] == "SHELVED_OFFLOADED"
    action = member.compute("GET", f"/servers/{server}/os-instance-actions")["instanceActions"][0]
    assert action["action"] == "shelveOffload"


@pytest.mark.parametrize("body", [{"availability_zone": "nova"}, {"host": "host1"}, {"availability_zone": None}])
def test_it_is_not_sent_elsewhere_while_it_rests(admin: Client, server: str, body: dict[str, object]) -> None:
    answer = admin.action(server, {"unshelve": body})
    assert (answer.status, "must be SHELVED_OFFLOADED" in answer.text) == (409, True), answer.text
    assert admin.server(server)["status"] == "SHELVED"


def test_what_cannot_be_started_rests_on(
    resting: TestCloud, admin: Client, member: Client, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(self: m.Start, host: m.OnHost) -> None:
        raise m.VerbFailed("planted")

    with monkeypatch.context() as planted:
        planted.setattr(m.Start, "do", fails)
        assert member.action(server, {"unshelve": None}).status == 202
        resting.idle()
    assert member.server(server)["status"] == "SHELVED"
    assert len(images_of(member, server)) == 1
    assert admin.compute("DELETE", f"/servers/{server}").status == 204
    resting.idle()
    assert images_of(member, server) == []
