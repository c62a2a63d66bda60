"""Servers: listed, shown, changed, deleted. They are created in `server_creation`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

import sqlalchemy as sa

from cumulet.compute import attribute_types as t
from cumulet.compute.deletion import begin_delete
from cumulet.compute.flavors import ShowQuery
from cumulet.compute.links import links, next_links, page
from cumulet.compute.model import Server
from cumulet.compute.rules import ADMIN, MEMBER, READER
from cumulet.compute.server_filters import ServersQuery, select_servers
from cumulet.compute.server_shapes import select_for_views
from cumulet.compute.server_views import (
    ServerToShow,
    Viewer,
    server_to_show,
    shown,
    view_server,
)
from cumulet.compute.service import COMPUTE
from cumulet.compute.sight import server_in_sight
from cumulet.compute.states import require_state
from cumulet.compute.store import hosts, servers, update_server
from cumulet.db.engine import Tx
from cumulet.errors import Conflict
from cumulet.network.devices import PROJECT_OF
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import rule
from cumulet.web.schema import UNSET, Body, Json, Key, Since, Unset, Versions

INDEX = rule("os_compute_api:servers:index", READER)
INDEX_ALL = rule("os_compute_api:servers:index:get_all_tenants", ADMIN)
DETAIL = rule("os_compute_api:servers:detail", READER)
DETAIL_ALL = rule("os_compute_api:servers:detail:get_all_tenants", ADMIN)
SHOW = rule("os_compute_api:servers:show", READER)
UPDATE = rule("os_compute_api:servers:update", MEMBER)
DELETE = rule("os_compute_api:servers:delete", MEMBER)

ServerHostname = Annotated[str | Unset, Versions(("2.90", t.Hostname), ("2.94", t.HostName))]


def _project_of_server(tx: Tx, server_id: str) -> str | None:
    return tx.scalar(sa.select(servers.c.project_id).where(servers.c.id == server_id))  # type: ignore[no-any-return]


PROJECT_OF.append(_project_of_server)


class UpdateServer(Body):
    name: t.Name | Unset = UNSET
    disk_config: Annotated[t.DiskConfig | Unset, Key("OS-DCF:diskConfig")] = UNSET
    access_ipv4: Annotated[t.IpV4 | Unset, Key("accessIPv4")] = UNSET
    access_ipv6: Annotated[t.IpV6 | Unset, Key("accessIPv6")] = UNSET
    description: Annotated[t.Description | Unset, Since("2.19")] = UNSET
    hostname: ServerHostname = UNSET
    pinned_zone: Annotated[
        str | Unset | None,
        Key("pinned_availability_zone"),
        Json({"type": ["string", "null"], "minLength": 1, "maxLength": 255}),
        Since("2.104"),
    ] = UNSET


@COMPUTE.operation("GET", "/servers", rules=(Rule(INDEX),), query=ServersQuery)
def list_servers(call: Call[None, None]) -> dict[str, object]:
    """List servers: id, name and links."""
    found = select_servers(call, sa.select(servers.c.id, servers.c.name), all_tenants_rule=INDEX_ALL)
    brief = [{"id": row.id, "name": row.name, "links": links(call, "servers", row.id)} for row in found]
    return _listed(call, "servers", brief)


@COMPUTE.operation("GET", "/servers/detail", rules=(Rule(DETAIL),), query=ServersQuery)
def list_servers_in_detail(call: Call[None, None]) -> dict[str, object]:
    """List servers with all that may be shown of them."""
    found = select_servers(call, select_for_views(), all_tenants_rule=DETAIL_ALL)
    return _listed(call, "servers/detail", Viewer(call, shown(call), found).views())


@COMPUTE.operation(
    "GET", "/servers/{server_id}", rules=(Rule(SHOW),), target=server_to_show, query=ShowQuery, lookup=True
)
def show_server(call: Call[ServerToShow, None]) -> dict[str, object]:
    """Show a server."""
    return {"server": Viewer.of_one(call, shown(call, groups=True), call.target)}


@COMPUTE.operation(
    "PUT", "/servers/{server_id}", rules=(Rule(UPDATE),), target=server_in_sight, body=UpdateServer, body_key="server"
)
def update_a_server(call: Call[Server, UpdateServer]) -> dict[str, object]:
    """Change a server's name, description, access addresses, host name or pinned zone."""
    server, body = call.target, call.body
    changes: dict[str, object] = {
        name: value
        for name in ("name", "disk_config", "access_ipv4", "access_ipv6", "description", "hostname")
        if (value := getattr(body, name)) is not UNSET
    }
    if not isinstance(body.pinned_zone, Unset):
        _require_pinnable(call.tx, server, body.pinned_zone)
        changes["requested_zone"] = body.pinned_zone
    update_server(call.tx, server, now_us=call.now_us, **changes)
    full = call.version.at_least("2.75")
    return {"server": view_server(call, server.id, shown(call, full=full, groups=True))}


@COMPUTE.operation("DELETE", "/servers/{server_id}", rules=(Rule(DELETE),), target=server_in_sight, success=204)
def delete_server(call: Call[Server, None]) -> None:
    """Delete a server, whatever it is doing."""
    require_state(call.target, "delete", call.caller)
    begin_delete(call, call.target)


def zone_of(tx: Tx, server: Server) -> str | None:
    """The zone a server is in: its host's, or the one asked for as long as it has none."""
    if server.host is None:
        return server.requested_zone
    zone: str | None = tx.scalar(sa.select(hosts.c.zone).where(hosts.c.name == server.host))
    return zone


def _require_pinnable(tx: Tx, server: Server, zone: str | None) -> None:
    if zone is None or zone == server.requested_zone:
        return
    if server.requested_zone is not None:
        raise Conflict(
            "Cannot change pinned availability zone directly. Unpin first by setting pinned_availability_zone to null."
        )
    current = zone_of(tx, server)
    if zone != current:
        raise Conflict(
            f"Server can only be pinned to its current availability zone '{current}', but '{zone}' was requested."
        )


def _listed(call: Call[object, object], path: str, views: Sequence[Mapping[str, object]]) -> dict[str, object]:
    answer: dict[str, object] = {"servers": views}
    if following := next_links(call, path, page(call), len(views), views[-1]["id"] if views else ""):
        answer["servers_links"] = following
    return answer
