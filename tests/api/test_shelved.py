"""Shelved servers that rest on their hosts, where the cloud is set so: taken off them, or started where they are."""

from __future__ import annotations

from collections.abc import Iterator
from unittest import mock

import pytest
import sqlalchemy as sa

import cumulet.testing
from cumulet.compute.image_promises import MIN_DISK, MIN_RAM
from cumulet.compute.model import SHELVED_IMAGE
from cumulet.compute.operations import on_host
from cumulet.compute.shelved import STARTING, AutomaticOffload, Resting
from cumulet.compute.store import get_server
from cumulet.conductor import saga
from cumulet.db.engine import Tx
from cumulet.host import messages as m
from cumulet.host.driver import GuestState
from cumulet.testing import Client, TestCloud
from tests.links import Way, instead

from .servers import create_pair, host_of, leftovers
from .test_evacuation import force_down
from .test_interfaces import plugged
from .test_shelve import NOWHERE, images_of


@pytest.fixture(scope="module")
def resting() -> Iterator[TestCloud]:
    with cumulet.testing.cloud(shelved_offload_time=60) as running:
        yield running


@pytest.fixture
def cloud(resting: TestCloud) -> Iterator[TestCloud]:
    """In place of the session's."""
    yield resting
    resting.reset()


@pytest.fixture
def server(cloud: TestCloud, member: Client) -> str:
    """A shelved server that rests on its host."""
    made = create_pair(member, networks="auto")[0]
    acted(member, made, "shelve", "SHELVED")
    return made


@pytest.fixture
def suspended(cloud: TestCloud, member: Client) -> str:
    """A shelved server that rests on its host, and was suspended before."""
    made = create_pair(member, networks="auto")[0]
    cloud.clock.advance(5.0)
    acted(member, made, "suspend", "SUSPENDED")
    acted(member, made, "shelve", "SHELVED")
    return made


def acted(client: Client, server: str, action: str, status: str) -> None:
    assert client.action(server, {action: None}).status == 202
    client.wait_for_status(server, status)


def unshelved(cloud: TestCloud, admin: Client, member: Client, server: str) -> None:
    """It runs where it was, and its image is gone."""
    host = host_of(admin, server)
    acted(member, server, "unshelve", "ACTIVE")
    assert leftovers(cloud, admin, server) == at(host, GuestState.RUNNING)
    assert images_of(member, server) == []


def at(host: str, state: GuestState) -> dict[str, object]:
    return {"guests": {host: state}, "allocated": [host], "bound": [host]}


def passed(cloud: TestCloud, seconds: float) -> None:
    """Let time pass, and the conductor look."""
    cloud.clock.advance(seconds)
    cloud.await_(cloud.embedded.conductor.reconciler(AutomaticOffload).round())
    cloud.idle()


def test_it_keeps_host_share_and_ports_and_has_its_image(
    cloud: TestCloud, admin: Client, member: Client, server: str
) -> None:
    host = host_of(admin, server)
    assert leftovers(cloud, admin, server) == at(host, GuestState.STOPPED)
    assert [image["status"] for image in images_of(member, server)] == ["active"]
    assert member.server(server)["OS-EXT-STS:power_state"] == 4
    cloud.reconcile()
    assert member.server(server)["status"] == "SHELVED"
    listed = member.compute("GET", "/servers?status=SHELVED")["servers"]
    assert server in [one["id"] for one in listed]


def test_unshelved_it_runs_where_it_was_and_its_image_is_gone(
    cloud: TestCloud, admin: Client, member: Client, server: str
) -> None:
    unshelved(cloud, admin, member, server)


def test_a_port_that_is_deleted_meanwhile_is_pulled_out_of_the_resting_guest(
    cloud: TestCloud, admin: Client, member: Client, server: str
) -> None:
    interfaces = member.compute("GET", f"/servers/{server}/os-interface")["interfaceAttachments"]
    assert plugged(cloud, server) == tuple(one["port_id"] for one in interfaces) != ()
    for one in interfaces:
        assert admin.request("DELETE", f"/network/v2.0/ports/{one['port_id']}").status == 204
    cloud.idle()
    cloud.reconcile()
    assert plugged(cloud, server) == ()
    acted(member, server, "unshelve", "ACTIVE")
    assert plugged(cloud, server) == ()


def test_an_administrator_takes_it_off_its_host(cloud: TestCloud, admin: Client, member: Client, server: str) -> None:
    assert member.action(server, {"shelveOffload": None}).status == 403
    acted(admin, server, "shelveOffload", "SHELVED_OFFLOADED")
    assert leftovers(cloud, admin, server) == NOWHERE
    assert admin.action(server, {"shelveOffload": None}).status == 409
    acted(member, server, "unshelve", "ACTIVE")


def test_after_its_time_it_leaves_by_itself(cloud: TestCloud, admin: Client, member: Client, server: str) -> None:
    passed(cloud, 30.0)
    assert member.server(server)["status"] == "SHELVED"
    passed(cloud, 31.0)
    assert member.server(server)["status"] == "SHELVED_OFFLOADED"
    action = member.compute("GET", f"/servers/{server}/os-instance-actions")["instanceActions"][0]
    assert action["action"] == "shelveOffload"


def test_once_it_has_left_nothing_says_that_it_rested(cloud: TestCloud, admin: Client, server: str) -> None:
    """It is as one that was taken off its host at once: that has its image, and nothing else."""
    acted(admin, server, "shelveOffload", "SHELVED_OFFLOADED")
    left = cloud.embedded.db.read(lambda tx: get_server(tx, server))
    assert set(left.system_metadata) == {SHELVED_IMAGE, MIN_RAM, MIN_DISK}


def test_it_does_not_leave_by_itself_while_something_is_done_with_it(cloud: TestCloud, server: str) -> None:
    looks = cloud.embedded.conductor.reconciler(AutomaticOffload)

    def see_to(tx: Tx) -> str | None:
        cloud.clock.advance(61.0)  # in here: the conductor's own round cannot come before the operation
        operation = cloud.embedded.clock.uuid()
        state = Resting(**on_host(get_server(tx, server), operation, 0))
        saga.begin(tx, mock.Mock(), STARTING, operation_id=operation, subject=server, state=state, now_us=0)
        looks.see_to(tx, server)
        seen = get_server(tx, server).task_state
        assert saga.running_operation(tx, server) is not None
        tx.execute(sa.delete(saga.operations).where(saga.operations.c.id == operation))
        return seen

    assert cloud.embedded.db.write(see_to) is None
    passed(cloud, 0.0)
    assert cloud.persona("member").server(server)["status"] == "SHELVED_OFFLOADED"


def test_one_whose_image_is_deleted_does_not_leave(
    cloud: TestCloud, admin: Client, member: Client, server: str
) -> None:
    """Neither by itself nor because an administrator asks: its disk is all that there is of it."""
    host = host_of(admin, server)
    (image,) = images_of(member, server)
    assert member.request("DELETE", f"/image/v2/images/{image['id']}").status == 204
    passed(cloud, 61.0)
    answer = admin.action(server, {"shelveOffload": None})
    assert (answer.status, "all that there is of it" in answer.text) == (409, True), answer.text
    assert member.server(server)["status"] == "SHELVED"
    assert leftovers(cloud, admin, server) == at(host, GuestState.STOPPED)
    findings = admin.compute("GET", "/cumulet/findings")["findings"]
    assert "shelved-image-gone" in [one["finding"] for one in findings if one["server_id"] == server]
    unshelved(cloud, admin, member, server)


def test_one_whose_image_is_deactivated_leaves_once_that_is_over(
    cloud: TestCloud, admin: Client, member: Client, server: str
) -> None:
    (image,) = images_of(member, server)
    path = f"/image/v2/images/{image['id']}/actions"
    assert admin.request("POST", f"{path}/deactivate").status == 204
    passed(cloud, 61.0)
    assert member.server(server)["status"] == "SHELVED"
    assert admin.request("POST", f"{path}/reactivate").status == 204
    passed(cloud, 1.0)
    assert member.server(server)["status"] == "SHELVED_OFFLOADED"


@pytest.mark.parametrize("state", ["active", "error"])
def test_one_that_is_said_to_be_in_another_state_is_shelved_no_more(
    cloud: TestCloud, admin: Client, member: Client, server: str, state: str
) -> None:
    """Its image is its owner's from then on, who may use it for something else."""
    assert admin.action(server, {"os-resetState": {"state": state}}).status == 202
    left = cloud.embedded.db.read(lambda tx: get_server(tx, server))
    assert set(left.system_metadata) == {MIN_RAM, MIN_DISK}
    assert admin.compute("DELETE", f"/servers/{server}").status == 204
    cloud.idle()
    assert [image["status"] for image in images_of(member, server)] == ["active"]


@pytest.mark.parametrize("body", [{"availability_zone": "nova"}, {"host": "host1"}, {"availability_zone": None}])
def test_it_is_not_sent_elsewhere_while_it_rests(admin: Client, server: str, body: dict[str, object]) -> None:
    answer = admin.action(server, {"unshelve": body})
    assert (answer.status, "must be SHELVED_OFFLOADED" in answer.text) == (409, True), answer.text
    assert admin.server(server)["status"] == "SHELVED"


def test_one_that_was_suspended_boots_anew(cloud: TestCloud, admin: Client, member: Client, suspended: str) -> None:
    cloud.reconcile()
    assert member.server(suspended)["status"] == "SHELVED"
    assert cloud.embedded.world is not None
    guest = cloud.embedded.world.drivers[host_of(admin, suspended)]._guests[suspended]
    assert guest.ran_us > 0
    unshelved(cloud, admin, member, suspended)
    assert guest.ran_us == 0, "it began anew"


def test_one_that_was_paused_runs_when_it_is_started_again(cloud: TestCloud, admin: Client, member: Client) -> None:
    """It was paused by its user once: that ended when it was stopped."""
    made = create_pair(member, networks="auto")[0]
    acted(member, made, "pause", "PAUSED")
    acted(member, made, "shelve", "SHELVED")
    unshelved(cloud, admin, member, made)


@pytest.mark.parametrize("which", ["server", "suspended"])
def test_what_cannot_be_started_rests_on(
    cloud: TestCloud, admin: Client, member: Client, which: str, request: pytest.FixtureRequest
) -> None:
    """As with an agent of the version before, which does not know how to boot a suspended guest."""
    server: str = request.getfixturevalue(which)

    async def fails(self: m.Start, host: m.OnHost) -> None:
        raise m.VerbFailed("planted")

    with mock.patch.object(m.Start, "do", fails):
        assert member.action(server, {"unshelve": None}).status == 202
        cloud.idle()
    shown = member.server(server)
    assert shown["status"] == "SHELVED"
    assert shown["fault"]["message"]
    assert len(images_of(member, server)) == 1
    assert admin.compute("DELETE", f"/servers/{server}").status == 204
    cloud.idle()
    assert images_of(member, server) == []


class Late(Way):
    """The message that lets the guest run comes after everybody has stopped waiting. The one that stops it is lost."""

    on_its_way: m.Start | None = None

    async def send(self, message: m.Message[object]) -> object:
        if isinstance(message, m.Start):
            self.on_its_way = message
        if isinstance(message, m.Start | m.Stop):
            raise m.HostUnreachable("planted")
        return await super().send(message)


def test_what_rests_on_is_not_started_by_what_comes_late(
    cloud: TestCloud, admin: Client, member: Client, server: str
) -> None:
    host = host_of(admin, server)
    with instead(cloud, host, Late) as way:
        force_down(admin, host)  # So nobody insists that it is stopped.
        assert member.action(server, {"unshelve": None}).status == 202
        cloud.idle()
    assert way.on_its_way is not None
    with pytest.raises(m.StaleGeneration):
        cloud.await_(cloud.embedded.hosts.send(host, way.on_its_way))
    assert leftovers(cloud, admin, server) == at(host, GuestState.STOPPED)
    assert member.server(server)["status"] == "SHELVED"
