"""Network: a member's network with all that can be on one, and what only services and administrators touch."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from cumulet.testing import Answer, Client, JsonObject, TestCloud

ROUTE = {"destination": "10.9.0.0/24", "nexthop": "10.1.0.77"}
METERING_RULE = {"direction": "egress", "source_ip_prefix": "10.1.0.0/24"}
SEGMENT_RANGE_OF_TEN = {"network_type": "vxlan", "minimum": 4000, "maximum": 4009}


class Things:
    """A member's network, subnet, ports, router, ...; made once."""

    def __init__(self, cloud: TestCloud) -> None:
        self.admin = cloud.persona("admin")
        self.owner = cloud.persona("member")
        self._service = cloud.persona("service")

    def ask(self, client: Client, method: str, path: str, body: Any = None) -> Answer:
        answer = client.request(method, f"/network/v2.0{path}", body)
        assert answer.status < 300, answer.text
        return answer

    def make(self, kind: str, client: Client | None = None, /, **attributes: Any) -> JsonObject:
        path = f"/{kind.replace('_', '-')}s"
        made: JsonObject = self.ask(client or self.owner, "POST", path, {kind: attributes})[kind]
        return made

    def made(self, kind: str, client: Client | None = None, /, **attributes: Any) -> str:
        """The id of a new resource."""
        return str(self.make(kind, client, **attributes)["id"])

    def _bound_port(self) -> str:
        wanted = {"network_id": self.network, "project_id": self.owner.project_id, "binding:host_id": "host1"}
        return self.made("port", self.admin, **wanted)

    @cached_property
    def public(self) -> str:
        found: str = self.ask(self.owner, "GET", "/networks?router:external=true")["networks"][0]["id"]
        return found

    @cached_property
    def network(self) -> str:
        identifier = self.made("network", name="n")
        self.ask(self.owner, "PUT", f"/networks/{identifier}/tags/blue")
        return identifier

    @cached_property
    def empty_network(self) -> str:
        return self.made("network", name="empty")

    @cached_property
    def subnet(self) -> str:
        identifier = self.made("subnet", network_id=self.network, ip_version=4, cidr="10.1.0.0/24")
        self.ask(self.owner, "PUT", f"/subnets/{identifier}/tags/blue")
        return identifier

    @cached_property
    def subnet_without_ports(self) -> str:
        network = self.made("network", name="portless")
        return self.made("subnet", network_id=network, ip_version=4, cidr="10.2.0.0/24")

    @cached_property
    def port(self) -> str:
        """Bound to host1."""
        identifier = self._bound_port()
        self.ask(self.owner, "PUT", f"/ports/{identifier}/tags/blue")
        return identifier

    @cached_property
    def moving_port(self) -> str:
        """Bound to host1, and inactively to host2, as during a move."""
        port = self._bound_port()
        self.ask(self._service, "POST", f"/ports/{port}/bindings", {"binding": {"host": "host2"}})
        return port

    @cached_property
    def router(self) -> str:
        router = self.made("router", external_gateway_info={"network_id": self.public})
        self.ask(self.owner, "PUT", f"/routers/{router}/add_router_interface", {"subnet_id": self.subnet})
        self.ask(self.owner, "PUT", f"/routers/{router}/tags/blue")
        self.ask(self.owner, "PUT", f"/routers/{router}/add_extraroutes", {"router": {"routes": [ROUTE]}})
        return router

    @cached_property
    def other_subnet(self) -> str:
        network = self.made("network", name="other")
        return self.made("subnet", network_id=network, ip_version=4, cidr="10.4.0.0/24")

    @cached_property
    def router_without_routes(self) -> str:
        """It has an interface that no static route needs."""
        router = self.made("router", name="routeless")
        self.ask(self.owner, "PUT", f"/routers/{router}/add_router_interface", {"subnet_id": self.other_subnet})
        return router

    @cached_property
    def topology(self) -> str:
        """The project that has an automatic topology."""
        self.ask(self.owner, "GET", f"/auto-allocated-topology/{self.owner.project_id}")
        return str(self.owner.project_id)

    @cached_property
    def project_with_quotas(self) -> str:
        self.ask(self.admin, "PUT", f"/quotas/{self.owner.project_id}", {"quota": {"port": 100}})
        return str(self.owner.project_id)

    @cached_property
    def router_without_interfaces(self) -> str:
        return self.made("router", name="empty")

    @cached_property
    def floating_ip(self) -> str:
        identifier = self.made("floatingip", floating_network_id=self.public)
        self.ask(self.owner, "PUT", f"/floatingips/{identifier}/tags/blue")
        return identifier

    @cached_property
    def routed_port(self) -> str:
        """A port behind a router with a gateway."""
        network = self.made("network", name="routed")
        subnet = self.made("subnet", network_id=network, ip_version=4, cidr="10.6.0.0/24")
        router = self.made("router", external_gateway_info={"network_id": self.public})
        self.ask(self.owner, "PUT", f"/routers/{router}/add_router_interface", {"subnet_id": subnet})
        return self.made("port", network_id=network)

    @cached_property
    def forwarding_ip(self) -> str:
        """A floating IP that forwards ports."""
        return self.made("floatingip", floating_network_id=self.public)

    @cached_property
    def port_forwarding(self) -> str:
        wanted = {"protocol": "tcp", "internal_port_id": self.routed_port, "internal_port": 22, "external_port": 2222}
        path = f"/floatingips/{self.forwarding_ip}/port_forwardings"
        made = self.ask(self.owner, "POST", path, {"port_forwarding": wanted})
        identifier: str = made["port_forwarding"]["id"]
        return identifier

    @cached_property
    def subnet_pool(self) -> str:
        identifier = self.made("subnetpool", name="pool", prefixes=["10.8.0.0/16"])
        self.ask(self.owner, "PUT", f"/subnetpools/{identifier}/tags/blue")
        return identifier

    @cached_property
    def further_segment(self) -> str:
        return self.made("segment", self.admin, network_id=self.network, network_type="vxlan")

    @cached_property
    def segment_range(self) -> str:
        """Of a project that has no networks, so that none has one of its numbers."""
        wanted = SEGMENT_RANGE_OF_TEN | {"shared": False, "project_id": "nobody"}
        made = self.ask(self.admin, "POST", "/network_segment_ranges", {"network_segment_range": wanted})
        return str(made["network_segment_range"]["id"])

    @cached_property
    def port_for_trunk(self) -> str:
        return self.made("port", network_id=self.network)

    @cached_property
    def subport(self) -> str:
        return self.made("port", network_id=self.network)

    @cached_property
    def trunk(self) -> str:
        """With one subport."""
        parent = self.made("port", network_id=self.network)
        member = {"port_id": self.subport, "segmentation_type": "vlan", "segmentation_id": 7}
        identifier = self.made("trunk", port_id=parent, sub_ports=[member])
        self.ask(self.owner, "PUT", f"/trunks/{identifier}/tags/blue")
        return identifier

    @cached_property
    def flavor(self) -> str:
        return self.made("flavor", self.admin, service_type="L3_ROUTER_NAT")

    def _new_profile(self) -> str:
        made = self.ask(self.admin, "POST", "/service_profiles", {"service_profile": {"metainfo": "x"}})
        return str(made["service_profile"]["id"])

    @cached_property
    def service_profile(self) -> str:
        return self._new_profile()

    @cached_property
    def profile_of_flavor(self) -> str:
        return self._new_profile()

    @cached_property
    def flavor_with_profile(self) -> str:
        identifier = self.made("flavor", self.admin, service_type="L3_ROUTER_NAT")
        wanted = {"service_profile": {"id": self.profile_of_flavor}}
        self.ask(self.admin, "POST", f"/flavors/{identifier}/service_profiles", wanted)
        return identifier

    def agent(self, kind: str) -> str:
        query = f"agent_type={kind.replace(' ', '%20')}&host=host1"
        found: str = self.ask(self.admin, "GET", f"/agents?{query}")["agents"][0]["id"]
        return found

    @cached_property
    def address_scope(self) -> str:
        return self.made("address_scope", name="scope", ip_version=4)

    @cached_property
    def metering_label(self) -> str:
        wanted = {"metering_label": {"project_id": self.owner.project_id}}
        return str(self.ask(self.admin, "POST", "/metering/metering-labels", wanted)["metering_label"]["id"])

    @cached_property
    def metering_rule(self) -> str:
        wanted = {"metering_label_rule": METERING_RULE | {"metering_label_id": self.metering_label}}
        made = self.ask(self.admin, "POST", "/metering/metering-label-rules", wanted)
        return str(made["metering_label_rule"]["id"])

    @cached_property
    def qos_policy(self) -> str:
        made = self.ask(self.admin, "POST", "/qos/policies", {"policy": {"project_id": self.owner.project_id}})
        identifier: str = made["policy"]["id"]
        self.ask(self.admin, "PUT", f"/policies/{identifier}/tags/blue")
        return identifier

    @cached_property
    def bandwidth_limit(self) -> str:
        path = f"/qos/policies/{self.qos_policy}/bandwidth_limit_rules"
        made = self.ask(self.admin, "POST", path, {"bandwidth_limit_rule": {"max_kbps": 1000}})
        return str(made["bandwidth_limit_rule"]["id"])

    def _promise(self, name: str, **value: int) -> str:
        made = self.ask(self.admin, "POST", f"/qos/policies/{self.qos_policy}/{name}s", {name: value})
        return str(made[name]["id"])

    @cached_property
    def minimum_bandwidth(self) -> str:
        return self._promise("minimum_bandwidth_rule", min_kbps=1)

    @cached_property
    def minimum_packet_rate(self) -> str:
        return self._promise("minimum_packet_rate_rule", min_kpps=1)

    @cached_property
    def marking_policy(self) -> str:
        made = self.ask(self.admin, "POST", "/qos/policies", {"policy": {"project_id": self.owner.project_id}})
        return str(made["policy"]["id"])

    @cached_property
    def dscp_mark(self) -> str:
        path = f"/qos/policies/{self.marking_policy}/dscp_marking_rules"
        made = self.ask(self.admin, "POST", path, {"dscp_marking_rule": {"dscp_mark": 26}})
        return str(made["dscp_marking_rule"]["id"])

    @cached_property
    def rbac_policy(self) -> str:
        made = self.ask(
            self.owner,
            "POST",
            "/rbac-policies",
            {
                "rbac_policy": {
                    "object_type": "network",
                    "object_id": self.empty_network,
                    "action": "access_as_shared",
                    "target_tenant": "00000000-0000-4000-8000-000000000001",
                }
            },
        )
        return str(made["rbac_policy"]["id"])

    @cached_property
    def address_group(self) -> str:
        return self.made("address_group", name="office", addresses=["10.8.0.0/16"])

    @cached_property
    def _group(self) -> JsonObject:
        return self.make("security_group", name="web")

    @cached_property
    def group(self) -> str:
        identifier: str = self._group["id"]
        self.ask(self.owner, "PUT", f"/security-groups/{identifier}/tags/blue")
        return identifier

    @cached_property
    def group_rule(self) -> str:
        identifier: str = self._group["security_group_rules"][0]["id"]
        return identifier


METERING_RULE = {"direction": "egress", "source_ip_prefix": "10.1.0.0/24"}
