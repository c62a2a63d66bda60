"""What a guest is told of itself on its config drive is what the API says of its server."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
import sqlalchemy as sa

from cumulet.compute import hosts as host_records
from cumulet.compute.store import servers
from cumulet.conductor.saga import operations
from cumulet.db.engine import Tx
from cumulet.host.nics import DEVICE_TAGS
from cumulet.host.telling import LIVE_METADATA
from cumulet.testing import Client, TestCloud
from tests.api.test_compute_servers import ask_for, create
from tests.links import silent

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA7XkJlBYhPWTrqB7DyZl4x5x2v2p9LrJ9VxW0y8oVvC one@example"
VERSIONS = {
    "2012-08-10",
    "2013-04-04",
    "2013-10-17",
    "2015-10-15",
    "2016-06-30",
    "2016-10-06",
    "2017-02-22",
    "2018-08-27",
    "2020-10-14",
    "2025-04-04",
    "latest",
}


def drive_of(cloud: TestCloud, server_id: str) -> dict[str, bytes]:
    """The files of the drive that the server's host has made for its guest."""
    host = cloud.persona("admin").server(server_id)["OS-EXT-SRV-ATTR:host"]
    world = cloud.embedded.world
    assert world is not None
    guest = world.drivers[host]._guests[server_id].guest
    return {path: file.content for file in guest.config_drive for path in file.paths}


def told(drive: dict[str, bytes], name: str = "meta_data.json", version: str = "latest") -> Any:
    return json.loads(drive[f"openstack/{version}/{name}"])


def with_key(client: Client) -> str:
    made = client.compute("POST", "/os-keypairs", {"keypair": {"name": "mine", "type": "ssh", "public_key": KEY}})
    assert made.status == 201, made.text
    return "mine"


def test_it_is_told_what_the_api_says(cloud: TestCloud, member: Client) -> None:
    answer = ask_for(
        member,
        config_drive=True,
        key_name=with_key(member),
        metadata={"colour": "blue"},
        adminPass="its-own-word",
        user_data=base64.encodebytes(b"#!/bin/sh\n" + b"x" * 100).decode(),
        min_count=2,
        max_count=2,
        name="pair",
    )
    first = answer["server"]["id"]
    assert answer["server"]["adminPass"] == "its-own-word"
    shown = member.wait_for_status(first, "ACTIVE")
    drive = drive_of(cloud, first)
    meta = told(drive)
    assert meta["uuid"] == first
    assert (meta["name"], meta["hostname"]) == (shown["name"], shown["OS-EXT-SRV-ATTR:hostname"])
    assert meta["meta"] == shown["metadata"]
    assert meta["admin_pass"] == "its-own-word"
    assert meta["public_keys"] == {"mine": KEY}
    assert meta["keys"] == [{"name": "mine", "type": "ssh", "data": KEY}]
    assert meta["launch_index"] == 0
    assert meta["availability_zone"] == shown["OS-EXT-AZ:availability_zone"]
    assert meta["project_id"] == shown["tenant_id"]
    assert (meta["devices"], meta["dedicated_cpus"]) == ([], [])
    assert len(base64.b64decode(meta["random_seed"])) == 512
    assert drive["openstack/latest/user_data"] == drive["ec2/latest/user-data"] == b"#!/bin/sh\n" + b"x" * 100
    assert told(drive, "vendor_data.json") == {}
    assert told(drive, "vendor_data2.json") == {"static": {}}
    ec2 = json.loads(drive["ec2/2009-04-04/meta-data.json"])
    assert ec2["public-keys"]["0"]["openssh-key"] == KEY
    assert ec2["instance-type"] == "m1.nano"
    assert ec2["reservation-id"] == cloud.persona("admin").server(first)["OS-EXT-SRV-ATTR:reservation_id"]


def test_servers_of_one_request_share_a_password_and_no_randomness(cloud: TestCloud, member: Client) -> None:
    reservation = ask_for(member, config_drive=True, min_count=2, return_reservation_id=True)["reservation_id"]
    both = member.compute("GET", f"/servers?reservation_id={reservation}")["servers"]
    drives = []
    for server in both:
        member.wait_for_status(server["id"], "ACTIVE")
        drives.append(told(drive_of(cloud, server["id"])))
    one, other = drives
    assert one["admin_pass"] == other["admin_pass"]
    assert one["random_seed"] != other["random_seed"]
    assert {one["launch_index"], other["launch_index"]} == {0, 1}


def test_every_version_has_what_nova_gives_in_it(cloud: TestCloud, member: Client) -> None:
    server = create(member, config_drive=True)
    drive = drive_of(cloud, server["id"])
    assert {path.split("/")[1] for path in drive if path.startswith("openstack/")} == VERSIONS
    assert {path.split("/")[1] for path in drive if path.startswith("ec2/")} == {"2009-04-04", "latest"}
    assert not [path for path in drive if "user" in path], "none was given"
    assert "random_seed" not in told(drive, version="2012-08-10")
    assert "project_id" not in told(drive, version="2013-10-17")
    assert "openstack/2013-04-04/vendor_data.json" not in drive
    assert "openstack/2013-10-17/network_data.json" not in drive
    assert "openstack/2016-06-30/vendor_data2.json" not in drive
    assert "dedicated_cpus" not in told(drive, version="2018-08-27")
    assert "meta" not in told(drive)
    assert "public_keys" not in told(drive)


@pytest.mark.parametrize("dhcp", [True, False])
def test_it_is_told_its_network(cloud: TestCloud, member: Client, dhcp: bool) -> None:
    network = member.request("POST", "/network/v2.0/networks", {"network": {"name": "inside"}})["network"]
    subnet = {
        "network_id": network["id"],
        "ip_version": 4,
        "cidr": "10.9.0.0/24",
        "enable_dhcp": dhcp,
        "dns_nameservers": ["192.0.2.53"],
        "host_routes": [{"destination": "198.51.100.0/24", "nexthop": "10.9.0.9"}],
    }
    assert member.request("POST", "/network/v2.0/subnets", {"subnet": subnet}).status == 201
    server = create(member, config_drive=True, networks=[{"uuid": network["id"], "tag": "front"}])
    drive = drive_of(cloud, server["id"])
    address = server["addresses"]["inside"][0]
    seen = told(drive, "network_data.json")
    [link], [inside] = seen["links"], seen["networks"]
    assert link["ethernet_mac_address"] == address["OS-EXT-IPS-MAC:mac_addr"]
    assert link["mtu"] == network["mtu"]
    assert inside["link"] == link["id"] == f"tap{link['vif_id']}"[:14]
    assert seen["services"] == [{"type": "dns", "address": "192.0.2.53"}]
    if dhcp:
        assert inside == {"id": "network0", "type": "ipv4_dhcp", "link": link["id"], "network_id": network["id"]}
    else:
        assert (inside["type"], inside["ip_address"], inside["netmask"]) == ("ipv4", address["addr"], "255.255.255.0")
        assert inside["routes"] == [
            {"network": "0.0.0.0", "netmask": "0.0.0.0", "gateway": "10.9.0.1"},
            {"network": "198.51.100.0", "netmask": "255.255.255.0", "gateway": "10.9.0.9"},
        ]
    assert json.loads(served(cloud, server["id"])["network_data.json"]) == seen, "from the host's wiring it is the same"
    [device] = told(drive)["devices"]
    assert (device["type"], device["mac"], device["tags"]) == ("nic", link["ethernet_mac_address"], ["front"])
    assert json.loads(drive["ec2/latest/meta-data.json"])["local-ipv4"] == address["addr"]


def test_a_move_makes_the_same_drive_again(cloud: TestCloud, admin: Client, member: Client) -> None:
    server = create(member, config_drive=True, metadata={"a": "1"})
    before = drive_of(cloud, server["id"])
    source = admin.server(server["id"])["OS-EXT-SRV-ATTR:host"]
    member.compute("PUT", f"/servers/{server['id']}/metadata/a", {"meta": {"a": "2"}})
    moved = admin.action(server["id"], {"os-migrateLive": {"host": None, "block_migration": "auto"}})
    assert moved.status == 202, moved.text
    cloud.idle()
    assert admin.server(server["id"])["OS-EXT-SRV-ATTR:host"] != source
    assert drive_of(cloud, server["id"]) == before


def attached(member: Client, server_id: str) -> str:
    """The MAC address of a new port of the server, whose tag is `back`."""
    network = member.request("POST", "/network/v2.0/networks", {"network": {"name": "later"}})["network"]["id"]
    subnet = {"network_id": network, "ip_version": 4, "cidr": "10.9.0.0/24"}
    assert member.request("POST", "/network/v2.0/subnets", {"subnet": subnet}).status == 201
    wanted = {"interfaceAttachment": {"net_id": network, "tag": "back"}}
    answer = member.compute("POST", f"/servers/{server_id}/os-interface", wanted)
    assert answer.status == 200, answer.text
    mac: str = answer["interfaceAttachment"]["mac_addr"]
    return mac


def served(cloud: TestCloud, server_id: str) -> dict[str, bytes]:
    """What the metadata service of the server's host would tell its guest."""
    host = cloud.persona("admin").server(server_id)["OS-EXT-SRV-ATTR:host"]
    world = cloud.embedded.world
    assert world is not None
    return world.drivers[host].tells(server_id)


def served_nics(cloud: TestCloud, server_id: str) -> list[tuple[str, list[str]]]:
    """Address and tags of each NIC that it tells; those of `network_data.json` are the same."""
    files = served(cloud, server_id)
    networks = json.loads(files["network_data.json"])
    found = [(one["mac"], one.get("tags", [])) for one in json.loads(files["meta_data.json"])["devices"]]
    assert [link["ethernet_mac_address"] for link in networks.get("links", [])] == [mac for mac, _ in found]
    return found


def moved(cloud: TestCloud, admin: Client, server_id: str) -> None:
    before = admin.server(server_id)["OS-EXT-SRV-ATTR:host"]
    answer = admin.action(server_id, {"os-migrateLive": {"host": None, "block_migration": "auto"}})
    assert answer.status == 202, answer.text
    cloud.idle()
    assert admin.server(server_id)["OS-EXT-SRV-ATTR:host"] != before


def test_the_tag_of_a_port_that_is_attached_later_is_told_and_moves_along_and_the_drive_stays(
    cloud: TestCloud, admin: Client, member: Client
) -> None:
    server = create(member, config_drive=True, networks="none")["id"]
    drive = drive_of(cloud, server)
    assert served_nics(cloud, server) == []
    mac = attached(member, server)
    cloud.idle()
    assert served_nics(cloud, server) == [(mac, ["back"])]
    moved(cloud, admin, server)
    assert served_nics(cloud, server) == [(mac, ["back"])]
    assert drive_of(cloud, server) == drive
    (port,) = member.compute("GET", f"/servers/{server}/os-interface")["interfaceAttachments"]
    assert member.compute("DELETE", f"/servers/{server}/os-interface/{port['port_id']}").status == 202
    cloud.idle()
    assert served_nics(cloud, server) == []


def test_a_port_that_was_on_the_drive_and_is_attached_again_without_its_tag_has_none(
    cloud: TestCloud, admin: Client, member: Client
) -> None:
    network = member.request("POST", "/network/v2.0/networks", {"network": {"name": "inside"}})["network"]["id"]
    subnet = {"network_id": network, "ip_version": 4, "cidr": "10.9.0.0/24"}
    assert member.request("POST", "/network/v2.0/subnets", {"subnet": subnet}).status == 201
    port = member.request("POST", "/network/v2.0/ports", {"port": {"network_id": network}})["port"]
    server = create(member, config_drive=True, networks=[{"port": port["id"], "tag": "front"}])["id"]
    cloud.idle()
    mac, path = port["mac_address"], f"/servers/{server}/os-interface"
    assert served_nics(cloud, server) == [(mac, ["front"])]
    for tag in ({}, {"tag": "front"}, {}):
        assert member.compute("DELETE", f"{path}/{port['id']}").status == 202
        cloud.idle()
        assert served_nics(cloud, server) == []
        wanted = {"interfaceAttachment": {"port_id": port["id"], **tag}}
        assert member.compute("POST", path, wanted, version="2.96").status == 200
        cloud.idle()
        assert served_nics(cloud, server) == [(mac, [*tag.values()])]
        moved(cloud, admin, server)
        assert served_nics(cloud, server) == [(mac, [*tag.values()])]


def test_a_host_of_the_version_before_is_told_no_tag(
    cloud: TestCloud, admin: Client, member: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its agent would refuse a description with that field."""
    server = create(member, config_drive=True, networks="none")["id"]
    mac = attached(member, server)
    cloud.idle()
    offers = host_records.offers

    def older(tx: Tx, name: str, feature: str) -> bool:
        return feature not in (DEVICE_TAGS, LIVE_METADATA) and offers(tx, name, feature)

    with monkeypatch.context() as patched:
        patched.setattr(host_records, "offers", older)
        moved(cloud, admin, server)
        assert served_nics(cloud, server) == [(mac, [])]
        another = create(member, config_drive=True, networks="none", name="another")["id"]
        other_mac = attached(member, another)
        cloud.idle()
        assert served_nics(cloud, another) == [(other_mac, [])]
    moved(cloud, admin, server)
    assert served_nics(cloud, server) == [(mac, ["back"])], "a host that understands it is told it again"


def test_an_evacuated_guest_is_told_its_new_password(cloud: TestCloud, admin: Client, member: Client) -> None:
    server = create(member, config_drive=True, adminPass="old-word")
    host = admin.server(server["id"])["OS-EXT-SRV-ATTR:host"]
    with silent(cloud, host):
        cloud.clock.advance(2 * cloud.embedded.settings.host_silent_seconds)
        cloud.reconcile()
        service = next(one for one in admin.compute("GET", "/os-services")["services"] if one["host"] == host)
        admin.compute("PUT", f"/os-services/{service['id']}", {"forced_down": True})
        answer = admin.action(
            server["id"], {"evacuate": {"adminPass": "new-word", "onSharedStorage": False}}, version="2.13"
        )
        assert (answer.status, answer.json) == (200, {"adminPass": "new-word"})
        cloud.idle()
        assert told(drive_of(cloud, server["id"]))["admin_pass"] == "new-word"


def test_a_server_that_asked_for_no_drive_has_none_unless_its_image_needs_one(
    cloud: TestCloud, admin: Client, member: Client
) -> None:
    plain = create(member)
    assert (plain["config_drive"], drive_of(cloud, plain["id"])) == ("", {})
    image = member.request("GET", "/image/v2/images?name=cumulet-tiny")["images"][0]["id"]
    needed = [{"op": "add", "path": "/img_config_drive", "value": "mandatory"}]
    patched = admin.request(
        "PATCH",
        f"/image/v2/images/{image}",
        needed,
        headers={"Content-Type": "application/openstack-images-v2.1-json-patch"},
    )
    assert patched.status == 200, patched.text
    needing = create(member)
    assert needing["config_drive"] == "True"
    assert told(drive_of(cloud, needing["id"]))["uuid"] == needing["id"]


def test_a_deleted_server_leaves_no_secret_behind(cloud: TestCloud, member: Client) -> None:
    server = create(member, config_drive=True, adminPass="not-for-ever")
    member.compute("DELETE", f"/servers/{server['id']}")
    cloud.idle()
    kept = cloud.embedded.db.read(
        lambda tx: tx.all(sa.select(servers.c.guest, servers.c.guest_secrets).where(servers.c.id == server["id"]))
    )
    assert [tuple(row) for row in kept] == [(None, None)]
    states = cloud.embedded.db.read(lambda tx: tx.all(sa.select(operations.c.state)))
    assert "not-for-ever" not in repr(states)
