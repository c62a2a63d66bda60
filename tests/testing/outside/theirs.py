"""Tests as a builder of OpenStack tools writes them: each kind is run again and again, in turns."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import cumulet.testing
from cumulet.testing import Client, NeutronFixture, OSAPIFixture, TestCloud

Boot = Callable[..., str]
"""Asks for a server and answers its id."""


@pytest.fixture
def boot(member: Client) -> Boot:
    image = member.request("GET", "/image/v2/images?name=cumulet-tiny")["images"][0]["id"]
    flavors = {flavor["name"]: flavor["id"] for flavor in member.compute("GET", "/flavors")["flavors"]}

    def ask(**more: object) -> str:
        wanted = {"name": "one", "imageRef": image, "flavorRef": flavors["m1.nano"], "networks": "none", **more}
        made = member.compute("POST", "/servers", {"server": wanted})
        assert made.status == 202, made
        server_id: str = made["server"]["id"]
        return server_id

    return ask


def move(admin: Client, server_id: str) -> int:
    return admin.action(server_id, {"os-migrateLive": {"host": None, "block_migration": "auto"}}).status


def host_of(admin: Client, server_id: str) -> str:
    host: str = admin.server(server_id)["OS-EXT-SRV-ATTR:host"]
    return host


def test_a_server_moves(member: Client, admin: Client, boot: Boot) -> None:
    server_id = boot()
    member.wait_for_status(server_id, "ACTIVE")
    before = host_of(admin, server_id)
    assert move(admin, server_id) == 202
    admin.wait_for_status(server_id, "ACTIVE")
    assert host_of(admin, server_id) != before


def test_a_move_that_fails_leaves_it_where_it_was(cloud: TestCloud, member: Client, admin: Client, boot: Boot) -> None:
    server_id = boot()
    member.wait_for_status(server_id, "ACTIVE")
    before = host_of(admin, server_id)
    cloud.faults.fail("live-migration", step="copy_memory")
    assert move(admin, server_id) == 202
    cloud.idle()
    assert host_of(admin, server_id) == before
    assert admin.compute("GET", "/os-migrations")["migrations"][0]["status"] == "error"


def test_who_may_not(cloud: TestCloud, member: Client, reader: Client, other_member: Client, boot: Boot) -> None:
    server_id = boot()
    assert reader.action(server_id, {"os-stop": None}).status == 403
    assert other_member.compute("GET", f"/servers/{server_id}").status == 404
    assert move(member, server_id) == 403
    assert cloud.anonymous().compute("GET", "/servers").status == 401


def test_the_sdk_as_it_is(cloud: TestCloud) -> None:
    """Nobody closes this connection, as in the first example that people copy."""
    connection = cloud.connection("demo")
    flavor = connection.compute.find_flavor("m1.nano")
    image = connection.image.find_image("cumulet-tiny")
    assert flavor is not None
    assert image is not None
    server = connection.compute.create_server(name="one", flavor_id=flavor.id, image_id=image.id, networks="none")
    assert connection.compute.wait_for_server(server).status == "ACTIVE"


def test_a_network_and_who_reaches_whom(cloud: TestCloud, member: Client) -> None:
    network = member.request("POST", "/network/v2.0/networks", {"network": {"name": "net"}})["network"]["id"]
    subnet = {"network_id": network, "cidr": "10.7.0.0/24", "ip_version": 4}
    assert member.request("POST", "/network/v2.0/subnets", {"subnet": subnet}).status == 201
    one, two = (
        member.request("POST", "/network/v2.0/ports", {"port": {"network_id": network}})["port"]["id"] for _ in range(2)
    )
    assert not cloud.network.reachable(one, two, "tcp", 22)


def test_left_in_the_middle(admin: Client, member: Client, boot: Boot) -> None:
    """The test ends while servers are made, one moves, and an image is half done."""
    server_id = boot()
    member.wait_for_status(server_id, "ACTIVE")
    move(admin, server_id)
    member.action(server_id, {"createImage": {"name": "copy"}})
    boot(min_count=2, max_count=2)
    image = {"name": "mine", "disk_format": "raw", "container_format": "bare"}
    image_id = member.request("POST", "/image/v2/images", image)["id"]
    headers = {"Content-Type": "application/octet-stream"}
    member.request("PUT", f"/image/v2/images/{image_id}/file", content=b"\1" * 65536, headers=headers)


def test_a_user_of_ones_own_and_late_tokens(cloud: TestCloud) -> None:
    late = cloud.user("late", project="late", roles=("member", "reader"))
    assert late.compute("GET", "/servers").status == 200
    cloud.clock.advance(cloud.embedded.settings.token_life_seconds + 1)
    assert late.compute("GET", "/servers").status == 401


def test_a_host_that_is_closed(cloud: TestCloud, admin: Client, member: Client, boot: Boot) -> None:
    for service in admin.compute("GET", "/os-services?binary=nova-compute")["services"]:
        body = {"status": "disabled"}
        assert admin.compute("PUT", f"/os-services/{service['id']}", body).status == 200
    server_id = boot()
    member.wait_for_status(server_id, "ERROR")
    cloud.reconcile()


def test_tokens_that_end(cloud: TestCloud, member: Client, reader: Client) -> None:
    assert reader.token is not None
    assert reader.request("DELETE", "/identity/v3/auth/tokens", headers={"X-Subject-Token": reader.token}).status == 204
    assert reader.compute("GET", "/servers").status == 401
    assert member.compute("GET", "/servers").status == 200


@pytest.mark.rare
def test_a_cloud_of_ones_own() -> None:
    with cumulet.testing.cloud(hosts=3, simulated_speed=50.0) as own:
        assert own.persona("member").compute("GET", "/servers").status == 200
        own.clock.advance(seconds=3600)
        own.connection("cumulet").compute.find_flavor("m1.nano")


@pytest.mark.rare
def test_in_novas_way() -> None:
    with NeutronFixture() as network, OSAPIFixture() as compute:
        assert compute.api.get_servers() == []
        assert {port["network_id"] for port in network.list_ports()} <= {network.network["id"]}
