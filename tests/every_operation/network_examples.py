"""Network: a member's network with all that can be on one, and what only services and administrators touch."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from cumulet.testing import Answer, Client, TestCloud

from .example import (
    ADMIN,
    ANY_MEMBER,
    ANY_READER,
    ANYONE,
    MANAGER,
    MEMBER,
    PROJECT,
    READER,
    SERVICE,
    Example,
    Made,
    Personas,
)


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

    def make(self, kind: str, client: Client | None = None, /, **attributes: Any) -> dict[str, Any]:
        path = f"/{kind.replace('_', '-')}s"
        made: dict[str, Any] = self.ask(client or self.owner, "POST", path, {kind: attributes})[kind]
        return made

    @cached_property
    def public(self) -> str:
        found: str = self.ask(self.owner, "GET", "/networks?router:external=true")["networks"][0]["id"]
        return found

    @cached_property
    def network(self) -> str:
        identifier: str = self.make("network", name="n")["id"]
        self.ask(self.owner, "PUT", f"/networks/{identifier}/tags/blue")
        return identifier

    @cached_property
    def empty_network(self) -> str:
        identifier: str = self.make("network", name="empty")["id"]
        return identifier

    @cached_property
    def subnet(self) -> str:
        identifier: str = self.make("subnet", network_id=self.network, ip_version=4, cidr="10.1.0.0/24")["id"]
        self.ask(self.owner, "PUT", f"/subnets/{identifier}/tags/blue")
        return identifier

    @cached_property
    def subnet_without_ports(self) -> str:
        network = self.make("network", name="portless")["id"]
        identifier: str = self.make("subnet", network_id=network, ip_version=4, cidr="10.2.0.0/24")["id"]
        return identifier

    @cached_property
    def port(self) -> str:
        """Bound to host1."""
        identifier: str = self.make(
            "port",
            self.admin,
            network_id=self.network,
            project_id=self.owner.project_id,
            **{"binding:host_id": "host1"},
        )["id"]
        self.ask(self.owner, "PUT", f"/ports/{identifier}/tags/blue")
        return identifier

    @cached_property
    def moving_port(self) -> str:
        """Bound to a second host, too, but not actively: its server is about to move there."""
        port: str = self.make(
            "port",
            self.admin,
            network_id=self.network,
            project_id=self.owner.project_id,
            **{"binding:host_id": "host1"},
        )["id"]
        self.ask(self._service, "POST", f"/ports/{port}/bindings", {"binding": {"host": "host2"}})
        return port

    @cached_property
    def router(self) -> str:
        router: str = self.make("router", external_gateway_info={"network_id": self.public})["id"]
        self.ask(self.owner, "PUT", f"/routers/{router}/add_router_interface", {"subnet_id": self.subnet})
        self.ask(self.owner, "PUT", f"/routers/{router}/tags/blue")
        self.ask(self.owner, "PUT", f"/routers/{router}/add_extraroutes", {"router": {"routes": [ROUTE]}})
        return router

    @cached_property
    def other_subnet(self) -> str:
        network = self.make("network", name="other")["id"]
        identifier: str = self.make("subnet", network_id=network, ip_version=4, cidr="10.4.0.0/24")["id"]
        return identifier

    @cached_property
    def router_without_routes(self) -> str:
        """It has an interface that nothing needs."""
        router: str = self.make("router", name="routeless")["id"]
        self.ask(self.owner, "PUT", f"/routers/{router}/add_router_interface", {"subnet_id": self.other_subnet})
        return router

    @cached_property
    def topology(self) -> str:
        """The project of a user who has had everything made automatically."""
        self.ask(self.owner, "GET", f"/auto-allocated-topology/{self.owner.project_id}")
        return str(self.owner.project_id)

    @cached_property
    def project_with_quotas(self) -> str:
        self.ask(self.admin, "PUT", f"/quotas/{self.owner.project_id}", {"quota": {"port": 100}})
        return str(self.owner.project_id)

    @cached_property
    def router_without_interfaces(self) -> str:
        identifier: str = self.make("router", name="empty")["id"]
        return identifier

    @cached_property
    def floating_ip(self) -> str:
        identifier: str = self.make("floatingip", floating_network_id=self.public)["id"]
        self.ask(self.owner, "PUT", f"/floatingips/{identifier}/tags/blue")
        return identifier

    @cached_property
    def routed_port(self) -> str:
        """Behind a router with a way out."""
        network = self.make("network", name="routed")["id"]
        subnet = self.make("subnet", network_id=network, ip_version=4, cidr="10.6.0.0/24")["id"]
        router = self.make("router", external_gateway_info={"network_id": self.public})["id"]
        self.ask(self.owner, "PUT", f"/routers/{router}/add_router_interface", {"subnet_id": subnet})
        identifier: str = self.make("port", network_id=network)["id"]
        return identifier

    @cached_property
    def forwarding_ip(self) -> str:
        """A floating IP that forwards ports."""
        identifier: str = self.make("floatingip", floating_network_id=self.public)["id"]
        return identifier

    @cached_property
    def port_forwarding(self) -> str:
        wanted = {"protocol": "tcp", "internal_port_id": self.routed_port, "internal_port": 22, "external_port": 2222}
        path = f"/floatingips/{self.forwarding_ip}/port_forwardings"
        made = self.ask(self.owner, "POST", path, {"port_forwarding": wanted})
        identifier: str = made["port_forwarding"]["id"]
        return identifier

    @cached_property
    def subnet_pool(self) -> str:
        identifier: str = self.make("subnetpool", name="pool", prefixes=["10.8.0.0/16"])["id"]
        self.ask(self.owner, "PUT", f"/subnetpools/{identifier}/tags/blue")
        return identifier

    def agent(self, kind: str) -> str:
        query = f"agent_type={kind.replace(' ', '%20')}&host=host1"
        found: str = self.ask(self.admin, "GET", f"/agents?{query}")["agents"][0]["id"]
        return found

    @cached_property
    def address_scope(self) -> str:
        identifier: str = self.make("address_scope", name="scope", ip_version=4)["id"]
        return identifier

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
        identifier: str = self.make("address_group", name="office", addresses=["10.8.0.0/16"])["id"]
        return identifier

    @cached_property
    def _group(self) -> dict[str, Any]:
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
ROUTE = {"destination": "10.9.0.0/24", "nexthop": "10.1.0.77"}
PARAMETERS: Mapping[str, str | Made] = {
    "network_id": lambda t: t.network,
    "subnet_id": lambda t: t.subnet,
    "port_id": lambda t: t.port,
    "router_id": lambda t: t.router,
    "floatingip_id": lambda t: t.floating_ip,
    "port_forwarding_id": lambda t: t.port_forwarding,
    "subnetpool_id": lambda t: t.subnet_pool,
    "address_group_id": lambda t: t.address_group,
    "rbac_policy_id": lambda t: t.rbac_policy,
    "metering_label_id": lambda t: t.metering_label,
    "metering_label_rule_id": lambda t: t.metering_rule,
    "policy_id": lambda t: t.qos_policy,
    "bandwidth_limit_rule_id": lambda t: t.bandwidth_limit,
    "alias_bandwidth_limit_rule_id": lambda t: t.bandwidth_limit,
    "dscp_marking_rule_id": lambda t: t.dscp_mark,
    "alias_dscp_marking_rule_id": lambda t: t.dscp_mark,
    "minimum_bandwidth_rule_id": lambda t: t.minimum_bandwidth,
    "alias_minimum_bandwidth_rule_id": lambda t: t.minimum_bandwidth,
    "minimum_packet_rate_rule_id": lambda t: t.minimum_packet_rate,
    "alias_minimum_packet_rate_rule_id": lambda t: t.minimum_packet_rate,
    "rule_type": "bandwidth_limit",
    "security_group_id": lambda t: t.group,
    "security_group_rule_id": lambda t: t.group_rule,
    "default_security_group_rule_id": "00000000-0000-4000-8000-000000000001",
    "address_scope_id": lambda t: t.address_scope,
    "agent_id": lambda t: t.agent("Cumulet agent"),
    "project_id": lambda t: t.owner.project_id,
    "host": "host1",
    "alias": "router",
    "tag": "blue",
}


def crud(
    path: str, kind: str, new: dict[str, Any], *, sees: Personas = READER, changes: Personas = MEMBER, **deleted: Any
) -> dict[str, Example]:
    """The five operations on a kind of thing. `deleted`: the path of one that nothing hangs on."""
    one, seen = f"{path}/{{{kind}_id}}", (f"get_{kind}",)
    return {
        f"GET {path}": Example(may=ANYONE),
        f"POST {path}": Example(may=ANY_MEMBER, body={kind: new}),
        f"GET {one}": Example(may=sees, sees=sees, rules=seen),
        f"PUT {one}": Example(may=changes, sees=sees, body={kind: {"description": "large"}}, rules=seen),
        f"DELETE {one}": Example(may=changes, sees=sees, path=deleted, rules=seen),
    }


def tags(path: str, kind: str, sees: Personas = READER, changes: Personas = MEMBER) -> dict[str, Example]:
    """The seven operations on the tags of a kind of thing."""
    one, seen = f"{path}/{{{kind}_id}}/tags", (f"get_{kind}",)
    change: dict[str, Any] = {"may": changes, "sees": sees, "rules": seen}
    return {
        f"GET {one}": Example(may=READER, sees=sees, rules=seen),
        f"PUT {one}": Example(**change, body={"tags": ["red"]}),
        f"POST {one}": Example(**change, body={"tags": ["red"]}),
        f"DELETE {one}": Example(**change),
        f"GET {one}/{{tag}}": Example(may=READER, sees=sees, rules=seen),
        f"PUT {one}/{{tag}}": Example(**change, path={"tag": "red"}),
        f"DELETE {one}/{{tag}}": Example(**change),
    }


def qos_rules(name: str, new: dict[str, Any], changed: dict[str, Any], **policy: Any) -> dict[str, Example]:
    """The eight operations on a type of QoS rules. `policy`: the path of the policy that one is of."""
    one, of_policy = f"{name}_rule", f"{QOS}/{name}_rules"
    path, alias = f"{of_policy}/{{{one}_id}}", f"/qos/alias_{one}s/{{alias_{one}_id}}"
    of_rule: dict[str, Any] = {"sees": READER, "rules": ("get_policy", f"get_policy_{one}"), "path": policy}
    of_alias: dict[str, Any] = {"sees": READER, "rules": (f"get_alias_{one}",)}
    return {
        f"GET {of_policy}": Example(may=READER, sees=READER, rules=("get_policy",)),
        f"POST {of_policy}": Example(may=MANAGER, sees=READER, body={one: new}, rules=("get_policy",)),
        f"GET {path}": Example(may=READER, **of_rule),
        f"PUT {path}": Example(may=MANAGER, body={one: changed}, **of_rule),
        f"DELETE {path}": Example(may=MANAGER, **of_rule),
        f"GET {alias}": Example(may=READER, **of_alias),
        f"PUT {alias}": Example(may=MANAGER, body={f"alias_{one}": changed}, **of_alias),
        f"DELETE {alias}": Example(may=MANAGER, **of_alias),
    }


WITH_SERVICES = READER | SERVICE
BINDING = "/ports/{port_id}/bindings"
OF_SECOND: Mapping[str, str | Made] = {"port_id": lambda t: t.moving_port, "host": "host2"}
SEEN_AGENT = ("get_agent",)
QOS = "/qos/policies/{policy_id}"
ADDRESS_GROUP = "/address-groups/{address_group_id}"
FORWARDINGS = "/floatingips/{floatingip_id}/port_forwardings"
FORWARDING: Mapping[str, str | Made] = {"floatingip_id": lambda t: t.forwarding_ip}
METERING = "/metering/metering-label"
SEEN_LABEL, SEEN_METERING_RULE = ("get_metering_label",), ("get_metering_label_rule",)
SEEN_FLOATING = ("get_floatingip",)
SEEN_FORWARDING = ("get_floatingip", "get_floatingip_port_forwarding")
ONLY_SERVICES = frozenset({"service"})
SEEN = ("get_port", "get_port_binding")
EXAMPLES: dict[str, Example | tuple[Example, ...]] = {
    "GET /agents": Example(may=ANYONE),
    "GET /agents/{agent_id}": Example(may=ADMIN, sees=ADMIN, rules=SEEN_AGENT),
    "PUT /agents/{agent_id}": Example(may=ADMIN, sees=ADMIN, rules=SEEN_AGENT, body={"agent": {"description": "x"}}),
    "DELETE /agents/{agent_id}": Example(may=ADMIN, sees=ADMIN, rules=SEEN_AGENT, answers=409),
    "GET /agents/{agent_id}/dhcp-networks": Example(
        may=ADMIN, sees=ADMIN, rules=SEEN_AGENT, path={"agent_id": lambda t: t.agent("DHCP agent")}
    ),
    "GET /agents/{agent_id}/l3-routers": Example(
        may=ADMIN, sees=ADMIN, rules=SEEN_AGENT, path={"agent_id": lambda t: t.agent("L3 agent")}
    ),
    "GET /networks/{network_id}/dhcp-agents": Example(may=ADMIN, sees=WITH_SERVICES, rules=("get_network",)),
    "GET /routers/{router_id}/l3-agents": Example(may=ADMIN, sees=READER, rules=("get_router",)),
    **crud("/networks", "network", {"name": "new"}, sees=WITH_SERVICES, network_id=lambda t: t.empty_network),
    **crud("/subnets", "subnet", {}, sees=WITH_SERVICES, subnet_id=lambda t: t.subnet_without_ports),
    "POST /subnets": Example(
        may=MEMBER,
        sees=WITH_SERVICES,
        rules=("get_network",),
        body={"subnet": {"network_id": lambda t: t.network, "ip_version": 4, "cidr": "10.3.0.0/24"}},
    ),
    **crud("/ports", "port", {}, sees=WITH_SERVICES, changes=MEMBER | SERVICE),
    "POST /ports": Example(
        may=MEMBER | SERVICE,
        sees=WITH_SERVICES,
        rules=("get_network",),
        body={"port": {"network_id": lambda t: t.network}},
    ),
    **crud("/routers", "router", {"name": "new"}, router_id=lambda t: t.router_without_interfaces),
    **crud("/floatingips", "floatingip", {"floating_network_id": lambda t: t.public}),
    **crud("/subnetpools", "subnetpool", {"name": "new", "prefixes": ["10.7.0.0/16"]}),
    **crud("/address-groups", "address_group", {"name": "new", "addresses": ["10.7.0.0/16"]}),
    f"PUT {ADDRESS_GROUP}/add_addresses": Example(
        may=MEMBER, sees=READER, body={"addresses": ["10.7.0.0/16"]}, rules=("get_address_group",)
    ),
    f"PUT {ADDRESS_GROUP}/remove_addresses": Example(
        may=MEMBER, sees=READER, body={"addresses": ["10.8.0.0/16"]}, rules=("get_address_group",)
    ),
    f"GET {METERING}s": Example(may=ANYONE),
    f"POST {METERING}s": Example(may=MANAGER, body={"metering_label": {"name": "new"}}),
    f"GET {METERING}s/{{metering_label_id}}": Example(may=READER, sees=READER, rules=SEEN_LABEL),
    f"DELETE {METERING}s/{{metering_label_id}}": Example(may=MANAGER, sees=READER, rules=SEEN_LABEL),
    f"GET {METERING}-rules": Example(may=ANYONE),
    f"POST {METERING}-rules": Example(
        may=MANAGER,
        sees=READER,
        rules=SEEN_LABEL,
        body={"metering_label_rule": METERING_RULE | {"metering_label_id": lambda t: t.metering_label}},
    ),
    f"GET {METERING}-rules/{{metering_label_rule_id}}": Example(may=READER, sees=READER, rules=SEEN_METERING_RULE),
    f"DELETE {METERING}-rules/{{metering_label_rule_id}}": Example(may=MANAGER, sees=READER, rules=SEEN_METERING_RULE),
    **crud("/security-groups", "security_group", {"name": "new"}),
    "GET /default-security-group-rules": Example(may=ANY_READER),
    "POST /default-security-group-rules": Example(
        may=ADMIN, body={"default_security_group_rule": {"direction": "ingress", "protocol": "tcp"}}
    ),
    "GET /default-security-group-rules/{default_security_group_rule_id}": Example(may=ANY_READER),
    "DELETE /default-security-group-rules/{default_security_group_rule_id}": Example(may=ADMIN),
    **crud("/address-scopes", "address_scope", {"name": "new", "ip_version": 4}),
    "PUT /address-scopes/{address_scope_id}": Example(
        may=MEMBER, sees=READER, body={"address_scope": {"name": "large"}}, rules=("get_address_scope",)
    ),
    **crud("/rbac-policies", "rbac_policy", {}),
    "GET /qos/policies": Example(may=ANYONE),
    "POST /qos/policies": Example(may=MANAGER, body={"policy": {"name": "new"}}),
    f"GET {QOS}": Example(may=READER, sees=READER, rules=("get_policy",)),
    f"PUT {QOS}": Example(may=MANAGER, sees=READER, body={"policy": {"description": "x"}}, rules=("get_policy",)),
    f"DELETE {QOS}": Example(may=MANAGER, sees=READER, rules=("get_policy",)),
    **qos_rules("bandwidth_limit", {"max_kbps": 1000, "direction": "ingress"}, {"max_kbps": 7}),
    **qos_rules("minimum_bandwidth", {"min_kbps": 1, "direction": "ingress"}, {"min_kbps": 2}),
    **qos_rules("minimum_packet_rate", {"min_kpps": 1, "direction": "ingress"}, {"min_kpps": 2}),
    **qos_rules("dscp_marking", {"dscp_mark": 8}, {"dscp_mark": 10}, policy_id=lambda t: t.marking_policy),
    "GET /qos/rule-types": Example(may=ANY_READER),
    "GET /qos/rule-types/{rule_type}": Example(may=ANY_READER),
    "POST /rbac-policies": Example(
        may=MEMBER,
        sees=PROJECT,
        rules=("get_network",),
        body={
            "rbac_policy": {
                "object_type": "network",
                "object_id": lambda t: t.network,
                "action": "access_as_shared",
                "target_tenant": "00000000-0000-4000-8000-000000000001",
            }
        },
    ),
    "PUT /rbac-policies/{rbac_policy_id}": Example(
        may=MEMBER,
        sees=READER,
        body={"rbac_policy": {"target_tenant": "00000000-0000-4000-8000-000000000002"}},
        rules=("get_rbac_policy",),
    ),
    f"GET {FORWARDINGS}": Example(may=READER, sees=READER, path=FORWARDING, rules=SEEN_FLOATING),
    f"POST {FORWARDINGS}": Example(
        may=MEMBER,
        sees=READER,
        path=FORWARDING,
        body={
            "port_forwarding": {
                "protocol": "udp",
                "internal_port_id": lambda t: t.routed_port,
                "internal_port": 53,
                "external_port": 53,
            }
        },
        rules=(*SEEN_FLOATING, "get_port"),
    ),
    f"GET {FORWARDINGS}/{{port_forwarding_id}}": Example(
        may=READER, sees=READER, path=FORWARDING, rules=SEEN_FORWARDING
    ),
    f"PUT {FORWARDINGS}/{{port_forwarding_id}}": Example(
        may=MEMBER,
        sees=READER,
        path=FORWARDING,
        body={"port_forwarding": {"description": "large"}},
        rules=SEEN_FORWARDING,
    ),
    f"DELETE {FORWARDINGS}/{{port_forwarding_id}}": Example(
        may=MEMBER, sees=READER, path=FORWARDING, rules=SEEN_FORWARDING
    ),
    "GET /security-group-rules": Example(may=ANYONE),
    "POST /security-group-rules": Example(
        may=MEMBER,
        sees=READER,
        rules=("get_security_group",),
        body={"security_group_rule": {"security_group_id": lambda t: t.group, "direction": "ingress"}},
    ),
    "GET /security-group-rules/{security_group_rule_id}": Example(
        may=READER, sees=READER, rules=("get_security_group_rule",)
    ),
    "DELETE /security-group-rules/{security_group_rule_id}": Example(
        may=MEMBER, sees=READER, rules=("get_security_group_rule",)
    ),
    # -- bindings
    f"GET {BINDING}": Example(may=WITH_SERVICES, sees=WITH_SERVICES, rules=SEEN),
    f"POST {BINDING}": Example(may=ONLY_SERVICES, sees=WITH_SERVICES, body={"binding": {"host": "host2"}}, rules=SEEN),
    f"GET {BINDING}/{{host}}": Example(may=SERVICE, sees=SERVICE, rules=SEEN, hidden="host"),
    f"PUT {BINDING}/{{host}}": Example(
        may=ONLY_SERVICES, sees=SERVICE, body={"binding": {"vnic_type": "direct"}}, rules=SEEN, hidden="host"
    ),
    f"DELETE {BINDING}/{{host}}": Example(may=ONLY_SERVICES, sees=SERVICE, rules=SEEN, hidden="host"),
    f"PUT {BINDING}/{{host}}/activate": Example(
        may=ONLY_SERVICES, sees=SERVICE, path=OF_SECOND, rules=SEEN, hidden="host"
    ),
    # -- routers
    "PUT /routers/{router_id}/add_router_interface": Example(
        may=MEMBER,
        sees=READER,
        body={"subnet_id": lambda t: t.subnet_without_ports},
        rules=("get_router", "get_subnet"),
    ),
    "PUT /routers/{router_id}/remove_router_interface": Example(
        may=MEMBER,
        sees=READER,
        path={"router_id": lambda t: t.router_without_routes},
        body={"subnet_id": lambda t: t.other_subnet},
        rules=("get_router", "get_subnet"),
    ),
    "PUT /routers/{router_id}/add_extraroutes": Example(
        may=MEMBER,
        sees=READER,
        rules=("get_router",),
        body={"router": {"routes": [{"destination": "10.11.0.0/24", "nexthop": "10.1.0.78"}]}},
    ),
    "PUT /routers/{router_id}/remove_extraroutes": Example(
        may=MEMBER, sees=READER, rules=("get_router",), body={"router": {"routes": [ROUTE]}}
    ),
    # -- quotas and what there is
    "GET /quotas": Example(may=MANAGER),
    "GET /quotas/project": Example(may=ANYONE),
    "GET /quotas/tenant": Example(may=ANYONE),
    "GET /quotas/{project_id}": Example(may=PROJECT, rules=("get_quota",)),
    "GET /quotas/{project_id}/default": Example(may=PROJECT, rules=("get_quota",)),
    "GET /quotas/{project_id}/details": Example(may=PROJECT, rules=("get_quota",)),
    "PUT /quotas/{project_id}": Example(may=ADMIN, body={"quota": {"port": 300}}),
    "DELETE /quotas/{project_id}": Example(may=ADMIN, path={"project_id": lambda t: t.project_with_quotas}),
    "GET /auto-allocated-topology/{project_id}": Example(may=READER),
    "DELETE /auto-allocated-topology/{project_id}": Example(may=MEMBER, path={"project_id": lambda t: t.topology}),
    "GET /network-ip-availabilities": Example(may=ANYONE),
    "GET /network-ip-availabilities/{network_id}": Example(may=SERVICE, sees=SERVICE, rules=("get_network",)),
    "GET /availability_zones": Example(may=ANY_READER),
    "GET /service-providers": Example(may=ANY_READER),
    "GET /extensions": Example(may=ANYONE),
    "GET /extensions/{alias}": Example(may=ANYONE),
    **tags("/networks", "network", WITH_SERVICES),
    **tags("/subnets", "subnet", WITH_SERVICES),
    **tags("/subnetpools", "subnetpool"),
    **tags("/ports", "port", WITH_SERVICES),
    **tags("/routers", "router"),
    **tags("/floatingips", "floatingip"),
    **tags("/security-groups", "security_group"),
    **tags("/policies", "policy", changes=MANAGER),
}
