"""No guest is made, and no port plugged in, on a host that has not said that the rules of the ports are in force."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import msgspec
import pytest

from cumulet.host import messages as m
from cumulet.host.driver import GuestState
from cumulet.host.link import Link
from cumulet.host.wiring import NotDone
from cumulet.testing import Client, TestCloud
from tests.links import Way, instead
from tests.testing.test_reachability import made

from .servers import AUTO, create_pair, event_details, host_of, image_and_flavor, other
from .test_evacuation import force_down
from .test_resize import larger, resized

__all__ = ["larger"]

REASON = "no space for rules"


class Unwired(Way):
    """The way to a host that says that no rules are in force."""

    def __init__(self, link: Link) -> None:
        super().__init__(link)
        self.made: list[str] = []

    async def send(self, message: m.Message[object]) -> object:
        if isinstance(message, m.Create | m.PrepareIncoming | m.Plug):
            self.made.append(m.name_of(type(message)))
        answer = await super().send(message)
        if isinstance(message, m.ApplyWiring):
            left = NotDone(subject="rules", reason=REASON)
            return msgspec.structs.replace(answer, ports=(), not_done=(left,))
        return answer


@pytest.fixture
def network(member: Client) -> str:
    found = made(member, "network", name="n")
    made(member, "subnet", network_id=found, cidr="10.8.0.0/24", ip_version=4)
    return found


@pytest.fixture
def server(member: Client, network: str) -> str:
    return create_pair(member, networks=[{"uuid": network}])[0]


@contextlib.contextmanager
def unwired(cloud: TestCloud, *hosts: str) -> Iterator[list[Unwired]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(instead(cloud, host, Unwired)) for host in hosts]


ELSEWHERE: dict[str, tuple[str, Callable[[str], dict[str, object]]]] = {
    "live": ("live-migration", lambda host: {"os-migrateLive": {"host": host, **AUTO}}),
    "cold": ("migrate", lambda host: {"migrate": {"host": host}}),
    "resize": ("resize", lambda host: {"resize": {"flavorRef": "larger"}}),
    "evacuation": ("evacuate", lambda host: {"evacuate": {"host": host}}),
}


@pytest.mark.parametrize("move", ELSEWHERE)
def test_no_move_brings_a_guest_to_a_host_without_its_rules(
    cloud: TestCloud, admin: Client, server: str, larger: str, move: str
) -> None:
    source, (action, body) = host_of(admin, server), ELSEWHERE[move]
    if move == "evacuation":
        force_down(admin, source)
    with unwired(cloud, other(source)) as ways:
        assert admin.action(server, body(other(source))).status in (200, 202)
        admin.wait("its end", lambda: REASON in event_details(admin, server, action))
        assert [way.made for way in ways] == [[]]
    assert host_of(admin, server) == source


def test_no_server_boots_on_a_host_without_its_rules(
    cloud: TestCloud, admin: Client, member: Client, network: str
) -> None:
    with unwired(cloud, *cloud.hosts) as ways:
        wanted = {"name": "x", "networks": [{"uuid": network}], **image_and_flavor(member)}
        server = member.compute("POST", "/servers", {"server": wanted})["server"]["id"]
        admin.wait_for_status(server, "ERROR")
        assert [way.made for way in ways] == [[], []]
    assert REASON in str(admin.server(server)["fault"])


def test_no_server_is_made_anew_on_a_host_without_its_rules(
    cloud: TestCloud, admin: Client, member: Client, server: str
) -> None:
    """It keeps what it has."""
    host, body = host_of(admin, server), {"rebuild": {"imageRef": image_and_flavor(member)["imageRef"]}}
    with unwired(cloud, host) as ways:
        assert member.action(server, body).status == 202
        admin.wait("its end", lambda: REASON in event_details(admin, server, "rebuild"))
        assert [way.made for way in ways] == [[]]
    member.wait_for_status(server, "ACTIVE")
    assert cloud.guests(host)[server] is GuestState.RUNNING


def test_no_shelved_server_comes_back_on_a_host_without_its_rules(
    cloud: TestCloud, admin: Client, member: Client, server: str
) -> None:
    assert member.action(server, {"shelve": None}).status == 202
    admin.wait_for_status(server, "SHELVED_OFFLOADED")
    with unwired(cloud, *cloud.hosts) as ways:
        assert member.action(server, {"unshelve": None}).status == 202
        admin.wait("its end", lambda: REASON in event_details(admin, server, "unshelve"))
        assert [way.made for way in ways] == [[], []]
    assert admin.server(server)["status"] == "SHELVED_OFFLOADED"


def test_no_port_is_plugged_in_without_its_rules(
    cloud: TestCloud, admin: Client, member: Client, server: str, network: str
) -> None:
    with unwired(cloud, host_of(admin, server)) as ways:
        attach = {"interfaceAttachment": {"net_id": network}}
        assert member.compute("POST", f"/servers/{server}/os-interface", attach).status == 200
        admin.wait("its end", lambda: REASON in event_details(admin, server, "attach_interface"))
        assert [way.made for way in ways] == [[]]
    assert len(member.compute("GET", f"/servers/{server}/os-interface")["interfaceAttachments"]) == 1


class Told(Way):
    """What a host was told of the ports before it was to start a guest."""

    ports: tuple[tuple[str, bool], ...] = ()
    at_start: tuple[tuple[str, bool], ...] | None = None

    async def send(self, message: m.Message[object]) -> object:
        if isinstance(message, m.ApplyWiring):
            self.ports = tuple((port.id, port.active) for port in message.wiring.ports)
        if isinstance(message, m.Start):
            self.at_start = self.ports
        return await super().send(message)


def test_where_it_is_started_again_its_ports_are_its_own_again_by_then(
    cloud: TestCloud, admin: Client, member: Client, server: str, larger: str
) -> None:
    """Its host was told meanwhile that they are elsewhere."""
    source = host_of(admin, server)
    resized(member, server, larger)
    (port,) = member.compute("GET", f"/servers/{server}/os-interface")["interfaceAttachments"]
    with instead(cloud, source, Told) as told:
        assert member.action(server, {"revertResize": None}).status == 202
        admin.wait_for_status(server, "ACTIVE")
    assert told.at_start is not None
    assert (port["port_id"], True) in told.at_start
