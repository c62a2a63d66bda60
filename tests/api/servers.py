"""Servers as stories make and move them, and what the cloud says of them."""

from __future__ import annotations

from collections.abc import Callable

from cumulet.compute import operations
from cumulet.image import store as image_store
from cumulet.testing import Client, JsonObject, TestCloud
from cumulet.web.operation import Call

LATEST = "2.104"
AUTO = {"block_migration": "auto"}


def image_and_flavor(client: Client) -> dict[str, str]:
    image = client.request("GET", "/image/v2/images?name=cumulet-tiny")["images"][0]["id"]
    flavors = client.compute("GET", "/flavors")["flavors"]
    return {"imageRef": image, "flavorRef": next(f["id"] for f in flavors if f["name"] == "m1.nano")}


def create_pair(client: Client, **more: object) -> list[str]:
    """Two servers from one request, both ACTIVE; their ids."""
    wanted = {"name": "pair", "networks": "none", "min_count": 2, "max_count": 2, "return_reservation_id": True}
    answer = client.compute("POST", "/servers", {"server": wanted | image_and_flavor(client) | more})
    assert answer.status == 202, answer.text
    found = client.compute("GET", f"/servers?reservation_id={answer['reservation_id']}")["servers"]
    ids = [server["id"] for server in found]
    assert len(ids) == 2
    for server_id in ids:
        client.wait_for_status(server_id, "ACTIVE")
    return ids


def host_of(admin: Client, server_id: str) -> str:
    host: str = admin.server(server_id)["OS-EXT-SRV-ATTR:host"]
    return host


def other(host: str) -> str:
    return {"host1": "host2", "host2": "host1"}[host]


def last_migration(admin: Client, server_id: str) -> JsonObject:
    found = admin.compute("GET", f"/os-migrations?instance_uuid={server_id}")["migrations"]
    newest: JsonObject = max(found, key=lambda migration: migration["id"])
    return newest


def leftovers(cloud: TestCloud, admin: Client, server_id: str) -> JsonObject:
    """What every part of the cloud says of one server: hypervisors, placement, port bindings."""
    allocations = admin.request("GET", f"/placement/allocations/{server_id}")["allocations"]
    providers = {
        provider["uuid"]: provider["name"]
        for provider in admin.request("GET", "/placement/resource_providers")["resource_providers"]
    }
    ports = admin.request("GET", f"/network/v2.0/ports?device_id={server_id}")["ports"]
    return {
        "guests": {host: cloud.guests(host)[server_id] for host in cloud.hosts if server_id in cloud.guests(host)},
        "allocated": sorted(providers[uuid] for uuid in allocations),
        "bound": sorted({port["binding:host_id"] for port in ports}),
    }


def event_details(admin: Client, server_id: str, name: str = "live-migration") -> str:
    """What an administrator reads of the newest live migration's events, or of another action's."""
    actions = admin.compute("GET", f"/servers/{server_id}/os-instance-actions")["instanceActions"]
    request = next(action["request_id"] for action in actions if action["action"] == name)
    action = admin.compute("GET", f"/servers/{server_id}/os-instance-actions/{request}")["instanceAction"]
    return " ".join(str(event.get("details")) for event in action["events"])


def and_then_the_image_goes(image_id: str) -> Callable[..., str]:
    """In place of `operations.begin`: when the operation's first step comes, the image is gone."""
    begin: Callable[..., str] = operations.begin

    def begun(call: Call[object, object], *rest: object, **more: object) -> str:
        image_store.delete(call.tx, image_id, call.now_us)
        return begin(call, *rest, **more)

    return begun


def slow_server(admin: Client, client: Client, **more: object) -> str:
    """A server that dirties its memory faster than it can be copied: its migration does not end by itself."""
    flavor = admin.compute("POST", "/flavors", {"flavor": {"name": "busy", "vcpus": 1, "ram": 1024, "disk": 1}})[
        "flavor"
    ]
    specs = {"extra_specs": {"cumulet:dirty_rate_mib_s": "100000"}}
    assert admin.compute("POST", f"/flavors/{flavor['id']}/os-extra_specs", specs).status == 200
    return create_pair(client, flavorRef=flavor["id"], **more)[0]


def running_migration(client: Client, server_id: str) -> JsonObject:
    def found() -> JsonObject | None:
        running = client.compute("GET", f"/servers/{server_id}/migrations")["migrations"]
        return running[0] if running and running[0]["status"] == "running" else None

    migration: JsonObject = client.wait("a running migration", found)
    return migration


def force(admin: Client, server_id: str) -> None:
    migration = running_migration(admin, server_id)
    path = f"/servers/{server_id}/migrations/{migration['id']}/action"
    assert admin.compute("POST", path, {"force_complete": None}).status == 202
