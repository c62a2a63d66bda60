"""Network's examples. What they are about is made in `network_things.py`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cumulet.testing import JsonObject

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
from .network_things import METERING_RULE, ROUTE, SEGMENT_RANGE_OF_TEN, Things

__all__ = ["EXAMPLES", "PARAMETERS", "Things"]


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
    "segment_id": lambda t: t.further_segment,
    "network_segment_range_id": lambda t: t.segment_range,
    "flavor_id": lambda t: t.flavor,
    "trunk_id": lambda t: t.trunk,
    "service_profile_id": lambda t: t.service_profile,
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
    path: str, kind: str, new: JsonObject, *, sees: Personas = READER, changes: Personas = MEMBER, **deleted: Any
) -> dict[str, Example]:
    """The five operations on a kind of resource. `deleted`: the path of one that can be deleted."""
    one, seen = f"{path}/{{{kind}_id}}", (f"get_{kind}",)
    return {
        f"GET {path}": Example(may=ANYONE),
        f"POST {path}": Example(may=ANY_MEMBER, body={kind: new}),
        f"GET {one}": Example(may=sees, sees=sees, rules=seen),
        f"PUT {one}": Example(may=changes, sees=sees, body={kind: {"description": "large"}}, rules=seen),
        f"DELETE {one}": Example(may=changes, sees=sees, path=deleted, rules=seen),
    }


def tags(path: str, kind: str, sees: Personas = READER, changes: Personas = MEMBER) -> dict[str, Example]:
    """The seven operations on the tags of a kind of resource."""
    one, seen = f"{path}/{{{kind}_id}}/tags", (f"get_{kind}",)
    change: JsonObject = {"may": changes, "sees": sees, "rules": seen}
    return {
        f"GET {one}": Example(may=READER, sees=sees, rules=seen),
        f"PUT {one}": Example(**change, body={"tags": ["red"]}),
        f"POST {one}": Example(**change, body={"tags": ["red"]}),
        f"DELETE {one}": Example(**change),
        f"GET {one}/{{tag}}": Example(may=READER, sees=sees, rules=seen),
        f"PUT {one}/{{tag}}": Example(**change, path={"tag": "red"}),
        f"DELETE {one}/{{tag}}": Example(**change),
    }


def qos_rules(name: str, new: JsonObject, changed: JsonObject, **policy: Any) -> dict[str, Example]:
    """The eight operations on a type of QoS rules. `policy`: the path of the policy that one is of."""
    one, of_policy = f"{name}_rule", f"{QOS}/{name}_rules"
    path, alias = f"{of_policy}/{{{one}_id}}", f"/qos/alias_{one}s/{{alias_{one}_id}}"
    of_rule: JsonObject = {"sees": READER, "rules": ("get_policy", f"get_policy_{one}"), "path": policy}
    of_alias: JsonObject = {"sees": READER, "rules": (f"get_alias_{one}",)}
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
SEGMENT_RANGE = "/network_segment_ranges/{network_segment_range_id}"
SEEN_RANGE = ("get_network_segment_range",)
FLAVOR, SEEN_FLAVOR = "/flavors/{flavor_id}", ("get_flavor",)
PROFILE, SEEN_PROFILE = "/service_profiles/{service_profile_id}", ("get_service_profile",)
TRUNK, SEEN_TRUNK = "/trunks/{trunk_id}", ("get_trunk",)
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
    "GET /segments": Example(may=ANYONE),
    "POST /segments": Example(
        may=ADMIN, body={"segment": {"network_id": lambda t: t.network, "network_type": "vxlan"}}
    ),
    "GET /segments/{segment_id}": Example(may=ADMIN, sees=ADMIN, rules=("get_segment",)),
    "PUT /segments/{segment_id}": Example(
        may=ADMIN, sees=ADMIN, body={"segment": {"name": "new"}}, rules=("get_segment",)
    ),
    "DELETE /segments/{segment_id}": Example(may=ADMIN, sees=ADMIN, rules=("get_segment",)),
    "GET /network_segment_ranges": Example(may=ANYONE),
    "POST /network_segment_ranges": Example(
        may=ADMIN, body={"network_segment_range": SEGMENT_RANGE_OF_TEN | {"minimum": 5000, "maximum": 5009}}
    ),
    f"GET {SEGMENT_RANGE}": Example(may=ADMIN, sees=ADMIN, rules=SEEN_RANGE),
    f"PUT {SEGMENT_RANGE}": Example(
        may=ADMIN, sees=ADMIN, body={"network_segment_range": {"maximum": 4012}}, rules=SEEN_RANGE
    ),
    f"DELETE {SEGMENT_RANGE}": Example(may=ADMIN, sees=ADMIN, rules=SEEN_RANGE),
    **crud("/trunks", "trunk", {}),
    "POST /trunks": Example(
        may=MEMBER,
        sees=PROJECT,
        rules=("get_port", "get_network"),
        body={"trunk": {"port_id": lambda t: t.port_for_trunk}},
    ),
    f"GET {TRUNK}/get_subports": Example(may=READER, sees=READER, rules=SEEN_TRUNK),
    f"PUT {TRUNK}/add_subports": Example(
        may=MEMBER,
        sees=READER,
        rules=(*SEEN_TRUNK, "get_port", "get_network"),
        body={
            "sub_ports": [{"port_id": lambda t: t.port_for_trunk, "segmentation_type": "vlan", "segmentation_id": 9}]
        },
    ),
    f"PUT {TRUNK}/remove_subports": Example(
        may=MEMBER, sees=READER, rules=SEEN_TRUNK, body={"sub_ports": [{"port_id": lambda t: t.subport}]}
    ),
    "GET /flavors": Example(may=ANYONE),
    "POST /flavors": Example(may=ADMIN, body={"flavor": {"service_type": "L3_ROUTER_NAT"}}),
    f"GET {FLAVOR}": Example(may=ANY_READER, sees=ANY_READER, rules=SEEN_FLAVOR),
    f"PUT {FLAVOR}": Example(may=ADMIN, sees=ANY_READER, body={"flavor": {"enabled": False}}, rules=SEEN_FLAVOR),
    f"DELETE {FLAVOR}": Example(may=ADMIN, sees=ANY_READER, rules=SEEN_FLAVOR),
    f"POST {FLAVOR}/service_profiles": Example(
        may=ADMIN,
        sees=ANY_READER,
        body={"service_profile": {"id": lambda t: t.service_profile}},
        rules=SEEN_FLAVOR + SEEN_PROFILE,
    ),
    f"DELETE {FLAVOR}{PROFILE}": Example(
        may=ADMIN,
        sees=ADMIN,
        path={"flavor_id": lambda t: t.flavor_with_profile, "service_profile_id": lambda t: t.profile_of_flavor},
        rules=("get_flavor", "get_flavor_service_profile"),
        hidden="service_profile_id",
    ),
    "GET /service_profiles": Example(may=ANYONE),
    "POST /service_profiles": Example(may=ADMIN, body={"service_profile": {"metainfo": "x"}}),
    f"GET {PROFILE}": Example(may=ADMIN, sees=ADMIN, rules=SEEN_PROFILE),
    f"PUT {PROFILE}": Example(may=ADMIN, sees=ADMIN, body={"service_profile": {"enabled": False}}, rules=SEEN_PROFILE),
    f"DELETE {PROFILE}": Example(may=ADMIN, sees=ADMIN, rules=SEEN_PROFILE),
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
    **tags("/trunks", "trunk"),
}
