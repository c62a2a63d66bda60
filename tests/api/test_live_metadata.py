"""What changes by the API is told by the metadata service of the server's host, while its guest runs."""

from __future__ import annotations

import json

import msgspec
import pytest

from cumulet.compute.server_password import record_posted
from cumulet.compute.telling import SECONDS_BETWEEN_TWO, SECONDS_UNTIL_RETRY, Tellings
from cumulet.compute.untold import untold
from cumulet.drivers.simulated.driver import SimulatedDriver
from cumulet.host import messages as m
from cumulet.host.driver import HostFacts
from cumulet.host.telling import EC2, LIVE_METADATA
from cumulet.host.telling_messages import TellMetadata
from cumulet.testing import Client, JsonObject, TestCloud
from tests.links import Way, instead, silent

from .servers import host_of
from .test_compute_servers import create
from .test_guest_metadata import drive_of, moved, served


def meta(cloud: TestCloud, server_id: str) -> JsonObject:
    found: JsonObject = json.loads(served(cloud, server_id)["meta_data.json"])
    return found


def ec2(cloud: TestCloud, server_id: str) -> JsonObject:
    found: JsonObject = json.loads(served(cloud, server_id)[EC2])
    return found


def told(cloud: TestCloud, client: Client) -> None:
    """Wait until no guest is to be told anything."""
    cloud.clock.advance(SECONDS_BETWEEN_TWO)
    cloud.await_(cloud.embedded.conductor.reconciler(Tellings).round())
    client.wait("the guests that are not told", lambda: notes(cloud) == [])


def notes(cloud: TestCloud) -> list[str]:
    return [row.server_id for row in cloud.embedded.db.read(lambda tx: tx.all(untold.select()))]


def driver_of(cloud: TestCloud, admin: Client, server_id: str) -> SimulatedDriver:
    world = cloud.embedded.world
    assert world is not None
    return world.drivers[host_of(admin, server_id)]


class Counting(Way):
    """Counts the tellings; `lost`: they do not arrive."""

    told = 0
    lost = False

    async def send(self, message: m.Message[object]) -> object:
        if isinstance(message, TellMetadata):
            self.told += 1
            if self.lost:
                raise m.HostUnreachable("a test has lost it")
        return await super().send(message)


def test_name_host_name_and_items_are_told_while_the_guest_runs_and_the_drive_stays(
    cloud: TestCloud, admin: Client, member: Client
) -> None:
    server = create(member, config_drive=True, metadata={"colour": "blue"})["id"]
    drive, first = drive_of(cloud, server), meta(cloud, server)
    wanted = {"name": "Renamed", "hostname": "renamed"}
    assert member.compute("PUT", f"/servers/{server}", {"server": wanted}, version="2.90").status == 200
    told(cloud, member)
    now = meta(cloud, server)
    domain = first["hostname"].partition(".")[2]
    assert now == first | {"name": "Renamed", "hostname": f"renamed.{domain}" if domain else "renamed"}
    assert ec2(cloud, server)["local-hostname"] == now["hostname"]
    path = f"/servers/{server}/metadata"
    for method, where, body, items in (
        ("POST", path, {"metadata": {"size": "big"}}, {"colour": "blue", "size": "big"}),
        ("PUT", f"{path}/colour", {"meta": {"colour": "red"}}, {"colour": "red", "size": "big"}),
        ("DELETE", f"{path}/size", None, {"colour": "red"}),
        ("PUT", path, {"metadata": {"other": "one"}}, {"other": "one"}),
    ):
        assert member.compute(method, where, body).status in (200, 204)
        told(cloud, member)
        assert meta(cloud, server)["meta"] == items
    assert drive_of(cloud, server) == drive
    moved(cloud, admin, server)
    told(cloud, member)
    assert meta(cloud, server) == now | {"meta": {"other": "one"}}, "where it has moved to"
    assert drive_of(cloud, server) == drive


@pytest.mark.parametrize("wanted", [{"name": "Renamed"}, {"hostname": "renamed"}])
def test_each_change_by_itself_is_told(cloud: TestCloud, member: Client, wanted: dict[str, str]) -> None:
    server = create(member)["id"]
    assert member.compute("PUT", f"/servers/{server}", {"server": wanted}, version="2.90").status == 200
    told(cloud, member)
    (name, value), now = *wanted.items(), meta(cloud, server)
    assert str(now[name]).partition(".")[0] == value


def test_a_host_that_was_down_is_told_when_it_is_back(cloud: TestCloud, admin: Client, member: Client) -> None:
    server = create(member)["id"]
    with silent(cloud, host_of(admin, server)):
        cloud.clock.advance(2 * cloud.embedded.settings.host_silent_seconds)
        cloud.reconcile()
        member.compute("PUT", f"/servers/{server}", {"server": {"name": "meanwhile"}})
        cloud.await_(cloud.embedded.conductor.reconciler(Tellings).round())
        assert notes(cloud) == [server]
    cloud.reconcile()
    told(cloud, member)
    assert meta(cloud, server)["name"] == "meanwhile"


def test_what_is_lost_is_told_again_and_where_nothing_changes_nobody_is_told(
    cloud: TestCloud, admin: Client, member: Client
) -> None:
    server = create(member)["id"]
    with instead(cloud, host_of(admin, server), Counting) as way:
        cloud.reconcile()
        cloud.await_(cloud.embedded.conductor.reconciler(Tellings).round())
        assert member.compute("PUT", f"/servers/{server}", {"server": {"description": "x"}}).status == 200
        assert member.compute("PUT", f"/servers/{server}/tags", {"tags": ["a"]}, version="2.26").status == 200
        cloud.await_(cloud.embedded.conductor.reconciler(Tellings).round())
        assert (way.told, notes(cloud)) == (0, [])
        way.lost = True
        member.compute("PUT", f"/servers/{server}", {"server": {"name": "twice"}})
        member.wait("the first telling", lambda: way.told == 1)
        way.lost = False
        cloud.clock.advance(SECONDS_UNTIL_RETRY)
        told(cloud, member)
        assert (way.told, meta(cloud, server)["name"]) == (2, "twice")


def test_who_changes_a_server_all_the_time_keeps_its_host_no_busier_than_once_a_second(
    cloud: TestCloud, admin: Client, member: Client
) -> None:
    server = create(member)["id"]
    told(cloud, member)
    with instead(cloud, host_of(admin, server), Counting) as way:
        cloud.reconcile()
        begun = cloud.clock.monotonic()
        for number in range(40):
            assert member.compute("PUT", f"/servers/{server}", {"server": {"name": f"name{number}"}}).status == 200
        told(cloud, member)
        told(cloud, member)
        passed = cloud.clock.monotonic() - begun
        assert 1 <= way.told <= 1 + passed, f"{way.told} times in {passed:.1f} s"
    assert meta(cloud, server)["name"] == "name39"


class Older(Counting):
    """An agent of the version before."""

    async def send(self, message: m.Message[object]) -> object:
        answer = await super().send(message)
        if isinstance(answer, HostFacts):
            return msgspec.structs.replace(answer, features=tuple({*answer.features} - {LIVE_METADATA}))
        return answer


def test_an_agent_of_the_version_before_is_left_alone_until_it_is_a_newer_one(
    cloud: TestCloud, admin: Client, member: Client
) -> None:
    server = create(member)["id"]
    host, name = host_of(admin, server), meta(cloud, server)["name"]
    with instead(cloud, host, Older) as way:
        cloud.reconcile()
        member.compute("PUT", f"/servers/{server}", {"server": {"name": "unheard of"}})
        told(cloud, member)
        assert (way.told, meta(cloud, server)["name"]) == (0, name)
    cloud.reconcile()
    told(cloud, member)
    assert meta(cloud, server)["name"] == "unheard of"


def test_a_clock_that_was_set_back_keeps_nothing_from_being_told(
    cloud: TestCloud, admin: Client, member: Client
) -> None:
    server = create(member)["id"]
    member.compute("PUT", f"/servers/{server}", {"server": {"name": "before"}})
    told(cloud, member)
    driver = driver_of(cloud, admin, server)
    known = driver._guests[server].told
    assert known is not None
    driver._guests[server].told = msgspec.structs.replace(known, revision=known.revision * 2)
    member.compute("PUT", f"/servers/{server}", {"server": {"name": "after"}})
    told(cloud, member)
    assert meta(cloud, server)["name"] == "after"


def test_what_changes_during_a_rebuild_is_told_by_the_new_guest(
    cloud: TestCloud, admin: Client, member: Client
) -> None:
    server = create(member, metadata={"colour": "blue"})["id"]
    image = member.request("GET", "/image/v2/images?name=cumulet-tiny")["images"][0]["id"]
    assert member.action(server, {"rebuild": {"imageRef": image}}).status == 202
    member.compute("PUT", f"/servers/{server}", {"server": {"name": "while-it-is-rebuilt"}})
    cloud.idle()
    told(cloud, member)
    assert meta(cloud, server)["name"] == "while-it-is-rebuilt"


def password(client: Client, server: str) -> str:
    found: str = client.compute("GET", f"/servers/{server}/os-server-password")["password"]
    return found


def test_a_password_that_the_guest_posts_is_shown_until_it_is_cleared(
    cloud: TestCloud, admin: Client, member: Client
) -> None:
    server = create(member)["id"]
    assert password(member, server) == ""
    assert driver_of(cloud, admin, server).post_password(server, "c2VjcmV0")
    cloud.reconcile()
    member.wait("the password", lambda: password(member, server) == "c2VjcmV0")
    told(cloud, member)
    assert driver_of(cloud, admin, server)._guests[server].posted is None
    assert not driver_of(cloud, admin, server).post_password(server, "another")
    moved(cloud, admin, server)
    told(cloud, member)
    assert not driver_of(cloud, admin, server).post_password(server, "another"), "where it has moved to"
    assert member.compute("DELETE", f"/servers/{server}/os-server-password").status == 204
    told(cloud, member)
    cloud.reconcile()
    assert password(member, server) == ""
    assert driver_of(cloud, admin, server).post_password(server, "another")
    cloud.reconcile()
    member.wait("the next password", lambda: password(member, server) == "another")


def test_a_password_that_was_cleared_before_its_host_heard_of_it_stays_cleared(
    cloud: TestCloud, admin: Client, member: Client
) -> None:
    server = create(member)["id"]
    guest = driver_of(cloud, admin, server)._guests[server]
    driver_of(cloud, admin, server).post_password(server, "c2VjcmV0")
    posted = guest.posted
    cloud.reconcile()
    member.wait("the password", lambda: password(member, server) == "c2VjcmV0")
    told(cloud, member)
    assert member.compute("DELETE", f"/servers/{server}/os-server-password").status == 204
    told(cloud, member)
    assert guest.posted is None
    guest.posted = posted  # It has not heard of either.
    cloud.reconcile()
    told(cloud, member)
    assert (password(member, server), guest.posted) == ("", None)
    host = host_of(admin, server)
    assert posted is not None
    late = posted  # The answer to another process of the control plane.
    cloud.embedded.db.write(lambda tx: record_posted(tx, server, host, late, now_us=cloud.clock.now_us()))
    assert password(member, server) == ""


def test_no_host_speaks_for_a_server_of_another(cloud: TestCloud, admin: Client, member: Client) -> None:
    one, two = create(member)["id"], create(member)["id"]
    driver = driver_of(cloud, admin, one)
    if host_of(admin, two) == driver.name:
        moved(cloud, admin, two)
        told(cloud, member)
    driver._guests[two] = msgspec.structs.replace(driver._guests[one], guest=driver._guests[one].guest)
    driver._guests[two].guest = msgspec.structs.replace(driver._guests[two].guest, server_id=two)
    driver.post_password(two, "of a stranger")
    cloud.reconcile()
    told(cloud, member)
    assert password(member, two) == ""
