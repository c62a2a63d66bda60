"""A server gets a new disk: what it keeps, what is changed on the way, what is refused."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest

from cumulet.compute import drift, operations
from cumulet.db.engine import Tx
from cumulet.errors import Conflict
from cumulet.host import messages as m
from cumulet.host.driver import GuestState
from cumulet.host.looking import Look
from cumulet.testing import Client, JsonObject, TestCloud
from tests.links import Way, instead

from .servers import and_then_the_image_goes, create_pair, event_details, host_of, leftovers
from .test_create_image import made
from .test_evacuation import force_down


@pytest.fixture
def server(cloud: TestCloud, member: Client) -> str:
    return create_pair(member, networks="auto")[0]


def image_of(client: Client, server: str) -> str:
    image: str = client.server(server)["image"]["id"]
    return image


def test_it_keeps_host_and_ports_and_runs_from_the_new_image(
    cloud: TestCloud, admin: Client, member: Client, server: str
) -> None:
    host, before = host_of(admin, server), member.server(server)
    image = made(member, server)["id"]
    answer = member.action(server, {"rebuild": {"imageRef": image, "name": "new", "metadata": {"a": "b"}}})
    assert answer.status == 202, answer.text
    assert answer["server"]["status"] == "REBUILD"
    assert answer["server"]["adminPass"]
    assert answer.headers["location"].endswith(f"/servers/{server}")
    member.wait_for_status(server, "ACTIVE")
    after = member.server(server)
    assert (after["name"], after["metadata"], after["image"]["id"]) == ("new", {"a": "b"}, image)
    assert after["addresses"] == before["addresses"]
    assert leftovers(cloud, admin, server) == {
        "guests": {host: GuestState.RUNNING},
        "allocated": [host],
        "bound": [host],
    }
    assert cloud.embedded.world is not None
    guest = cloud.embedded.world.drivers[host]._guests[server].guest
    assert guest.image is not None
    assert guest.image.id == image


def test_one_that_was_stopped_stays_so(member: Client, server: str) -> None:
    assert member.action(server, {"os-stop": None}).status == 202
    member.wait_for_status(server, "SHUTOFF")
    assert member.action(server, {"rebuild": {"imageRef": image_of(member, server)}}).status == 202
    member.wait_for_status(server, "SHUTOFF")


def test_what_else_can_be_changed_depends_on_the_microversion(member: Client, server: str) -> None:
    image = image_of(member, server)
    member.compute("POST", "/os-keypairs", {"keypair": {"name": "k", "type": "ssh"}}, version="2.91")
    for version, more in (
        ("2.18", {"description": "x"}),
        ("2.53", {"key_name": None}),
        ("2.56", {"user_data": None}),
        ("2.57", {"personality": []}),
        ("2.62", {"trusted_image_certificates": None}),
        ("2.89", {"hostname": "name"}),
        ("2.93", {"hostname": "full.name"}),
    ):
        answer = member.action(server, {"rebuild": {"imageRef": image, **more}}, version=version)
        assert answer.status == 400, (version, answer.text)
    answer = member.action(
        server,
        {"rebuild": {"imageRef": image, "description": "d", "user_data": "eA==", "hostname": "full.name"}},
        version="2.94",
    )
    assert answer.status == 202, answer.text
    assert answer["server"]["user_data"] == "eA=="
    member.wait_for_status(server, "ACTIVE")
    assert member.server(server)["description"] == "d"


@pytest.mark.parametrize(
    ("more", "status", "words"),
    [
        ({"imageRef": "00000000-0000-4000-8000-000000000000"}, 400, "Cannot find image for rebuild"),
        ({"key_name": "none"}, 400, "Invalid key_name provided."),
        ({"preserve_ephemeral": True}, 400, "does not support preserving ephemeral partitions"),
        ({"trusted_image_certificates": ["x"]}, 501, "certificates"),
        ({"metadata": {str(n): "" for n in range(129)}}, 403, "Maximum number of metadata items exceeds 128"),
    ],
)
def test_what_cannot_be_had_changes_nothing(
    member: Client, server: str, more: JsonObject, status: int, words: str
) -> None:
    before = member.server(server)
    answer = member.action(server, {"rebuild": {"imageRef": before["image"]["id"], "name": "new"} | more})
    assert (answer.status, words in answer.text) == (status, True), answer.text
    assert member.server(server) == before


def test_one_that_fails_is_in_error_and_can_be_rebuilt_again(
    cloud: TestCloud, member: Client, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = image_of(member, server)

    async def fails(self: m.Create, host: m.OnHost) -> None:
        raise m.VerbFailed("planted")

    with monkeypatch.context() as planted:
        planted.setattr(m.Create, "do", fails)
        assert member.action(server, {"rebuild": {"imageRef": image}}).status == 202
        member.wait_for_status(server, "ERROR")
    assert member.server(server)["fault"]["message"] == "The server could not be rebuilt, and its old disk is gone."
    cloud.reconcile()
    assert member.server(server)["status"] == "ERROR"
    assert member.action(server, {"rebuild": {"imageRef": image}}).status == 202
    member.wait_for_status(server, "ACTIVE")


def test_one_whose_new_image_goes_meanwhile_is_as_it_was(
    cloud: TestCloud, admin: Client, member: Client, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its disk is all that there is of it, and is not given up for one that cannot be made."""
    host, old, new = host_of(admin, server), image_of(member, server), made(member, server)["id"]
    assert cloud.embedded.world is not None
    guest = cloud.embedded.world.drivers[host]._guests[server]
    with monkeypatch.context() as planted:
        planted.setattr(operations, "begin", and_then_the_image_goes(new))
        assert member.action(server, {"rebuild": {"imageRef": new}}).status == 202
        cloud.idle()
    assert "IMAGE_GONE: " in event_details(admin, server, "rebuild")
    assert (member.server(server)["status"], image_of(member, server)) == ("ACTIVE", old)
    assert cloud.embedded.world.drivers[host]._guests[server] is guest


def test_what_a_host_says_late_of_a_failed_rebuild_counts_no_more(
    cloud: TestCloud, admin: Client, member: Client, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host is asked for its last word; until it has answered, the server is rebuilt once more."""
    host, image = host_of(admin, server), image_of(member, server)

    async def unreachable(self: object, host: m.OnHost) -> None:
        raise m.HostUnreachable("planted")

    with monkeypatch.context() as planted:
        for verb in (m.Create, m.Observe, Look, m.Destroy):
            planted.setattr(verb, "do", unreachable)
        force_down(admin, host)
        assert member.action(server, {"rebuild": {"imageRef": image}}).status == 202
        member.wait_for_status(server, "ERROR")
    refused: list[str] = []

    def meanwhile(tx: Tx, correction: drift.Correction, seen: GuestState, now_us: int) -> bool:
        before = msgspec.structs.replace(correction, generation=correction.generation - 1)
        try:
            return recorded(tx, before, seen, now_us)
        except Conflict as error:
            refused.append(str(error))
            raise

    recorded = drift.record_found
    with monkeypatch.context() as planted:
        planted.setattr(drift, "record_found", meanwhile)
        force_down(admin, host, down=False)
        cloud.reconcile()
    assert refused
    assert member.server(server)["status"] == "ERROR"
    cloud.reconcile()
    assert member.server(server)["status"] == "ACTIVE"


@pytest.mark.parametrize("lost", ["destroy_guest", "make_guest"])
def test_one_whose_host_goes_down_says_what_its_guest_there_can_only_be_made_from(
    cloud: TestCloud, admin: Client, member: Client, server: str, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    """Until its old guest is seen to go, that is the old image; afterwards it is the new one."""
    host, old = host_of(admin, server), image_of(member, server)
    new = made(member, server)["id"]

    async def unreachable(self: object, host: m.OnHost) -> None:
        raise m.HostUnreachable("planted")

    with monkeypatch.context() as planted:
        for verb in (m.Create, m.Observe, Look, *([m.Destroy] if lost == "destroy_guest" else [])):
            planted.setattr(verb, "do", unreachable)
        force_down(admin, host)
        assert member.action(server, {"rebuild": {"imageRef": new}}).status == 202
        member.wait_for_status(server, "ERROR")
    kept = lost == "destroy_guest"
    assert image_of(member, server) == (old if kept else new)
    force_down(admin, host, down=False)
    cloud.reconcile()
    assert member.server(server)["status"] == ("ACTIVE" if kept else "ERROR")
    assert image_of(member, server) == (old if kept else new)


class Unheard(Way):
    """The new guest is made, and nobody hears of it, or of anything after it."""

    made: bool = False

    async def send(self, message: m.Message[object]) -> object:
        answer = None if self.made else await super().send(message)
        if not self.made and not isinstance(message, m.Create):
            return answer
        self.made = True
        raise m.HostUnreachable("planted")


def test_a_new_guest_that_nobody_has_heard_of_is_removed(
    cloud: TestCloud, admin: Client, member: Client, server: str
) -> None:
    """The record cannot say what it is: its description, which moves would take along, is the old guest's."""
    host, image = host_of(admin, server), image_of(member, server)
    with instead(cloud, host, Unheard):
        force_down(admin, host)
        assert member.action(server, {"rebuild": {"imageRef": image, "name": "new"}}).status == 202
        member.wait_for_status(server, "ERROR")
        assert cloud.embedded.world is not None
        assert cloud.embedded.world.drivers[host]._guests[server].guest.name == "new"
    force_down(admin, host, down=False)
    cloud.reconcile()
    assert leftovers(cloud, admin, server)["guests"] == {}
    assert member.server(server)["status"] == "ERROR"
    assert member.action(server, {"rebuild": {"imageRef": image}}).status == 202
    member.wait_for_status(server, "ACTIVE")


@pytest.fixture
def half(cloud: TestCloud, admin: Client, member: Client, server: str) -> Iterator[str]:
    """A server in ERROR whose host is down, with a new guest that nobody has heard of."""
    host = host_of(admin, server)
    with instead(cloud, host, Unheard):
        force_down(admin, host)
        assert member.action(server, {"rebuild": {"imageRef": image_of(member, server)}}).status == 202
        member.wait_for_status(server, "ERROR")
        yield server
    assert cloud.guests(host)[server] is GuestState.RUNNING
    force_down(admin, host, down=False)
    cloud.reconcile()
    assert leftovers(cloud, admin, server)["guests"] == {}
    assert member.server(server)["status"] == "ERROR"
    assert member.action(server, {"rebuild": {"imageRef": image_of(member, server)}}).status == 202
    member.wait_for_status(server, "ACTIVE")
    assert "fault" not in member.server(server)


GONE = "The server could not be rebuilt, and its old disk is gone."


def test_such_a_guest_is_removed_also_if_its_user_tries_again_meanwhile(
    cloud: TestCloud, member: Client, half: str
) -> None:
    """Of the second rebuild nobody knows how far it came; what is there was made by half in any case."""
    assert member.action(half, {"rebuild": {"imageRef": image_of(member, half)}}).status == 202
    cloud.idle()
    shown = member.server(half)
    assert (shown["status"], shown["fault"]["message"]) == ("ERROR", GONE)


@pytest.mark.parametrize(
    "asked", [{"os-stop": None}, {"reboot": {"type": "HARD"}}, {"rescue": None}, {"trigger_crash_dump": None}]
)
def test_nothing_is_done_with_such_a_guest(member: Client, half: str, asked: JsonObject) -> None:
    answer = member.action(half, asked)
    assert (answer.status, "while it is in vm_state error" in answer.text) == (409, True), answer.text


def test_nobody_says_that_a_server_with_such_a_guest_is_active(admin: Client, member: Client, half: str) -> None:
    answer = admin.action(half, {"os-resetState": {"state": "active"}})
    assert (answer.status, GONE in answer.text) == (409, True), answer.text
    assert admin.action(half, {"os-resetState": {"state": "error"}}).status == 202
    assert member.server(half)["fault"]["message"] == GONE


class Late(Way):
    """The first time that a guest is to be destroyed, the message is on its way for longer than anybody waits."""

    on_its_way: m.Destroy | None = None

    async def send(self, message: m.Message[object]) -> object:
        if isinstance(message, m.Destroy) and self.on_its_way is None:
            self.on_its_way = message
            raise m.HostUnreachable("planted")
        return await super().send(message)


def test_a_guest_that_was_kept_is_not_destroyed_by_what_comes_late(
    cloud: TestCloud, admin: Client, member: Client, server: str
) -> None:
    """The rebuild has failed before its host heard of it, and says that the guest is as it was: so it stays."""
    host = host_of(admin, server)
    with instead(cloud, host, Late) as way:
        assert member.action(server, {"rebuild": {"imageRef": image_of(member, server)}}).status == 202
        member.wait("its end", lambda: member.server(server)["OS-EXT-STS:task_state"] is None)
        assert way.on_its_way is not None
        with pytest.raises(m.StaleGeneration):
            cloud.await_(cloud.embedded.hosts.send(host, way.on_its_way))
    cloud.reconcile()
    assert member.server(server)["status"] == "ACTIVE"


class Lost(Late):
    """As `Late`, and nothing else arrives either, from then on."""

    async def send(self, message: m.Message[object]) -> object:
        if isinstance(message, m.ApplyWiring) and self.on_its_way is None:
            return await super().send(message)
        if isinstance(message, m.Destroy):
            self.on_its_way = message
        raise m.HostUnreachable("planted")


@pytest.fixture
def lost(cloud: TestCloud, admin: Client, member: Client, server: str) -> m.Destroy:
    """A rebuild has failed because its host was down. The host is back, and a late message is still on its way."""
    host = host_of(admin, server)
    with instead(cloud, host, Lost) as way:
        force_down(admin, host)
        assert member.action(server, {"rebuild": {"imageRef": image_of(member, server)}}).status == 202
        member.wait_for_status(server, "ERROR")
    force_down(admin, host, down=False)
    assert way.on_its_way is not None
    return way.on_its_way


def test_a_guest_that_is_found_again_is_not_destroyed_by_what_comes_late(
    cloud: TestCloud, admin: Client, member: Client, server: str, lost: m.Destroy
) -> None:
    """While its host was down, nobody could tell it that the rebuild is over."""
    cloud.reconcile()
    assert member.server(server)["status"] == "ACTIVE"
    with pytest.raises(m.StaleGeneration):
        cloud.await_(cloud.embedded.hosts.send(host_of(admin, server), lost))
    cloud.reconcile()
    assert member.server(server)["status"] == "ACTIVE"


class Overtaken(Way):
    """As `Late`, but the late message arrives just before the host looks."""

    late: m.Destroy

    async def send(self, message: m.Message[object]) -> object:
        if isinstance(message, Look):
            await super().send(self.late)
        return await super().send(message)


def test_a_guest_that_goes_just_when_it_is_found_again_is_not_recorded(
    cloud: TestCloud, admin: Client, member: Client, server: str, lost: m.Destroy
) -> None:
    with instead(cloud, host_of(admin, server), Overtaken) as way:
        way.late = lost
        cloud.reconcile()
    assert member.server(server)["status"] == "ERROR"
    findings = admin.compute("GET", "/cumulet/findings")["findings"]
    assert "left alone: its guest has gone" in [one["done"] for one in findings if one["server_id"] == server]
