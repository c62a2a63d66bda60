"""What hosts are told in a resize, what is recorded of it, and when it is confirmed by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sa

import cumulet.testing
from cumulet.compute.model import PowerState
from cumulet.compute.power import STOP_GRACE_SECONDS
from cumulet.compute.store import flavors, migrations, settle_server
from cumulet.db.engine import Tx
from cumulet.host import messages as m
from cumulet.host.driver import Guest
from cumulet.host.link import Link
from cumulet.testing import Client, TestCloud
from tests.links import Way, instead

from .servers import create_pair, host_of, image_and_flavor, last_migration, other
from .test_automatic_confirmation import look_later
from .test_evacuation import action_of, force_down
from .test_resize import larger, resize, resized

__all__ = ["larger"]

RICH = {
    "name": "rich",
    "id": "rich",
    "vcpus": 3,
    "ram": 300,
    "disk": 4,
    "OS-FLV-EXT-DATA:ephemeral": 2,
    "swap": 128,
}
"""In nothing as the flavor that servers have before."""


class Noting(Way):
    """Keeps what is sent, each message with what `look` sees then."""

    def __init__(self, link: Link, look: Callable[[], object] = lambda: None) -> None:
        super().__init__(link)
        self._look = look
        self.sent: list[tuple[m.Message[object], object]] = []

    async def send(self, message: m.Message[object]) -> object:
        self.sent.append((message, self._look()))
        return await super().send(message)

    def told(self, kind: type[m.Message[object]]) -> list[m.Message[object]]:
        return [message for message, _ in self.sent if isinstance(message, kind)]


@pytest.fixture
def server(cloud: TestCloud, member: Client) -> str:
    return create_pair(member)[0]


@pytest.fixture
def rich(admin: Client) -> str:
    assert admin.compute("POST", "/flavors", {"flavor": RICH}).status == 200
    specs = {"extra_specs": {"cumulet:dirty_rate_mib_s": "1"}}
    assert admin.compute("POST", "/flavors/rich/os-extra_specs", specs).status == 200
    return "rich"


def amounts(guest: Guest) -> tuple[object, ...]:
    return guest.vcpus, guest.memory_mib, guest.disk_gib, guest.extra_specs, guest.disks


def test_a_resized_guest_is_made_as_a_new_one_of_that_flavor(
    cloud: TestCloud, admin: Client, member: Client, server: str, rich: str
) -> None:
    destination = other(host_of(admin, server))
    with instead(cloud, destination, Noting) as way:
        resized(member, server, rich)
        wanted = {"name": "new", "networks": "none", "availability_zone": f"nova:{destination}"}
        body = {"server": wanted | image_and_flavor(admin) | {"flavorRef": rich}}
        admin.wait_for_status(admin.compute("POST", "/servers", body)["server"]["id"], "ACTIVE")
    (taken,), (made,) = way.told(m.TakeIn), way.told(m.Create)
    assert isinstance(taken, m.TakeIn)
    assert isinstance(made, m.Create)
    assert amounts(taken.guest) == amounts(made.guest)


ORDERLY: dict[str, tuple[dict[str, object], str]] = {
    "stop": ({"os-stop": None}, "SHUTOFF"),
    "cold migration": ({"migrate": None}, "VERIFY_RESIZE"),
    "resize": ({"resize": {"flavorRef": "larger"}}, "VERIFY_RESIZE"),
    "revert": ({"revertResize": None}, "ACTIVE"),
    "rescue": ({"rescue": None}, "RESCUE"),
    "shelve": ({"shelve": None}, "SHELVED_OFFLOADED"),
}


@pytest.mark.parametrize("action", ORDERLY)
def test_a_guest_that_its_user_has_stopped_has_time_to_shut_down(
    cloud: TestCloud, admin: Client, server: str, larger: str, action: str
) -> None:
    body, ends = ORDERLY[action]
    if action == "revert":
        resized(admin, server, larger)
    with instead(cloud, host_of(admin, server), Noting) as way:
        assert admin.action(server, body).status in (200, 202)
        admin.wait_for_status(server, ends)
    stops = [message for message in way.told(m.Stop) if isinstance(message, m.Stop)]
    assert stops
    assert {message.grace_seconds for message in stops} == {STOP_GRACE_SECONDS}


@pytest.mark.parametrize("wanted", ["AUTO", "MANUAL", None])
def test_a_disk_config_is_kept_as_it_was_asked_for(
    admin: Client, member: Client, server: str, larger: str, wanted: str | None
) -> None:
    resize(member, server, larger, **({} if wanted is None else {"OS-DCF:diskConfig": wanted}))
    member.wait_for_status(server, "VERIFY_RESIZE")
    assert member.server(server)["OS-DCF:diskConfig"] == (wanted or "MANUAL")


@pytest.mark.parametrize("action", ["resize", "migrate"])
def test_the_record_has_the_flavors_before_and_after(
    cloud: TestCloud, admin: Client, server: str, larger: str, action: str
) -> None:
    numbers = {row.name: row.id for row in cloud.embedded.db.read(lambda tx: tx.all(sa.select(flavors)))}
    assert admin.action(server, {action: {"flavorRef": larger} if action == "resize" else None}).status == 202
    admin.wait_for_status(server, "VERIFY_RESIZE")
    record = last_migration(admin, server)
    after = "larger" if action == "resize" else "m1.nano"
    found = (record["old_instance_type_id"], record["new_instance_type_id"])
    assert found == (numbers["m1.nano"], numbers[after])


@pytest.mark.parametrize(("more", "reason"), [("vcpus", "VCPU"), ("ram", "MEMORY"), ("disk", "DISK")])
def test_there_is_room_for_all_of_the_new_flavor_or_no_host(
    admin: Client, member: Client, server: str, more: str, reason: str
) -> None:
    quota = {"quota_set": {"cores": -1, "ram": -1}}
    assert admin.compute("PUT", f"/os-quota-sets/{member.project_id}", quota).status == 200
    huge = {"name": "huge", "id": "huge", "vcpus": 1, "ram": 256, "disk": 2, more: 2**24}
    assert admin.compute("POST", "/flavors", {"flavor": huge}).status == 200
    resize(member, server, "huge")
    admin.wait("the end", lambda: last_migration(admin, server)["status"] == "error")
    assert f"{other(host_of(admin, server))}: INSUFFICIENT_{reason}" in str(
        action_of(admin, server, "resize")["events"]
    )


@pytest.mark.parametrize(("action", "meanwhile"), [("confirmResize", "confirming"), ("revertResize", "reverting")])
def test_the_record_says_what_its_user_has_decided_while_it_is_done(
    cloud: TestCloud, admin: Client, member: Client, server: str, larger: str, action: str, meanwhile: str
) -> None:
    resized(member, server, larger)
    status = sa.select(migrations.c.status).where(migrations.c.server_id == server)

    def look() -> object:
        return cloud.embedded.db.read(lambda tx: tx.scalar(status))

    with instead(cloud, other(host_of(admin, server)), lambda link: Noting(link, look)) as way:
        assert member.action(server, {action: None}).status in (202, 204)
        admin.wait_for_status(server, "ACTIVE")
        cloud.idle()
    assert {seen for message, seen in way.sent if isinstance(message, m.Destroy | m.StandDown)} == {meanwhile}
    assert last_migration(admin, server)["status"] == meanwhile.removesuffix("ing") + "ed"


@pytest.mark.parametrize("power", [PowerState.RUNNING, PowerState.SHUTDOWN, PowerState.CRASHED])
def test_confirmed_it_is_what_its_guest_is(
    cloud: TestCloud, admin: Client, member: Client, server: str, larger: str, power: PowerState
) -> None:
    resized(member, server, larger)
    cloud.embedded.db.write(lambda tx: settle_server(tx, server, now_us=1, power_state=power))
    assert member.action(server, {"confirmResize": None}).status == 204
    cloud.idle()
    assert member.server(server)["status"] == ("ACTIVE" if power is PowerState.RUNNING else "SHUTOFF")


# -- confirmed by itself


@pytest.fixture
def impatient() -> Iterator[TestCloud]:
    with cumulet.testing.cloud(resize_confirm_seconds=60) as running:
        yield running


def small(admin: Client) -> str:
    found = admin.compute("GET", "/flavors")["flavors"]
    return next(str(flavor["id"]) for flavor in found if flavor["name"] == "m1.small")


def state_reset(cloud: TestCloud, server: str) -> None:
    assert cloud.persona("admin").action(server, {"os-resetState": {"state": "active"}}).status == 202


@pytest.mark.parametrize("state", ["active", "error"])
@pytest.mark.parametrize(("answer", "code"), [("confirmResize", 204), ("revertResize", 202)])
def test_one_whose_state_was_reset_is_answered_all_the_same(
    cloud: TestCloud, admin: Client, member: Client, state: str, answer: str, code: int
) -> None:
    """Else what it keeps would be kept until it is deleted, and it could never move."""
    server = create_pair(member)[0]
    source = host_of(admin, server)
    resized(member, server, small(admin))
    assert admin.action(server, {"os-resetState": {"state": state}}).status == 202
    if state == "active":
        refused = member.action(server, {"shelve": None})
        assert (refused.status, "confirm or revert its resize first" in refused.text) == (409, True), refused.text
    assert member.action(server, {answer: None}).status == code
    cloud.idle()
    assert admin.server(server)["status"] == "ACTIVE"
    assert (host_of(admin, server) == source) == (answer == "revertResize")
    assert sum(server in cloud.guests(host) for host in cloud.hosts) == 1
    cloud.reconcile()
    move = {"os-migrateLive": {"host": None, "block_migration": "auto"}}
    assert admin.action(server, move).status == 202
    admin.wait_for_status(server, "ACTIVE")


def something_to_do(cloud: TestCloud, server: str) -> None:
    def note(tx: Tx) -> None:
        settle_server(tx, server, now_us=1, task_state="deleting")

    cloud.embedded.db.write(note)


def test_nobody_confirms_what_its_user_could_not(impatient: TestCloud) -> None:
    """Nor while something else is done with it. What nothing stands in the way of is confirmed in its user's name."""
    admin, member = impatient.persona("admin"), impatient.persona("member")
    reset, busy = create_pair(member)
    free, _ = create_pair(member)
    for server in (reset, busy, free):
        resized(member, server, small(admin))
    state_reset(impatient, reset)
    something_to_do(impatient, busy)
    look_later(impatient, 61.0)
    impatient.idle()
    statuses = [last_migration(admin, server)["status"] for server in (reset, busy, free)]
    assert statuses == ["finished", "finished", "confirmed"]
    assert action_of(admin, free, "confirmResize")["user_id"] == member.user_id
    found = admin.compute("GET", "/cumulet/findings")["findings"]
    noted = [(one["host"], one["server_id"]) for one in found if one["finding"] == "resize-unconfirmed"]
    assert noted == [(last_migration(admin, free)["source_compute"], free)]


def test_it_is_not_confirmed_while_the_host_it_came_from_is_down(impatient: TestCloud) -> None:
    admin, member = impatient.persona("admin"), impatient.persona("member")
    server = create_pair(member)[0]
    resized(member, server, small(admin))
    source = last_migration(admin, server)["source_compute"]
    force_down(admin, source)
    look_later(impatient, 61.0)
    impatient.idle()
    assert last_migration(admin, server)["status"] == "finished"
    force_down(admin, source, down=False)
    look_later(impatient, 1.0)
    admin.wait_for_status(server, "ACTIVE")
    assert last_migration(admin, server)["status"] == "confirmed"
