"""What needs an agent in the guest: a new password, and rest while an image is made. The guest's image says so."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib

import msgspec
import pytest

from cumulet.compute import guest_agent
from cumulet.fleet import hosts
from cumulet.host import guest_agent_messages
from cumulet.host import messages as m
from cumulet.host.driver import DriverError
from cumulet.testing import Client, TestCloud
from tests.links import Way, instead

from .servers import create_pair, event_details, host_of, image_and_flavor, last_migration, other
from .test_create_image import made
from .test_further_disks import on_host


def say(admin: Client, **properties: str) -> None:
    """Give the image that servers are made from these properties."""
    image = image_and_flavor(admin)["imageRef"]
    patch = [{"op": "add", "path": f"/{key}", "value": value} for key, value in properties.items()]
    headers = {"content-type": "application/openstack-images-v2.1-json-patch"}
    answer = admin.request("PATCH", f"/image/v2/images/{image}", patch, headers=headers)
    assert answer.status == 200, answer.text


@pytest.fixture
def server(cloud: TestCloud, admin: Client, member: Client) -> str:
    say(admin, hw_qemu_guest_agent="yes", os_require_quiesce="yes")
    return create_pair(member)[0]


def change(client: Client, server: str, word: str = "its-new-word") -> object:
    return client.action(server, {"changePassword": {"adminPass": word}}).status


def test_the_agent_in_the_guest_sets_it(cloud: TestCloud, admin: Client, member: Client, server: str) -> None:
    assert change(member, server) == 202
    assert on_host(cloud, server).passwords == {"root": hashlib.sha256(b"its-new-word").hexdigest()}
    action = member.compute("GET", f"/servers/{server}/os-instance-actions")["instanceActions"][0]
    assert (action["action"], action["message"]) == ("changePassword", None)
    path = f"/servers/{server}/os-instance-actions/{action['request_id']}"
    (event,) = admin.compute("GET", path)["instanceAction"]["events"]
    assert (event["event"], event["result"]) == ("compute_set_admin_password", "Success")


class Older(Way):
    """An agent that knows nothing of guests' agents."""

    async def send(self, message: m.Message[object]) -> object:
        if isinstance(message, m.Create) and message.guest.agent:
            raise m.HostError("not understood: Object contains unknown field `agent`")
        answer = await super().send(message)
        if isinstance(message, m.AskFacts):
            features = tuple(one for one in answer.features if one != guest_agent.FEATURE)
            return msgspec.structs.replace(answer, features=features)
        return answer


def test_a_host_of_the_version_before_boots_such_a_guest_without_a_channel_to_its_agent(
    cloud: TestCloud, admin: Client, member: Client
) -> None:
    say(admin, hw_qemu_guest_agent="yes")
    with contextlib.ExitStack() as stack:
        for name in cloud.hosts:
            stack.enter_context(instead(cloud, name, Older))
        cloud.reconcile()
        booted = create_pair(member)[0]
    assert not on_host(cloud, booted).guest.agent


def test_a_guest_with_such_a_channel_does_not_move_to_a_host_of_the_version_before(
    cloud: TestCloud, admin: Client, server: str
) -> None:
    source = host_of(admin, server)
    destination = other(source)
    with instead(cloud, destination, Older):
        cloud.reconcile()
        live = {"os-migrateLive": {"host": destination, "block_migration": "auto"}}
        old = admin.action(server, live, version="2.30")
        assert (old.status, "No valid host was found" in old.text) == (400, True)
        assert admin.action(server, live).status == 202
        admin.wait("its end", lambda: last_migration(admin, server)["status"] == "error")
        assert f"{destination}: GUEST_AGENT_NOT_OFFERED" in event_details(admin, server)
        assert admin.action(server, {"migrate": None}).status == 202
        admin.wait(
            "its end", lambda: f"{destination}: GUEST_AGENT_NOT_OFFERED" in event_details(admin, server, "migrate")
        )
        assert host_of(admin, server) == source
        without = next(one for one in create_pair(admin) if host_of(admin, one) == destination)
        assert not on_host(cloud, without).guest.agent
    cloud.reconcile()
    assert admin.action(server, {"os-migrateLive": {"host": destination, "block_migration": "auto"}}).status == 202
    admin.wait("its move", lambda: host_of(admin, server) == destination)


class Slow(Way):
    """The agent in the guest takes longer than a question may."""

    async def send(self, message: m.Message[object]) -> object:
        if isinstance(message, guest_agent_messages.SetPassword):
            for _ in range(5):
                await asyncio.sleep(0)
        return await super().send(message)


def test_an_agent_that_takes_its_time_has_set_it(
    cloud: TestCloud, admin: Client, member: Client, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with instead(cloud, host_of(admin, server), Slow), monkeypatch.context() as patched:
        patched.setattr(hosts, "QUESTION_SECONDS", 1e-9)
        assert change(member, server) == 202


def test_the_image_says_whose_it_is(cloud: TestCloud, admin: Client, member: Client) -> None:
    say(admin, hw_qemu_guest_agent="true", os_type="windows")
    first = create_pair(member)[0]
    assert change(member, first) == 202
    say(admin, os_admin_user="core")
    second = create_pair(member)[0]
    assert change(member, second) == 202
    assert [set(on_host(cloud, server).passwords) for server in (first, second)] == [{"Administrator"}, {"core"}]


def test_without_an_agent_it_is_refused(member: Client) -> None:
    server = create_pair(member)[0]
    answer = member.action(server, {"changePassword": {"adminPass": "x"}})
    assert (answer.status, "QEMU guest agent is not enabled" in answer.text) == (409, True)


def test_an_agent_that_does_not_do_it_is_told_of_without_its_words(
    admin: Client, member: Client, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuses(self: guest_agent_messages.SetPassword, host: m.OnHost) -> None:
        raise DriverError("AGENT_REFUSED: guest-set-user-password: words of the guest's")

    monkeypatch.setattr(guest_agent_messages.SetPassword, "do", refuses)
    answer = member.action(server, {"changePassword": {"adminPass": "secret-word"}})
    assert answer.status == 409
    assert f"Failed to set admin password on {server} because error setting admin password" in answer.text
    assert "words of the guest's" not in answer.text
    action = member.compute("GET", f"/servers/{server}/os-instance-actions")["instanceActions"][0]
    assert (action["action"], action["message"]) == ("changePassword", "Error")


def test_nothing_shows_the_password(member: Client, server: str) -> None:
    told = guest_agent_messages.SetPassword(server_id=server, user="root", password="secret-word")
    assert "secret-word" not in repr(told)


def test_a_guest_rests_for_an_image_of_it(cloud: TestCloud, member: Client, server: str) -> None:
    assert made(member, server)["status"] == "active"
    assert on_host(cloud, server).freezes == 1
    assert member.action(server, {"os-stop": None}).status == 202
    member.wait_for_status(server, "SHUTOFF")
    assert made(member, server)["status"] == "active"
    assert on_host(cloud, server).freezes == 1, "a guest that does not run is at rest anyway"


def test_one_that_has_to_rest_and_has_no_agent_gives_no_image(cloud: TestCloud, admin: Client, member: Client) -> None:
    say(admin, os_require_quiesce="yes")
    server = create_pair(member)[0]
    assert member.action(server, {"createImage": {"name": "i"}}).status == 202
    cloud.idle()
    assert member.request("GET", "/image/v2/images?name=i")["images"] == []
    assert member.server(server)["status"] == "ACTIVE"
