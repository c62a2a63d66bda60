"""A project near its quotas, and the largest bodies that make sixteen of one thing at once in it."""

from __future__ import annotations

from collections.abc import Callable

from cumulet.network.port_forwardings import MOST_OF_ONE
from cumulet.network.resource import MOST_AT_ONCE
from cumulet.network.subnet_checks import MOST_AUTOMATIC
from cumulet.testing import Answer, JsonObject, TestCloud

TAGS = [f"tag-{n}" for n in range(50)]
ADMINISTRATORS = {
    "POST /flavors",
    "POST /metering/metering-label-rules",
    "POST /network_segment_ranges",
    "POST /segments",
    "POST /service_profiles",
}
"""Operations that make several things, but only for administrators."""
FIRST = 10_000
"""The first port that is forwarded."""


class FullProject:
    """A member's project with as much as it may have, but for sixteen more ports, subnets, ..."""

    def __init__(self, cloud: TestCloud) -> None:
        self.member = cloud.persona("member")
        self.manager = cloud.persona("manager")
        networks = self.ask("GET", "/networks?router:external=true")["networks"]
        self.public: str = networks[0]["id"]
        self.network = self._made("network")
        self.address = "10.164.{n}.{m}"  # in the last of the subnets
        self.subnets = [
            subnet["id"]
            for n in range(0, 80, MOST_AT_ONCE)
            for subnet in self._several(
                "subnet",
                [
                    {"network_id": self.network, "ip_version": 4, "cidr": f"10.{100 + k}.0.0/16"}
                    if k < 80 - MOST_AUTOMATIC + 1
                    else automatic(self.network, k)
                    for k in range(n, n + MOST_AT_ONCE)
                ],
            )
        ]
        self.groups = [self._made("security_group", name=f"group-{n}") for n in range(9)]
        for n in range(0, 64, MOST_AT_ONCE):
            self._several("security_group_rule", self.rules(n))
        routed = self._made("network")
        subnet = self._made("subnet", network_id=routed, ip_version=4, cidr="10.50.0.0/16")
        router = self._made("router", external_gateway_info={"network_id": self.public})
        self.ask("PUT", f"/routers/{router}/add_router_interface", {"subnet_id": subnet})
        self.routed_port = self._made("port", network_id=routed)
        self.floating_ip = self._made("floatingip", floating_network_id=self.public)
        for n in range(0, MOST_OF_ONE - MOST_AT_ONCE, MOST_AT_ONCE):
            self.ask("POST", self.forwardings_path, {"port_forwardings": self.forwardings(n)})
        self.crowded = self._made("network")
        self._made("subnet", network_id=self.crowded, ip_version=4, cidr="10.60.0.0/16")
        for _ in range(29):
            self._several("port", [{"network_id": self.crowded}] * MOST_AT_ONCE)

    def ask(self, method: str, path: str, body: object = None) -> Answer:
        answer = self.member.request(method, f"/network/v2.0{path}", body)
        assert answer.status < 300, answer.text
        return answer

    def _several(self, kind: str, wanted: list[JsonObject]) -> list[JsonObject]:
        made: list[JsonObject] = self.ask("POST", f"/{kind.replace('_', '-')}s", {f"{kind}s": wanted})[f"{kind}s"]
        return made

    def _made(self, kind: str, **attributes: object) -> str:
        identifier: str = self._several(kind, [attributes])[0]["id"]
        return identifier

    @property
    def forwardings_path(self) -> str:
        return f"/floatingips/{self.floating_ip}/port_forwardings"

    def forwardings(self, first: int) -> list[JsonObject]:
        return [
            {
                "protocol": "tcp",
                "internal_port_id": self.routed_port,
                "internal_port": FIRST + n,
                "external_port": FIRST + n,
            }
            for n in range(first, first + MOST_AT_ONCE)
        ]

    def rules(self, first: int) -> list[JsonObject]:
        """Of one group, with the same port range, so that only all of a rule tells it from another."""
        return [
            {"security_group_id": self.groups[0], "direction": "ingress", "protocol": n + 64, "ethertype": "IPv4"}
            for n in range(first, first + MOST_AT_ONCE)
        ]


def automatic(network: str, number: int) -> JsonObject:
    """A subnet in which guests give themselves addresses."""
    modes = {"ipv6_address_mode": "slaac", "ipv6_ra_mode": "slaac"}
    return {"network_id": network, "ip_version": 6, "cidr": f"fd00:{number:x}::/64"} | modes


def _sixteen(one: Callable[[int], JsonObject]) -> list[JsonObject]:
    return [one(n) for n in range(MOST_AT_ONCE)]


def _ports(full: FullProject) -> list[list[JsonObject]]:
    pairs = [{"ip_address": f"10.0.0.{n}"} for n in range(10)]
    options = [{"opt_name": str(224 + n), "opt_value": "x" * 50} for n in range(10)]
    rich = {"security_groups": full.groups, "allowed_address_pairs": pairs, "extra_dhcp_opts": options, "tags": TAGS}
    return [
        _sixteen(lambda _: {"network_id": full.network, **rich}),
        _sixteen(lambda _: {"network_id": full.crowded, **rich}),
        _sixteen(
            lambda n: {
                "network_id": full.network,
                "fixed_ips": [{"ip_address": full.address.format(n=n, m=m)} for m in range(9, 14)],
            }
        ),
        [{"network_id": full.network, "fixed_ips": [{"subnet_id": one} for one in full.subnets[:50]]}],
    ]


def _subnets(full: FullProject) -> list[list[JsonObject]]:
    rich = {
        "dns_nameservers": [f"10.0.0.{n}" for n in range(5)],
        "host_routes": [{"destination": f"10.{n}.0.0/24", "nexthop": "10.0.0.1"} for n in range(10)],
        "tags": TAGS,
    }
    return [
        _sixteen(lambda n: {"network_id": full.network, "ip_version": 4, "cidr": f"172.16.{n}.0/24", **rich}),
        _sixteen(lambda n: automatic(full.crowded, n)),
        [automatic(full.crowded, 0)],
    ]


LARGEST: dict[str, Callable[[FullProject], list[list[JsonObject]]]] = {
    "POST /address-groups": lambda _: [_sixteen(lambda _: {"addresses": [f"10.0.{n}.0/24" for n in range(50)]})],
    "POST /address-scopes": lambda _: [_sixteen(lambda _: {"name": "new", "ip_version": 4})],
    "POST /floatingips": lambda full: [_sixteen(lambda _: {"floating_network_id": full.public, "tags": TAGS})],
    "POST /floatingips/{floatingip_id}/port_forwardings": lambda full: [
        full.forwardings(MOST_OF_ONE),
        full.forwardings(MOST_OF_ONE - 2 * MOST_AT_ONCE),  # there already
        [*full.forwardings(MOST_OF_ONE)[1:], *full.forwardings(0)[:1]],
    ],
    "POST /metering/metering-labels": lambda _: [_sixteen(lambda _: {"name": "new"})],
    "POST /networks": lambda _: [_sixteen(lambda _: {"tags": TAGS})],
    "POST /ports": _ports,
    "POST /qos/policies": lambda _: [_sixteen(lambda _: {"name": "new", "tags": TAGS})],
    "POST /rbac-policies": lambda full: [
        _sixteen(
            lambda n: {
                "object_type": "network",
                "object_id": full.network,
                "action": "access_as_shared",
                "target_tenant": f"00000000-0000-4000-8000-{n:012d}",
            }
        )
    ],
    "POST /routers": lambda full: [
        _sixteen(lambda _: {"external_gateway_info": {"network_id": full.public}, "tags": TAGS})[:9]
    ],
    "POST /security-group-rules": lambda full: [full.rules(64), full.rules(64)[1:] + full.rules(0)[:1]],
    "POST /security-groups": lambda _: [_sixteen(lambda _: {"tags": TAGS})],
    "POST /subnetpools": lambda _: [
        _sixteen(lambda n: {"name": "new", "prefixes": [f"10.{n}.{m}.0/24" for m in range(0, 100, 2)], "tags": TAGS})
    ],
    "POST /subnets": _subnets,
}
"""By operation: lists of what one request makes. Most are made; some are refused after all but one of them."""
