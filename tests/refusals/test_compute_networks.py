"""What Compute refuses under its own paths for addresses, zones and hosts, and no story comes upon."""

from __future__ import annotations

from ipaddress import ip_network
from unittest import mock

import msgspec
import pytest
import sqlalchemy as sa

from cumulet import rootless
from cumulet.compute import joined_hosts
from cumulet.compute.store import hosts
from cumulet.compute.wiring import require_wiring_hosts
from cumulet.db.engine import Tx
from cumulet.errors import NotYet
from cumulet.testing import Answer, Client, JsonObject
from tests.links import silent

from .table import Refusal, Scene, table
from .test_compute import flavor, server, tiny

REFUSALS, refused = table()
ZONE = "second"
"""Of host2, from before it had servers."""


def old(scene: Scene, path: str, body: object, who: Client | None = None) -> Answer:
    return (who or scene.admin).compute("POST", path, body, version="2.35")


def network(scene: Scene, *versions: int) -> str:
    made: str = scene.made("network")["id"]
    for version in versions:
        cidr = {4: "10.9.0.0/24", 6: "2001:db8:9::/64"}[version]
        scene.made("subnet", network_id=made, ip_version=version, cidr=cidr)
    return made


def external(scene: Scene, name: str, cidr: str) -> None:
    """A pool of one address."""
    attributes: JsonObject = {"name": name, "router:external": True}
    first = str(ip_network(cidr)[2])
    subnet: JsonObject = {"ip_version": 4, "cidr": cidr, "allocation_pools": [{"start": first, "end": first}]}
    scene.made("subnet", network_id=scene.made("network", **attributes)["id"], enable_dhcp=False, **subnet)


def routed(scene: Scene) -> str:
    """A network with a way to `public`."""
    made = network(scene)
    subnet = scene.made("subnet", network_id=made, ip_version=4, cidr="10.9.0.0/24")["id"]
    public = scene.network("GET", "/networks?name=public")["networks"][0]["id"]
    router = scene.made("router", external_gateway_info={"network_id": public})["id"]
    joined = scene.network("PUT", f"/routers/{router}/add_router_interface", {"subnet_id": subnet})
    assert joined.status == 200, joined.text
    return made


def floating(scene: Scene) -> str:
    answer = old(scene, "/os-floating-ips", {"pool": "public"})
    assert answer.status == 200, answer.text
    found: str = answer["floating_ip"]["ip"]
    return found


def led(scene: Scene, server_id: str, address: str, **more: str) -> Answer:
    return old(scene, f"/servers/{server_id}/action", {"addFloatingIp": {"address": address, **more}})


def on(scene: Scene, network_id: str) -> str:
    """A server there."""
    return server(scene, networks=[{"uuid": network_id}])


# -- floating IPs


@refused(400, "No fixed IPs associated to instance")
def a_floating_ip_for_a_server_without_ports(scene: Scene) -> Answer:
    return led(scene, server(scene), floating(scene))


@refused(400, "Specified fixed address not assigned")
def a_floating_ip_for_an_address_it_does_not_have(scene: Scene) -> Answer:
    return led(scene, on(scene, network(scene, 4)), floating(scene), fixed_address="10.9.0.250")


@refused(400, "no fixed IPv4 addresses")
def a_floating_ip_for_a_server_with_ipv6_only(scene: Scene) -> Answer:
    return led(scene, on(scene, network(scene, 6)), floating(scene))


@refused(400, "already has a floating IP")
def a_second_floating_ip_for_an_address(scene: Scene) -> Answer:
    made = on(scene, routed(scene))
    assert led(scene, made, floating(scene)).status == 202
    return led(scene, made, floating(scene))


@refused(400, "Unable to associate floating IP")
def a_floating_ip_for_a_network_without_a_way_out(scene: Scene) -> Answer:
    return led(scene, on(scene, network(scene, 4)), floating(scene))


@refused(404, "Floating IP not found for address 203.0.113.9")
def a_floating_ip_that_is_nobodys_led_away(scene: Scene) -> Answer:
    return old(scene, f"/servers/{server(scene)}/action", {"removeFloatingIp": {"address": "203.0.113.9"}})


@refused(403, "IP allocation over quota in pool public")
def a_floating_ip_too_many(scene: Scene) -> Answer:
    who = scene.cloud.persona("other_member")
    quota = {"quota": {"floatingip": 0}}
    assert scene.network("PUT", f"/quotas/{who.project_id}", quota).status == 200
    return old(scene, "/os-floating-ips", {"pool": "public"}, who)


@refused(404, "No more floating IPs in pool small")
def a_floating_ip_of_a_pool_that_is_empty(scene: Scene) -> Answer:
    external(scene, "small", "198.51.100.0/24")
    assert old(scene, "/os-floating-ips", {"pool": "small"}).status == 200
    return old(scene, "/os-floating-ips", {"pool": "small"})


@refused(400, "Multiple floating IP pools matches found")
def a_floating_ip_of_one_of_two_pools(scene: Scene) -> Answer:
    external(scene, "second", "203.0.113.0/24")
    return old(scene, "/os-floating-ips", {})


# -- addresses of new servers


@refused(400, "No fixed IP addresses available for network")
def a_server_on_a_network_without_a_free_address(scene: Scene) -> Answer:
    made = network(scene)
    pools = [{"start": "10.9.0.2", "end": "10.9.0.2"}]
    subnet: JsonObject = {"network_id": made, "ip_version": 4, "cidr": "10.9.0.0/24", "allocation_pools": pools}
    scene.made("subnet", enable_dhcp=False, **subnet)
    scene.made("port", network_id=made)
    body = {"name": "s", "imageRef": tiny(scene), "flavorRef": flavor(scene), "networks": [{"uuid": made}]}
    return scene.admin.compute("POST", "/servers", {"server": body})


# -- servers and hosts


@refused(403, "os_compute_api:os-multinic:add")
def what_is_not_offered_yet_for_who_only_reads(scene: Scene) -> Answer:
    made = server(scene, scene.member)
    return scene.cloud.persona("reader").action(made, {"addFixedIp": {"networkId": "n"}}, version="2.43")


@refused(501, "Injecting files")
def a_rebuild_with_files(scene: Scene) -> Answer:
    files = [{"path": "/etc/motd", "contents": "YQ=="}]
    made = server(scene)
    body = {"rebuild": {"imageRef": tiny(scene), "personality": files}}
    return scene.admin.action(made, body, version="2.56")


@refused(409, "is not in the availability zone")
def an_unshelving_to_a_host_of_another_zone(scene: Scene) -> Answer:
    made = server(scene, host="host1")
    assert scene.admin.action(made, {"shelve": None}).status == 202
    scene.cloud.idle()
    return scene.admin.action(made, {"unshelve": {"availability_zone": ZONE, "host": "host1"}}, version="2.91")


@refused(409, "in-progress migrations")
def the_end_of_a_host_that_something_moves_to(scene: Scene) -> Answer:
    made = server(scene, host="host1")
    services = scene.admin.compute("GET", "/os-services?binary=nova-compute")["services"]
    target = next(service["id"] for service in services if service["host"] == "host2")
    with silent(scene.cloud, "host2"):
        move = {"os-migrateLive": {"host": "host2", "block_migration": "auto"}}
        assert scene.admin.action(made, move).status == 202
        path = f"/os-migrations?instance_uuid={made}"

        def placed() -> bool:
            moves = scene.admin.compute("GET", path)["migrations"]
            return bool(moves and moves[0]["dest_compute"] == "host2")

        scene.admin.wait("its destination", placed)
        return scene.admin.compute("DELETE", f"/os-services/{target}")


@refused(409, "join at another process")
def a_host_added_where_there_is_no_door(scene: Scene) -> Answer:
    context = scene.cloud.embedded.context
    door = context.door
    msgspec.structs.force_setattr(context, "door", None)
    try:
        return scene.admin.compute("POST", "/cumulet/hosts", {"host": {"name": "rack1"}})
    finally:
        msgspec.structs.force_setattr(context, "door", door)


@refused(409, "in a network of its own: no other machine reaches it")
def a_host_added_to_a_cloud_without_root(scene: Scene) -> Answer:
    with mock.patch.object(rootless, "inside", return_value=rootless.Inside(listener=0, guest_uids="none")):
        return scene.admin.compute("POST", "/cumulet/hosts", {"host": {"name": "rack1"}})


@refused(403, "Quota exceeded: there are 0 hosts")
def a_host_too_many(scene: Scene) -> Answer:
    with mock.patch.object(joined_hosts, "MOST_JOINED", 0):
        return scene.admin.compute("POST", "/cumulet/hosts", {"host": {"name": "rack1"}})


@refused(404, "Port nothing could not be found.")
def a_path_from_what_is_no_port(scene: Scene) -> Answer:
    return scene.admin.compute("GET", "/cumulet/paths/nothing/192.0.2.7")


@refused(404, "Floating IP 172.24.4.250 could not be found.")
def a_path_from_outside_to_what_is_no_floating_ip(scene: Scene) -> Answer:
    return scene.admin.compute("GET", "/cumulet/paths/192.0.2.7/172.24.4.250")


@refused(400, "tcp needs a port")
def a_path_of_tcp_to_no_port(scene: Scene) -> Answer:
    port = scene.network("GET", "/ports?limit=1")["ports"][0]["id"]
    return scene.admin.compute("GET", f"/cumulet/paths/{port}/192.0.2.7?protocol=tcp")


@refused(404, "There is no such page")
def a_page_of_consoles_that_is_not(scene: Scene) -> Answer:
    return scene.admin.request("GET", "/console/nothing")


def prepare(scene: Scene) -> None:
    unlimited = {"quota_set": {"instances": -1, "cores": -1, "ram": -1}}
    assert scene.admin.compute("PUT", f"/os-quota-sets/{scene.admin.project_id}", unlimited).status == 200
    aggregate = {"aggregate": {"name": ZONE, "availability_zone": ZONE}}
    number = scene.admin.compute("POST", "/os-aggregates", aggregate)["aggregate"]["id"]
    added = {"add_host": {"host": "host2"}}
    assert scene.admin.compute("POST", f"/os-aggregates/{number}/action", added).status == 200


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.name)
def test_it_is_refused(scene: Scene, refusal: Refusal) -> None:
    refusal.check(scene)


def test_a_port_is_no_use_where_no_host_wires_guests(scene: Scene) -> None:
    """None of them, be they silent now. Where none has said yet what it is, nobody knows."""
    embedded = scene.cloud.embedded

    def wired_by_none(tx: Tx) -> None:
        for name in embedded.hosts.names:
            tx.touch(name)  # What is in memory does not count in this transaction.
        tx.execute(sa.update(hosts).values(up=False))
        require_wiring_hosts(tx)
        for row in tx.all(sa.select(hosts.c.name, hosts.c.facts)):
            left = [feature for feature in row.facts["features"] if feature != "networks"]
            facts = {**row.facts, "features": left}
            tx.execute(sa.update(hosts).where(hosts.c.name == row.name).values(facts=facts))
        with pytest.raises(NotYet, match="No host of this cloud can wire guests"):
            require_wiring_hosts(tx)
        tx.execute(sa.update(hosts).values(facts=None))
        require_wiring_hosts(tx)
        raise _Undone

    with pytest.raises(_Undone):
        embedded.db.write(wired_by_none)


class _Undone(Exception):
    """Takes the transaction back."""
