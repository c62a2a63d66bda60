"""What one project shares with another: seen and used by that one alone, and only as long as it is shared."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from cumulet.network.store import networks
from cumulet.network.subnet_pool_records import subnet_pools
from cumulet.testing import Answer, Client, JsonObject, TestCloud
from tests.api.test_compute_servers import ask_for, create
from tests.api.test_network_stories import UNKNOWN, call, make, network_with_subnet, public

KINDS: dict[str, JsonObject] = {
    "network": {},
    "security_group": {"name": "web"},
    "address_group": {"name": "office", "addresses": ["192.0.2.0/24"]},
    "subnetpool": {"name": "pool", "prefixes": ["10.64.0.0/16"]},
    "address_scope": {"name": "scope", "ip_version": 4},
}


def share(owner: Client, kind: str, object_id: str, target: str | Client, action: str = "access_as_shared") -> Answer:
    to = target if isinstance(target, str) else target.project_id
    body = {"object_type": kind, "object_id": object_id, "target_tenant": to, "action": action}
    return call(owner, "POST", "/rbac-policies", {"rbac_policy": body})


def shared(owner: Client, kind: str, object_id: str, target: str | Client, action: str = "access_as_shared") -> str:
    answer = share(owner, kind, object_id, target, action)
    assert answer.status == 201, answer.text
    found: str = answer["rbac_policy"]["id"]
    return found


def listed(client: Client, kind: str, query: str = "") -> list[str]:
    plural = f"{kind}s".replace("_", "-")
    return [one["id"] for one in call(client, "GET", f"/{plural}{query}")[f"{kind}s"]]


@pytest.mark.parametrize("kind", KINDS)
def test_a_thing_is_seen_by_the_project_it_is_shared_with_and_by_no_other(
    kind: str, cloud: TestCloud, member: Client, other_member: Client
) -> None:
    third = cloud.persona("third_member")
    made = make(member, kind, **KINDS[kind])["id"]
    one = f"/{kind.replace('_', '-')}s/{made}"
    assert call(other_member, "GET", one).status == 404
    policy = shared(member, kind, made, other_member)
    assert call(other_member, "GET", one)[kind]["shared"] is True
    assert made in listed(other_member, kind)
    assert made in listed(other_member, kind, "?shared=true")
    assert made not in listed(other_member, kind, "?shared=false")
    assert call(member, "GET", one)[kind]["shared"] is False, "it is shared, but not with its owner"
    assert made not in listed(member, kind, "?shared=true")
    assert call(third, "GET", one).status == 404
    assert made not in listed(third, kind)
    assert call(other_member, "PUT", one, {kind: {"name": "mine"}}).status == 403
    assert call(other_member, "DELETE", one).status == 403
    assert call(member, "DELETE", f"/rbac-policies/{policy}").status == 204
    assert call(other_member, "GET", one).status == 404
    assert made not in listed(other_member, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_only_an_administrator_shares_with_everybody(
    kind: str, cloud: TestCloud, member: Client, other_member: Client
) -> None:
    made = make(member, kind, **KINDS[kind])["id"]
    assert share(member, kind, made, "*").status == 403
    policy = shared(member, kind, made, other_member)
    everybody = {"rbac_policy": {"target_tenant": "*"}}
    assert call(member, "PUT", f"/rbac-policies/{policy}", everybody).status == 403
    assert call(cloud.persona("admin"), "PUT", f"/rbac-policies/{policy}", everybody).status == 200
    assert made in listed(cloud.persona("third_member"), kind)


@pytest.mark.parametrize("kind", KINDS)
def test_nobody_shares_what_another_project_has(
    kind: str, cloud: TestCloud, member: Client, other_member: Client
) -> None:
    third = cloud.persona("third_member")
    made = make(member, kind, **KINDS[kind])["id"]
    assert share(other_member, kind, made, third).status == 404, "it does not know of it"
    policy = shared(member, kind, made, other_member)
    assert share(other_member, kind, made, third).status == 400, "it may use it, and not hand it on"
    assert call(third, "GET", f"/{kind.replace('_', '-')}s/{made}").status == 404
    assert call(other_member, "GET", f"/rbac-policies/{policy}").status == 404
    assert call(other_member, "GET", "/rbac-policies")["rbac_policies"] == []
    assert [one["id"] for one in call(member, "GET", "/rbac-policies")["rbac_policies"]] == [policy]


def test_servers_and_ports_of_the_other_project_keep_a_network_shared(
    cloud: TestCloud, member: Client, other_member: Client
) -> None:
    network, subnet = network_with_subnet(member)
    assert call(other_member, "POST", "/ports", {"port": {"network_id": network}}).status == 404
    refused = ask_for(other_member, networks=[{"uuid": network}])
    assert (refused.status, "could not be found" in refused.text) == (400, True)
    policy = shared(member, "network", network, other_member)
    assert call(other_member, "GET", f"/subnets/{subnet}").status == 200
    server = create(other_member, networks=[{"uuid": network}])["id"]
    (port,) = call(other_member, "GET", f"/ports?network_id={network}")["ports"]
    assert (port["device_id"], port["project_id"]) == (server, other_member.project_id)
    assert call(other_member, "POST", "/subnets", new_subnet(network)).status == 403, "the network is not its own"
    assert call(other_member, "POST", "/ports", {"port": {"network_id": network, "mac_address": MAC}}).status == 403
    for what in ("DELETE", "PUT"):
        body = {"rbac_policy": {"target_tenant": member.project_id}} if what == "PUT" else None
        answer = call(member, what, f"/rbac-policies/{policy}", body)
        assert (answer.status, answer["NeutronError"]["type"]) == (409, "RbacPolicyInUse")
    own = call(other_member, "POST", "/ports", {"port": {"network_id": network}})
    assert own.status == 201
    other_member.compute("DELETE", f"/servers/{server}")
    other_member.wait("its port to be gone", lambda: listed(other_member, "port") == [own["port"]["id"]])
    assert call(member, "DELETE", f"/rbac-policies/{policy}").status == 409, "there is a port yet"
    assert call(other_member, "DELETE", f"/ports/{own['port']['id']}").status == 204
    assert call(member, "DELETE", f"/rbac-policies/{policy}").status == 204
    assert call(other_member, "POST", "/ports", {"port": {"network_id": network}}).status == 404


MAC = "fa:16:3e:00:00:07"


def new_subnet(network: str) -> JsonObject:
    return {"subnet": {"network_id": network, "ip_version": 4, "cidr": "10.99.0.0/24"}}


def test_a_shared_network_is_the_one_that_a_server_gets_when_none_is_named(
    member: Client, other_member: Client
) -> None:
    network, _ = network_with_subnet(member)
    shared(member, "network", network, other_member)
    server = create(other_member, networks="auto")["id"]
    assert [port["device_id"] for port in call(other_member, "GET", f"/ports?network_id={network}")["ports"]] == [
        server
    ]


def test_a_router_may_be_on_a_network_shared_with_its_project_alone(
    cloud: TestCloud, member: Client, other_member: Client
) -> None:
    network, subnet = network_with_subnet(member)
    policy = shared(member, "network", network, other_member)
    router = make(other_member, "router")["id"]
    joined = call(other_member, "PUT", f"/routers/{router}/add_router_interface", {"subnet_id": subnet})
    assert joined.status == 200, joined.text
    assert call(member, "DELETE", f"/rbac-policies/{policy}").status == 409
    third = make(cloud.persona("third_member"), "router")["id"]
    path = f"/routers/{third}/add_router_interface"
    assert call(cloud.persona("third_member"), "PUT", path, {"subnet_id": subnet}).status == 404


def test_a_network_that_is_external_for_one_project_is_not_external_for_others(
    cloud: TestCloud, member: Client, other_member: Client
) -> None:
    admin, third = cloud.persona("admin"), cloud.persona("third_member")
    network, _ = network_with_subnet(admin, "203.0.113.0/24")
    policy = shared(admin, "network", network, member, "access_as_external")
    assert call(member, "GET", f"/networks/{network}")["network"]["router:external"] is True
    assert call(member, "GET", f"/networks/{network}")["network"]["shared"] is False
    assert call(other_member, "GET", f"/networks/{network}").status == 404
    router = make(member, "router", external_gateway_info={"network_id": network})["id"]
    assert make(member, "floatingip", floating_network_id=network)["floating_network_id"] == network
    for stranger in (other_member, third):
        gateway = {"router": {"external_gateway_info": {"network_id": network}}}
        assert call(stranger, "POST", "/routers", gateway).status == 404
        assert call(stranger, "POST", "/floatingips", floating(network)).status == 404
    assert call(member, "POST", "/ports", {"port": {"network_id": network}}).status == 403, "external is not shared"
    refused = ask_for(member, networks=[{"uuid": network}])
    assert refused.status == 403, "nor for servers"
    assert call(admin, "DELETE", f"/rbac-policies/{policy}").status == 409, "a router's gateway is on it"
    for one in call(member, "GET", "/floatingips")["floatingips"]:
        call(member, "DELETE", f"/floatingips/{one['id']}")
    call(member, "DELETE", f"/routers/{router}")
    before = call(admin, "GET", f"/networks/{network}")["network"]["revision_number"]
    assert call(admin, "DELETE", f"/rbac-policies/{policy}").status == 204
    after = call(admin, "GET", f"/networks/{network}")["network"]
    assert (after["router:external"], after["revision_number"]) == (False, before + 1)
    assert call(member, "GET", f"/networks/{network}").status == 404


def test_a_gateway_of_a_project_that_only_sees_the_network_keeps_it_shared(
    cloud: TestCloud, member: Client, other_member: Client
) -> None:
    admin = cloud.persona("admin")
    network, _ = network_with_subnet(admin, "203.0.113.0/24")
    shared(admin, "network", network, member, "access_as_external")
    policy = shared(admin, "network", network, other_member)
    router = make(other_member, "router", external_gateway_info={"network_id": network})["id"]
    assert call(admin, "DELETE", f"/rbac-policies/{policy}").status == 409
    assert call(other_member, "DELETE", f"/routers/{router}").status == 204
    assert call(admin, "DELETE", f"/rbac-policies/{policy}").status == 204


def floating(network: str) -> JsonObject:
    return {"floatingip": {"floating_network_id": network}}


def test_the_default_external_network_stays_shared_with_everybody(cloud: TestCloud, member: Client) -> None:
    admin, network = cloud.persona("admin"), public(member)
    (policy,) = call(admin, "GET", f"/rbac-policies?object_id={network}")["rbac_policies"]
    assert (policy["action"], policy["target_tenant"]) == ("access_as_external", "*")
    assert call(admin, "DELETE", f"/rbac-policies/{policy['id']}").status == 409
    few = make(admin, "network")["id"]
    shared(admin, "network", few, member, "access_as_external")
    call(admin, "PUT", f"/networks/{network}", {"network": {"is_default": False}})
    assert call(admin, "PUT", f"/networks/{few}", {"network": {"is_default": True}}).status == 400


def test_shared_of_a_network_is_a_policy_for_everybody(cloud: TestCloud, member: Client) -> None:
    admin = cloud.persona("admin")
    network = make(admin, "network", shared=True)
    assert network["shared"] is True
    path = f"/rbac-policies?object_id={network['id']}"
    (policy,) = call(admin, "GET", path)["rbac_policies"]
    assert (policy["action"], policy["target_tenant"], policy["object_type"]) == ("access_as_shared", "*", "network")
    unshared = {"network": {"shared": False}}
    assert call(admin, "PUT", f"/networks/{network['id']}", unshared)["network"]["shared"] is False
    assert call(admin, "GET", path)["rbac_policies"] == []
    assert call(member, "GET", f"/networks/{network['id']}").status == 404
    shared(admin, "network", network["id"], "*")
    assert call(member, "GET", f"/networks/{network['id']}")["network"]["shared"] is True
    (policy,) = call(admin, "GET", path)["rbac_policies"]
    own = {"port": {"network_id": network["id"]}}
    assert call(member, "POST", "/ports", own).status == 201
    assert call(admin, "PUT", f"/networks/{network['id']}", unshared).status == 409
    shared(admin, "network", network["id"], member)
    assert call(admin, "DELETE", f"/rbac-policies/{policy['id']}").status == 204, "the member has a policy of its own"
    assert call(member, "GET", f"/networks/{network['id']}").status == 200


def test_a_shared_group_is_for_ports_rules_and_servers_of_the_other_project(
    cloud: TestCloud, member: Client, other_member: Client
) -> None:
    group = make(member, "security_group", name="web")["id"]
    network, _ = network_with_subnet(other_member)
    with_group = {"port": {"network_id": network, "security_groups": [group]}}
    assert call(other_member, "POST", "/ports", with_group).status == 404
    policy = shared(member, "security_group", group, other_member)
    port = call(other_member, "POST", "/ports", with_group)["port"]
    assert port["security_groups"] == [group]
    rule = {"security_group_rule": {"security_group_id": group, "direction": "ingress"}}
    assert call(other_member, "POST", "/security-group-rules", rule).status == 403
    assert call(member, "DELETE", f"/rbac-policies/{policy}").status == 409
    assert call(other_member, "DELETE", f"/ports/{port['id']}").status == 204
    server = create(other_member, networks=[{"uuid": network}], security_groups=[{"name": "web"}])["id"]
    (port,) = call(other_member, "GET", f"/ports?network_id={network}")["ports"]
    assert port["security_groups"] == [group]
    for action, left in (("removeSecurityGroup", []), ("addSecurityGroup", [group])):
        assert other_member.compute("POST", f"/servers/{server}/action", {action: {"name": "web"}}).status == 202
        assert call(other_member, "GET", f"/ports/{port['id']}")["port"]["security_groups"] == left
    third = cloud.persona("third_member")
    net, _ = network_with_subnet(third)
    assert ask_for(third, networks=[{"uuid": net}], security_groups=[{"name": group}]).status == 400


def test_another_projects_group_named_default_is_not_taken_for_the_own_one(
    member: Client, other_member: Client
) -> None:
    (theirs,) = call(member, "GET", "/security-groups?name=default")["security_groups"]
    shared(member, "security_group", theirs["id"], other_member)
    network, _ = network_with_subnet(other_member)
    make(other_member, "security_group", name="web")
    create(other_member, networks=[{"uuid": network}], security_groups=[{"name": "default"}, {"name": "web"}])
    (port,) = call(other_member, "GET", f"/ports?network_id={network}")["ports"]
    (own,) = (
        one["id"]
        for one in call(other_member, "GET", "/security-groups?name=default")["security_groups"]
        if one["id"] != theirs["id"]
    )
    (web,) = call(other_member, "GET", "/security-groups?name=web")["security_groups"]
    assert sorted(port["security_groups"]) == sorted([own, web["id"]])


def test_a_shared_address_group_and_pool_are_kept_while_they_are_used(member: Client, other_member: Client) -> None:
    group, pool = (make(member, kind, **KINDS[kind])["id"] for kind in ("address_group", "subnetpool"))
    of_group = shared(member, "address_group", group, other_member)
    of_pool = shared(member, "subnetpool", pool, other_member)
    own = make(other_member, "security_group", name="own")["id"]
    rule = make(
        other_member, "security_group_rule", security_group_id=own, direction="ingress", remote_address_group_id=group
    )["id"]
    network = make(other_member, "network")["id"]
    subnet = make(other_member, "subnet", network_id=network, ip_version=4, subnetpool_id=pool, prefixlen=24)["id"]
    for policy in (of_group, of_pool):
        assert call(member, "DELETE", f"/rbac-policies/{policy}").status == 409
    call(other_member, "DELETE", f"/security-group-rules/{rule}")
    call(other_member, "DELETE", f"/subnets/{subnet}")
    for policy in (of_group, of_pool):
        assert call(member, "DELETE", f"/rbac-policies/{policy}").status == 204


def test_the_default_pool_is_used_by_those_it_is_shared_with_alone(cloud: TestCloud, member: Client) -> None:
    admin = cloud.persona("admin")
    pool = make(admin, "subnetpool", is_default=True, **KINDS["subnetpool"])["id"]
    network = make(member, "network")["id"]
    subnet = {"network_id": network, "ip_version": 4, "use_default_subnetpool": True, "prefixlen": 24}
    refused = call(member, "POST", "/subnets", {"subnet": subnet})
    assert (refused.status, "No default subnetpool" in refused.text) == (400, True)
    shared(admin, "subnetpool", pool, member)
    assert call(member, "POST", "/subnets", {"subnet": subnet})["subnet"]["subnetpool_id"] == pool


@pytest.mark.parametrize(
    ("kind", "action", "column"),
    [
        ("network", "access_as_shared", networks.c.shared),
        ("network", "access_as_external", networks.c.external),
        ("subnetpool", "access_as_shared", subnet_pools.c.shared),
    ],
)
def test_what_a_control_plane_of_the_version_before_takes_back_is_shared_no_longer(
    kind: str, action: str, column: sa.Column[bool], cloud: TestCloud, member: Client, other_member: Client
) -> None:
    """It writes the columns, and knows no policies."""
    admin = cloud.persona("admin")
    made = make(member, kind, **KINDS[kind])["id"]
    policy = shared(admin, kind, made, "*", action)
    assert made in listed(other_member, kind)
    older = sa.update(column.table).where(column.table.c.id == made)
    cloud.embedded.db.write(lambda tx: tx.execute(older.values({column.name: False})))
    assert made not in listed(other_member, kind)
    assert call(other_member, "GET", f"/{kind}s/{made}").status == 404
    if action == "access_as_shared" and kind == "network":
        again = call(admin, "PUT", f"/networks/{made}", {"network": {"shared": True}})
        assert again["network"]["shared"] is True
        assert made in listed(other_member, kind)
    assert call(admin, "DELETE", f"/rbac-policies/{policy}").status == 204
    assert call(admin, "GET", f"/rbac-policies?object_id={made}")["rbac_policies"] == []


@pytest.mark.parametrize(("kind", "column"), [("network", networks.c.shared), ("subnetpool", subnet_pools.c.shared)])
def test_a_control_plane_of_the_version_before_shares_with_everybody_only_what_is_for_everybody(
    kind: str, column: sa.Column[bool], cloud: TestCloud, member: Client, other_member: Client
) -> None:
    admin, made = cloud.persona("admin"), make(member, kind, **KINDS[kind])["id"]

    def told() -> bool:
        return bool(cloud.embedded.db.read(lambda tx: tx.scalar(sa.select(column).where(column.table.c.id == made))))

    path = f"/rbac-policies/{shared(admin, kind, made, '*')}"
    for target in (other_member.project_id, "*", other_member.project_id):
        assert call(admin, "PUT", path, {"rbac_policy": {"target_tenant": target}}).status == 200
        assert told() == (target == "*")


def test_a_policy_whose_object_the_version_before_has_deleted_can_be_deleted(
    cloud: TestCloud, member: Client, other_member: Client
) -> None:
    network = make(member, "network")["id"]
    path = f"/rbac-policies/{shared(member, 'network', network, other_member)}"
    cloud.embedded.db.write(lambda tx: tx.execute(sa.delete(networks).where(networks.c.id == network)))
    assert call(member, "PUT", path, {"rbac_policy": {"target_tenant": UNKNOWN}}).status == 404
    assert call(member, "DELETE", path).status == 204
    assert call(member, "GET", path).status == 404


def test_what_is_deleted_is_shared_no_longer(member: Client, other_member: Client) -> None:
    network = make(member, "network")["id"]
    policy = shared(member, "network", network, other_member)
    assert call(member, "DELETE", f"/networks/{network}").status == 204
    assert call(member, "GET", f"/rbac-policies/{policy}").status == 404


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"object_type": "port"}, 400),
        ({"object_id": "x"}, 400),
        ({"object_id": UNKNOWN}, 404),
        ({"target_tenant": "x"}, 400),
        ({"target_tenant": "%"}, 400),
        ({"action": "access_as_anything"}, 400),
        ({"object_type": "security_group", "action": "access_as_external"}, 404),
        ({"more": 1}, 400),
    ],
)
def test_an_invalid_policy_is_refused(member: Client, change: JsonObject, status: int) -> None:
    body = {
        "object_type": "network",
        "object_id": make(member, "network")["id"],
        "target_tenant": UNKNOWN,
        "action": "access_as_shared",
    }
    assert call(member, "POST", "/rbac-policies", {"rbac_policy": body | change}).status == status


def test_a_policy_is_made_once_and_counted(member: Client, other_member: Client, cloud: TestCloud) -> None:
    network = make(member, "network")
    path = f"/rbac-policies/{shared(member, 'network', network['id'], other_member)}"
    assert share(member, "network", network["id"], other_member).status == 409
    counted = call(member, "GET", f"/networks/{network['id']}")["network"]["revision_number"]
    assert counted == network["revision_number"] + 1
    assert call(member, "PUT", path, {"rbac_policy": {"target_tenant": member.project_id}}).status == 200
    assert call(member, "GET", f"/networks/{network['id']}")["network"]["revision_number"] == counted + 1
    limit = {"quota": {"rbac_policy": 1}}
    call(cloud.persona("admin"), "PUT", f"/quotas/{member.project_id}", limit)
    assert share(member, "network", network["id"], UNKNOWN).status == 409
    details = call(member, "GET", f"/quotas/{member.project_id}/details")["quota"]["rbac_policy"]
    assert details == {"limit": 1, "used": 1, "reserved": 0}
