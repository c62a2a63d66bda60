"""No list is longer than a page, at any version; and what grows with stored rows is not read on the event loop."""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa

import cumulet.testing
from cumulet.compute.history import History
from cumulet.compute.store import instance_action_events, instance_actions, migrations
from cumulet.db.engine import Database, Tx
from cumulet.processes.parts import load_services
from cumulet.testing import Client, JsonObject, TestCloud
from cumulet.testing.databases import VARIABLE
from cumulet.web.operation import Microversion, Operation
from tests.api.test_compute_servers import create

PAGE = 3
MORE = PAGE + 2


@pytest.fixture(scope="module")
def small_pages() -> Iterator[TestCloud]:
    """A cloud whose pages are short, with more than a page of everything that callers can make."""
    with cumulet.testing.cloud(hosts=2, largest_page=PAGE) as cloud:
        admin, member = cloud.persona("admin"), cloud.persona("member")
        quotas = {"instances": 50, "cores": 50, "key_pairs": 50, "server_groups": 50}
        assert admin.compute("PUT", f"/os-quota-sets/{member.project_id}", {"quota_set": quotas}).status == 200
        small = {"flavor": {"name": "small", "id": "small", "ram": 64, "vcpus": 1, "disk": 1}}
        assert admin.compute("POST", "/flavors", small).status == 200
        image = member.request("GET", "/image/v2/images?name=cumulet-tiny")["images"][0]["id"]
        wanted = {"flavorRef": "small", "imageRef": image, "networks": "none", "name": "one of many"}
        servers = [member.compute("POST", "/servers", {"server": wanted})["server"]["id"] for _ in range(MORE)]
        for n in range(MORE):
            _make_some(cloud, admin, member, n)
        cloud.idle()
        now_us = cloud.clock.now_us()
        cloud.embedded.db.write(lambda tx: _many_rows(tx, servers[0], member, MORE, now_us))
        cloud.await_(cloud.embedded.conductor.reconciler(History).round())  # It comes once a minute anyway.
        yield cloud


def _make_some(cloud: TestCloud, admin: Client, member: Client, n: int) -> None:
    def made(client: Client, path: str, body: object) -> Any:
        answer = client.request("POST", path, body)
        assert answer.status in (200, 201), answer.text
        return answer

    key = {"keypair": {"name": f"key-{n}", "public_key": PUBLIC_KEY}}
    assert member.compute("POST", "/os-keypairs", key).status == 201
    assert member.compute("POST", "/os-server-groups", GROUP | {}, version="2.64").status == 200
    assert admin.compute("POST", "/os-aggregates", {"aggregate": {"name": f"aggregate-{n}"}}).status == 200
    flavor = {"name": f"flavor-{n}", "ram": 64, "vcpus": 1, "disk": 1}
    assert admin.compute("POST", "/flavors", {"flavor": flavor}).status == 200
    made(member, "/image/v2/images", {"name": f"image-{n}", "disk_format": "raw", "container_format": "bare"})
    network = made(member, "/network/v2.0/networks", {"network": {"name": f"network-{n}"}})["network"]["id"]
    subnet = {"network_id": network, "cidr": f"10.{n}.0.0/24", "ip_version": 4}
    made(member, "/network/v2.0/subnets", {"subnet": subnet})
    made(member, "/network/v2.0/ports", {"port": {"network_id": network}})
    made(member, "/network/v2.0/routers", {"router": {"name": f"router-{n}"}})
    made(member, "/network/v2.0/security-groups", {"security_group": {"name": f"group-{n}"}})
    project = made(admin, "/identity/v3/projects", {"project": {"name": f"project-{n}", "domain_id": "default"}})
    user = {"name": f"user-{n}", "domain_id": "default"}
    in_group = made(admin, "/identity/v3/users", {"user": user})["user"]["id"]
    if n == 0:
        made(admin, "/identity/v3/groups", {"group": {"name": "many"}})
    group_id = admin.request("GET", "/identity/v3/groups?name=many")["groups"][0]["id"]
    assert admin.request("PUT", f"/identity/v3/groups/{group_id}/users/{in_group}").status == 204
    role = made(admin, "/identity/v3/roles", {"role": {"name": f"role-{n}"}})["role"]["id"]
    path = f"/identity/v3/projects/{project['project']['id']}/users/{member.user_id}/roles/{role}"
    assert admin.request("PUT", path).status == 204
    for number in range(MORE if n == 0 else 0):
        made(admin, "/identity/v3/regions", {"region": {"id": f"region-{number}"}})
        service = made(admin, "/identity/v3/services", {"service": {"type": f"type-{number}"}})["service"]["id"]
        endpoint = {"service_id": service, "interface": "public", "url": "https://elsewhere.test/"}
        made(admin, "/identity/v3/endpoints", {"endpoint": endpoint})
        described = {"name": f"described-{number}", "filters": {"interface": "public"}}
        group = made(admin, "/identity/v3/OS-EP-FILTER/endpoint_groups", {"endpoint_group": described})
        path = f"/identity/v3/OS-EP-FILTER/endpoint_groups/{group['endpoint_group']['id']}/projects/{member.project_id}"
        assert admin.request("PUT", path).status == 204


GROUP = {"server_group": {"name": "group", "policy": "affinity"}}
PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ1ZL0tXcWfSJ8sQ5VRhEvM1YVXn6Fm7E9a2R1m3m3cB somebody"


def _many_rows(tx: Tx, server_id: str, member: Client, count: int, now_us: int) -> None:
    """Rows of which only long use makes many, none of them so old that it is forgotten."""
    action: dict[str, object] = {
        "server_id": server_id, "user_id": member.user_id, "project_id": member.project_id, "action": "reboot",
        "started_at_us": now_us, "updated_at_us": now_us,
    }  # fmt: skip
    ids = []
    for n in range(count):
        result = tx.execute(sa.insert(instance_actions).values(**action, request_id=f"req-{n}"))
        ids.append(result.inserted_primary_key[0])  # type: ignore[index]
    event = {"action_id": ids[0], "event": "event", "started_at_us": now_us}
    tx.execute(sa.insert(instance_action_events), [event] * count)
    migration = {
        "server_id": server_id, "project_id": member.project_id, "user_id": member.user_id, "type": "live-migration",
        "status": "completed", "source_host": "host1", "created_at_us": now_us, "updated_at_us": now_us,
        "operation_id": "none",
    }  # fmt: skip
    tx.execute(sa.insert(migrations), [{**migration, "uuid": f"migration-{n}"} for n in range(count)])


THINGS = ("server_id", "project_id", "user_id", "group_id", "endpoint_group_id", "endpoint_id", "flavor_id")
"""Of which there is one to ask about."""
NO_PAGES: dict[str, tuple[str, ...]] = {
    "as many as there are tags of VLANs, 4,094 at most; upstream has no pages for them": (
        "/trunks/{trunk_id}/get_subports",
    ),
    "as many as the operator has hosts, `cli.up.MOST_HOSTS` at most; Nova has no pages for them": (
        "/os-services", "/os-hosts", "/os-availability-zone/detail", "/os-hosts/{host_name}/reboot",
        "/os-hosts/{host_name}/shutdown", "/os-hosts/{host_name}/startup", "/os-hypervisors/{hypervisor_id}/uptime",
        "/os-hypervisors/{pattern}/search", "/networks/{network_id}/dhcp-agents", "/routers/{router_id}/l3-agents",
    ),
    "the servers, shares, networks and routers of hosts; upstream has no pages for them": (
        "/os-hypervisors/{pattern}/servers", "/resource_providers/{uuid}/allocations",
        "/agents/{agent_id}/dhcp-networks", "/agents/{agent_id}/l3-routers",
    ),
    "what the program brings along, and what administrators add to it": (
        "/extensions", "/resource_classes", "/traits", "/role_inferences", "/auth/catalog", "/auth/tokens",
        "/cumulet/history", "/domains/{domain_id}/config", "/domains/config/{group}/default",
        "/domains/config/{group}/{option}/default", "/resource_providers/{uuid}/inventories",
        "/resource_providers/{uuid}/traits", "/resource_providers/{uuid}/usages",
        "/resource_providers/{uuid}/aggregates", "/metadefs/resource_types",
    ),
    "roles, which administrators make": (
        "/roles/{prior_role_id}/implies", "/domains/{domain_id}/users/{user_id}/roles",
        "/OS-INHERIT/domains/{domain_id}/users/{user_id}/roles/inherited_to_projects",
        "/OS-INHERIT/domains/{domain_id}/users/{user_id}/roles/{role_id}/inherited_to_projects",
        "/OS-INHERIT/projects/{project_id}/users/{user_id}/roles/{role_id}/inherited_to_projects",
        "/domains/{domain_id}/groups/{group_id}/roles",
        "/OS-INHERIT/domains/{domain_id}/groups/{group_id}/roles/inherited_to_projects",
        "/OS-INHERIT/domains/{domain_id}/groups/{group_id}/roles/{role_id}/inherited_to_projects",
        "/OS-INHERIT/projects/{project_id}/groups/{group_id}/roles/{role_id}/inherited_to_projects",
        "/OS-TRUST/trusts/{trust_id}/roles", "/users/{user_id}/OS-OAUTH1/access_tokens/{access_token_id}/roles",
    ),
    "one thing's parts, which have a limit of their own": (
        "/images/{image_id}/metadata", "/images/{image_id}/members", "/images/{image_id}/tasks",
        "/images/{image_id}/file", "/ports/{port_id}/bindings", "/floatingips/{floatingip_id}/port_forwardings",
        "/networks/{network_id}/tags", "/subnets/{subnet_id}/tags", "/subnetpools/{subnetpool_id}/tags",
        "/ports/{port_id}/tags", "/routers/{router_id}/tags", "/floatingips/{floatingip_id}/tags",
        "/images/{image_id}/locations", "/metadefs/namespaces/{namespace}/objects",
        "/metadefs/namespaces/{namespace}/properties", "/metadefs/namespaces/{namespace}/resource_types",
        "/metadefs/namespaces/{namespace}/tags",
        "/qos/policies/{policy_id}/bandwidth_limit_rules", "/qos/policies/{policy_id}/dscp_marking_rules",
        "/qos/policies/{policy_id}/minimum_bandwidth_rules", "/qos/policies/{policy_id}/minimum_packet_rate_rules",
        "/policies/{policy_id}/tags",
        "/security-groups/{security_group_id}/tags", "/trunks/{trunk_id}/tags",
        "/policies/{policy_id}/OS-ENDPOINT-POLICY/endpoints",
    ),
}  # fmt: skip
"""Lists that are not asked for, with the reason. What is new is asked for, or stands here."""
UNASKED = {path for paths in NO_PAGES.values() for path in paths}


def lists() -> Iterator[Operation]:
    """All requests that may answer a list."""
    for service in load_services():
        for operation in service.operations:
            about_one = operation.path.endswith("}") or operation.public or operation.raw_body
            if operation.method == "GET" and not about_one:
                yield operation


LISTS = [operation for operation in lists() if operation.path not in UNASKED]


def test_what_is_not_asked_for_is_there() -> None:
    assert {operation.path for operation in lists()} >= UNASKED


def versions_of(operation: Operation) -> list[Microversion | None]:
    if not operation.service.microversioned:
        return [None]
    first, last = operation.since, operation.until or operation.service.versions[1]
    middle = [Microversion.parse(text) for text in ("2.21", "2.34", "2.39", "2.58", "2.75")]
    return [first, *(one for one in middle if first < one < last), last]


def lengths(value: object) -> Iterator[int]:
    """Of the collections that an answer consists of."""
    if isinstance(value, dict):
        for name, part in value.items():
            if isinstance(part, list) and not name.endswith("links"):
                yield len(part)
                for item in part[:1]:
                    if isinstance(item, dict):
                        yield from lengths({name: item[name] for name in ("events", "members") if name in item})


def things(cloud: TestCloud) -> dict[str, str]:
    """The ids of `THINGS`."""
    admin, member = cloud.persona("admin"), cloud.persona("member")
    servers = member.compute("GET", "/servers?limit=1&sort_key=created_at&sort_dir=asc")["servers"]
    named = {"group": "/groups", "endpoint_group": "/OS-EP-FILTER/endpoint_groups", "endpoint": "/endpoints"}
    found = {f"{kind}_id": admin.request("GET", f"/identity/v3{p}")[f"{kind}s"][0]["id"] for kind, p in named.items()}
    flavor = admin.compute("GET", "/flavors")["flavors"][0]["id"]
    ids = {"server_id": servers[0]["id"], "flavor_id": flavor, **found}
    ids |= {"project_id": str(member.project_id), "user_id": str(member.user_id)}
    assert set(ids) == set(THINGS)
    return ids


@pytest.mark.parametrize("operation", LISTS, ids=lambda o: f"{o.service.type} {o.path}")
def test_no_list_is_longer_than_a_page(small_pages: TestCloud, operation: Operation) -> None:
    admin, member = small_pages.persona("admin"), small_pages.persona("member")
    path = operation.path.format(**things(small_pages))
    for version in versions_of(operation):
        headers = {} if version is None else {"OpenStack-API-Version": f"{operation.service.type} {version}"}
        for client, query in itertools.product((admin, member), ("", "?limit=1000")):
            answer = client.request("GET", operation.service.prefix + path + query, headers=headers)
            if answer.status == 200:
                assert max(lengths(answer.json), default=0) <= PAGE, f"{version}: {answer.text}"


FOLLOWED = [
    ("/compute/v2.1/servers", "servers"), ("/compute/v2.1/flavors", "flavors"),
    ("/compute/v2.1/os-migrations", "migrations"),
    ("/compute/v2.1/servers/{server}/os-instance-actions", "instanceActions"),
    ("/network/v2.0/networks", "networks"), ("/network/v2.0/ports", "ports"),
    ("/network/v2.0/security-groups", "security_groups"), ("/image/v2/images", "images"),
    ("/identity/v3/users", "users"), ("/identity/v3/projects", "projects"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "key"), FOLLOWED)
def test_links_lead_through_all_pages(small_pages: TestCloud, path: str, key: str) -> None:
    member = small_pages.persona("admin" if "identity" in path or "migrations" in path else "member")
    server = small_pages.persona("member").compute("GET", "/servers?sort_dir=asc&limit=1")["servers"][0]["id"]
    url: str | None = path.format(project=member.project_id, server=server)
    seen: list[str] = []
    while url is not None:
        headers = {"OpenStack-API-Version": "compute 2.96"} if "compute" in path else {}
        answer = member.request("GET", url, headers=headers)
        assert answer.status == 200, answer.text
        page = answer[key]
        assert len(page) <= PAGE
        seen += [row.get("id") or row.get("request_id") for row in page]
        url = _following(answer.json, key)
    assert len(seen) == len(set(seen)) >= MORE


def _following(answer: JsonObject, key: str) -> str | None:
    if "next" in answer:
        return f"/image{answer['next']}"
    links = answer.get("links")
    if isinstance(links, dict):
        return links.get("next")
    found = answer.get(f"{key}_links") or links or []
    return next((link["href"] for link in found if link["rel"] == "next"), None)


# -- the event loop


def of_a_reconciler() -> bool:
    """Whether a task of the conductor runs on this loop: those have names."""
    task = asyncio.current_task()
    return task is not None and not task.get_name().startswith("Task-")


def steps(database: Database, work: Callable[[], object]) -> int:
    """How many steps SQLite's machine takes for what is read on the event loop meanwhile."""
    count = 0

    def step() -> int:
        nonlocal count
        count += threading.current_thread().name == "cumulet-cloud" and not of_a_reconciler()
        return 0

    def watched(fn: Callable[[Tx], object]) -> Any:
        def counted(tx: Tx) -> Any:
            driver: Any = tx.connection.connection.dbapi_connection
            driver.set_progress_handler(step, 1)
            try:
                return fn(tx)
            finally:
                driver.set_progress_handler(None, 1)

        return read(counted)

    read = database.read
    database.read = watched  # type: ignore[method-assign]
    try:
        work()
    finally:
        database.read = read  # type: ignore[method-assign]
    return count


LOOKUPS = [operation for service in load_services() for operation in service.operations if operation.lookup]


@pytest.mark.skipif(VARIABLE in os.environ, reason="about SQLite itself: elsewhere nothing is looked up there")
def test_what_is_done_on_the_event_loop_costs_the_same_however_many_rows_there_are(
    cloud: TestCloud, member: Client
) -> None:
    server = create(member)["id"]
    image = member.request("GET", "/image/v2/images")["images"][0]["id"]
    paths = {
        "/servers/{server_id}": f"/compute/v2.1/servers/{server}",
        "/images/{image_id}": f"/image/v2/images/{image}",
    }
    assert {operation.path for operation in LOOKUPS} == set(paths)
    headers = {"OpenStack-API-Version": "compute 2.96"}

    def ask() -> None:
        for path in paths.values():
            assert member.request("GET", path, headers=headers).status == 200

    ask()
    few = steps(cloud.embedded.db, ask)
    assert few > 0
    for n in range(10):
        if n < 8:  # its quota
            create(member, name=f"more-{n}", metadata={"a": "b"}, tags=["tag"])
        member.request("POST", "/image/v2/images", {"name": f"{n}", "disk_format": "raw", "container_format": "bare"})
    cloud.embedded.db.write(lambda tx: _many_rows(tx, server, member, 200, cloud.clock.now_us()))
    assert steps(cloud.embedded.db, ask) == few


def test_everything_else_is_read_by_other_threads(small_pages: TestCloud) -> None:
    member = small_pages.persona("member")
    server = member.compute("GET", "/servers?limit=1")["servers"][0]["id"]

    def ask() -> None:
        for path in ("/servers/detail", f"/servers/{server}/os-instance-actions", f"/servers/{server}/tags"):
            assert member.compute("GET", path).status == 200

    assert steps(small_pages.embedded.db, ask) == 0
