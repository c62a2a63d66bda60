"""Revision numbers: they rise when something changed and only then, and ``If-Match`` refuses a lost update."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from cumulet.network.service import NETWORK
from cumulet.testing import Answer, Client
from tests.api.test_network_stories import call, make, network_with_subnet, public

PATHS = {
    "network": "/networks",
    "subnet": "/subnets",
    "subnetpool": "/subnetpools",
    "port": "/ports",
    "router": "/routers",
    "floatingip": "/floatingips",
    "security_group": "/security-groups",
}


def made(client: Client, kind: str) -> str:
    """The path of a new resource of this kind."""
    network_id, subnet_id = network_with_subnet(client)
    attributes: dict[str, dict[str, object]] = {
        "port": {"network_id": network_id},
        "floatingip": {"floating_network_id": public(client)},
        "subnetpool": {"name": "p", "prefixes": ["10.9.0.0/16"]},
    }
    if kind == "subnet":
        return f"/subnets/{subnet_id}"
    return f"{PATHS[kind]}/{make(client, kind, PATHS[kind], **attributes.get(kind, {}))['id']}"


def revision(client: Client, path: str) -> int:
    (shown,) = call(client, "GET", path).json.values()
    number: int = shown["revision_number"]
    return number


def conditional(client: Client, method: str, path: str, wanted: object, body: object = None) -> int:
    headers = {"If-Match": f"revision_number={wanted}"}
    return client.request(method, f"/network/v2.0{path}", body, headers=headers).status


@pytest.mark.parametrize("kind", PATHS)
def test_what_was_changed_meanwhile_is_neither_overwritten_nor_deleted(
    member: Client, reader: Client, other_member: Client, kind: str
) -> None:
    path = made(member, kind)
    seen = revision(member, path)
    changed = {kind: {"description": "first"}}
    assert conditional(member, "PUT", path, seen, changed) == 200
    late = {kind: {"description": "second"}}
    for method, body in (("PUT", late), ("DELETE", None)):
        assert conditional(member, method, path, seen, body) == 412
        assert conditional(member, method, path, seen + 2, body) == 412
        assert conditional(member, method, path, "now", body) == 400
        assert conditional(member, "GET", path, seen) == 200
        # Who may not change it is told that, not which revision it has.
        assert conditional(reader, method, path, seen, body) == 403
        assert conditional(other_member, method, path, seen, body) == 404
    assert call(member, "GET", path)[kind]["description"] == "first"
    assert conditional(member, "DELETE", path, seen + 1) == 204


def test_every_change_of_something_with_a_revision_can_be_conditional() -> None:
    assert NETWORK.precondition is not None
    changing = [o for o in NETWORK.operations if o.method in ("PUT", "DELETE") and "{" in o.path]
    without_target = {(o.method, o.path) for o in changing if o.target is None}
    assert without_target == {
        ("PUT", "/quotas/{project_id}"),
        ("DELETE", "/quotas/{project_id}"),
        ("DELETE", "/auto-allocated-topology/{project_id}"),
    }


@pytest.mark.parametrize("kind", PATHS)
def test_a_change_that_changes_nothing_counts_no_revision(member: Client, kind: str) -> None:
    path = made(member, kind)
    before = call(member, "GET", path)[kind]
    for attribute in ("name", "description"):
        if attribute in before:
            assert call(member, "PUT", path, {kind: {attribute: before[attribute]}}).status == 200
    assert call(member, "GET", path)[kind] == before
    assert (
        call(member, "PUT", path, {kind: {"description": "other"}})[kind]["revision_number"] > before["revision_number"]
    )


def test_what_belongs_to_a_resource_counts_its_revision(member: Client) -> None:
    network_id, subnet_id = network_with_subnet(member)
    network, subnet = f"/networks/{network_id}", f"/subnets/{subnet_id}"
    port = f"/ports/{make(member, 'port', network_id=network_id)['id']}"
    group_id = make(member, "security_group", name="g")["id"]
    group = f"/security-groups/{group_id}"
    router = f"/routers/{make(member, 'router')['id']}"
    addresses = [{"ip_address": "10.1.0.77"}]
    rule = {"security_group_id": group_id, "direction": "ingress"}

    def change(path: str, **attributes: object) -> Callable[[], Any]:
        kind = path.split("/")[1].removesuffix("s").replace("-", "_")
        return lambda: call(member, "PUT", path, {kind: attributes})

    steps: list[tuple[str, Callable[[], object], bool]] = [
        (network, change(subnet, name="x"), True),
        (network, change(subnet, name="x"), False),
        (network, lambda: make(member, "subnet", network_id=network_id, ip_version=4, cidr="10.2.0.0/24"), True),
        (network, lambda: call(member, "PUT", f"{network}/tags", {"tags": ["a", "b"]}), True),
        (network, lambda: call(member, "PUT", f"{network}/tags", {"tags": ["b", "a"]}), False),
        (network, lambda: call(member, "PUT", f"{network}/tags/a"), False),
        (network, lambda: call(member, "DELETE", f"{network}/tags/a"), True),
        (port, change(port, fixed_ips=addresses), True),
        (port, change(port, fixed_ips=addresses), False),
        (port, change(port, security_groups=[group_id]), True),
        (port, change(port, security_groups=[group_id]), False),
        (port, change(port, allowed_address_pairs=[{"ip_address": "1.2.3.4"}]), True),
        (port, change(port, allowed_address_pairs=[{"ip_address": "1.2.3.4"}]), False),
        (port, change(port, **{"binding:vnic_type": "normal"}), False),
        (port, change(port, **{"binding:vnic_type": "direct"}), True),
        (group, lambda: make(member, "security_group_rule", **rule), True),
        (router, lambda: call(member, "PUT", f"{router}/add_router_interface", {"subnet_id": subnet_id}), True),
        (router, change(router, routes=[{"destination": "10.7.0.0/16", "nexthop": "10.1.0.9"}]), True),
        (router, change(router, routes=[{"destination": "10.7.0.0/16", "nexthop": "10.1.0.9"}]), False),
    ]
    for number, (path, step, rises) in enumerate(steps):
        before = revision(member, path)
        done = step()
        assert not isinstance(done, Answer) or done.status < 300, f"step {number} of {path}: {done.text}"
        assert (revision(member, path) > before) is rises, f"step {number} of {path}"
