"""Port forwarding: several guests behind one floating IP, as Neutron checks and shows it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import cumulet.testing
from cumulet.testing import Answer, Client, JsonObject, TestCloud

ABSENT = "00000000-0000-4000-8000-000000000001"


@pytest.fixture(scope="module")
def cloud() -> Iterator[TestCloud]:
    with cumulet.testing.cloud(hosts=1) as running:
        yield running


class Site:
    """A network behind a router, two ports on it, and a floating IP."""

    def __init__(self, cloud: TestCloud) -> None:
        self.member = cloud.persona("member")
        self.public = self.ask("GET", "/networks?name=public")["networks"][0]["id"]
        self.network = self.ask("POST", "/networks", {"network": {}})["network"]["id"]
        subnet = {"network_id": self.network, "cidr": "10.20.0.0/24", "ip_version": 4}
        self.subnet = self.ask("POST", "/subnets", {"subnet": subnet})["subnet"]["id"]
        wanted = {"router": {"external_gateway_info": {"network_id": self.public}}}
        self.router = self.ask("POST", "/routers", wanted)["router"]["id"]
        assert self.ask("PUT", f"/routers/{self.router}/add_router_interface", {"subnet_id": self.subnet}).status == 200
        self.ports = [self.ask("POST", "/ports", {"port": {"network_id": self.network}})["port"] for _ in range(2)]
        self.floating = self.floating_ip()

    def floating_ip(self) -> str:
        body = {"floatingip": {"floating_network_id": self.public}}
        found: str = self.ask("POST", "/floatingips", body)["floatingip"]["id"]
        return found

    def ask(self, method: str, path: str, body: object = None, *, client: Client | None = None) -> Answer:
        return (client or self.member).request(method, f"/network/v2.0{path}", body)

    def forward(self, number: int = 0, **wanted: object) -> Answer:
        body = {"protocol": "tcp", "internal_port_id": self.ports[number]["id"], **wanted}
        return self.ask("POST", f"/floatingips/{self.floating}/port_forwardings", {"port_forwarding": body})

    def shown(self) -> JsonObject:
        found: dict[str, object] = self.ask("GET", f"/floatingips/{self.floating}")["floatingip"]
        return found


@pytest.fixture
def site(cloud: TestCloud) -> Site:
    cloud.reset()
    return Site(cloud)


def test_ports_lead_to_several_guests_and_are_shown_at_the_floating_ip(site: Site) -> None:
    made = site.forward(internal_port=22, external_port="2222", description="ssh")["port_forwarding"]
    address = site.ports[0]["fixed_ips"][0]["ip_address"]
    assert made == {
        "id": made["id"],
        "description": "ssh",
        "protocol": "tcp",
        "internal_port_id": site.ports[0]["id"],
        "internal_ip_address": address,
        "external_port": 2222,
        "internal_port": 22,
        "external_port_range": "2222:2222",
        "internal_port_range": "22:22",
    }
    ranges = site.forward(1, internal_port_range="80:90", external_port_range="8080:8090")["port_forwarding"]
    assert "external_port" not in ranges
    shown = site.shown()
    assert (shown["status"], shown["router_id"], shown["port_id"]) == ("ACTIVE", site.router, None)
    assert sorted(entry["id"] for entry in shown["port_forwardings"]) == sorted([made["id"], ranges["id"]])
    path = f"/floatingips/{site.floating}/port_forwardings"
    assert [entry["id"] for entry in site.ask("GET", f"{path}?external_port=2222")["port_forwardings"]] == [made["id"]]
    page = site.ask("GET", f"{path}?limit=1&sort_key=external_port&sort_dir=desc")
    assert page["port_forwardings"] == [made]
    assert f"{path}?" in page["port_forwardings_links"][0]["href"]
    change = {"port_forwarding": {"external_port": 2022, "internal_port_id": site.ports[1]["id"]}}
    changed = site.ask("PUT", f"{path}/{made['id']}", change)["port_forwarding"]
    assert changed["external_port"] == 2022
    assert changed["internal_ip_address"] == site.ports[1]["fixed_ips"][0]["ip_address"]
    for one in (made, ranges):
        assert site.ask("DELETE", f"{path}/{one['id']}").status == 204
    assert (site.shown()["status"], site.shown()["router_id"]) == ("DOWN", None)
    assert site.ask("GET", f"{path}/{made['id']}").status == 404


def test_an_external_network_is_in_use_while_ports_are_forwarded_from_it(cloud: TestCloud, site: Site) -> None:
    assert site.forward(internal_port=22, external_port=22).status == 201
    refused = site.ask("DELETE", f"/networks/{site.public}", client=cloud.persona("admin"))
    assert refused.status == 409
    assert refused["NeutronError"]["type"] == "NetworkInUse"
    assert site.shown()["port_forwardings"] != []


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"internal_port": 22}, "external_port"),
        ({"internal_port": 22, "external_port": 0}, "external_port"),
        ({"internal_port": 22, "external_port": 65536}, "external_port"),
        ({"internal_port_range": "90:80", "external_port": 1}, "internal_port_range"),
        ({"internal_port_range": "80:90", "external_port_range": "80:85"}, "N-N or 1-N"),
        ({"internal_port": 22, "external_port": 22, "external_port_range": "23:24"}, "do not say the same"),
        ({"internal_port": 22, "external_port": 22, "internal_ip_address": "10.20.0.250"}, "not suitable"),
        ({"internal_port": 22, "external_port_range": "1:4097"}, "4096 ports at most"),
        ({"internal_port": 22, "external_port": 22, "protocol": "gre"}, "protocol"),
    ],
)
def test_what_cannot_be_is_refused_by_name_and_changes_nothing(site: Site, wanted: JsonObject, words: str) -> None:
    answer = site.forward(**wanted)
    assert answer.status == 400
    assert words in answer.text
    assert (site.shown()["port_forwardings"], site.shown()["router_id"]) == ([], None)


def test_protocols_that_no_router_here_forwards_are_not_taken(site: Site) -> None:
    answer = site.forward(protocol="sctp", internal_port=1, external_port=1)
    assert answer.status == 501
    assert "tcp and udp only" in answer.text


def test_the_same_port_twice_and_a_floating_ip_that_leads_to_one_port_are_refused(site: Site) -> None:
    made = site.forward(internal_port=22, external_port=22)["port_forwarding"]
    again = site.forward(1, internal_port=22, external_port_range="20:30")
    assert again.status == 400
    assert "collision with the external_port_range" in again.text
    inside = site.forward(internal_port=22, external_port=23)
    assert inside.status == 400
    assert "collision with the internal_port_range" in inside.text
    assert site.forward(1, protocol="udp", internal_port=22, external_port=22).status == 201
    path = f"/floatingips/{site.floating}"
    lead = {"floatingip": {"port_id": site.ports[0]["id"]}}
    for method, body in (("PUT", lead), ("DELETE", None)):
        refused = site.ask(method, path, body)
        assert refused.status == 409
        assert "in use by Port Forwarding resources" in refused.text
    other = site.floating_ip()
    assert site.ask("PUT", f"/floatingips/{other}", {"floatingip": {"port_id": site.ports[1]["id"]}}).status == 200
    bound = site.forward(1, internal_port=80, external_port=80)
    assert bound.status == 409
    assert "already has a binding floating IP" in bound.text
    assert site.ask("GET", f"/floatingips/{other}/port_forwardings/{made['id']}").status == 404
    site.floating = other
    assert site.forward(0, internal_port=81, external_port=81).status == 409


def test_forwardings_end_with_their_port_or_address_and_keep_their_router(site: Site) -> None:
    assert site.forward(internal_port=22, external_port=22).status == 201
    interface = {"subnet_id": site.subnet}
    kept = site.ask("PUT", f"/routers/{site.router}/remove_router_interface", interface)
    assert (kept.status, "required by one or more floating IPs" in kept.text) == (409, True)
    cleared = site.ask("PUT", f"/routers/{site.router}", {"router": {"external_gateway_info": {}}})
    assert cleared.status == 409
    moved = {"port": {"fixed_ips": [{"ip_address": "10.20.0.200"}]}}
    assert site.ask("PUT", f"/ports/{site.ports[0]['id']}", moved).status == 200
    assert site.shown()["port_forwardings"] == []
    assert site.forward(1, internal_port=22, external_port=22).status == 201
    before = site.shown()
    assert site.ask("DELETE", f"/ports/{site.ports[1]['id']}").status == 204
    left = site.shown()
    assert (left["port_forwardings"], left["router_id"]) == ([], None)
    assert left["revision_number"] > before["revision_number"]
    assert site.ask("PUT", f"/routers/{site.router}/remove_router_interface", interface).status == 200


def test_another_project_sees_and_forwards_nothing(cloud: TestCloud, site: Site) -> None:
    made = site.forward(internal_port=22, external_port=22)["port_forwarding"]
    stranger = cloud.persona("other_member")
    path = f"/floatingips/{site.floating}/port_forwardings"
    for method, where in (("GET", path), ("GET", f"{path}/{made['id']}"), ("DELETE", f"{path}/{made['id']}")):
        assert site.ask(method, where, client=stranger).status == 404
    mine = site.ask("POST", "/floatingips", {"floatingip": {"floating_network_id": site.public}}, client=stranger)
    body = {"protocol": "tcp", "internal_port_id": site.ports[1]["id"], "internal_port": 1, "external_port": 1}
    theirs = f"/floatingips/{mine['floatingip']['id']}/port_forwardings"
    assert site.ask("POST", theirs, {"port_forwarding": body}, client=stranger).status == 404
    body["internal_port_id"] = ABSENT
    assert site.ask("POST", theirs, {"port_forwarding": body}, client=stranger).status == 404
