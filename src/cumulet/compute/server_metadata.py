"""A server's metadata: free keys and values."""

from __future__ import annotations

from typing import Annotated

from cumulet.compute import attribute_types as t
from cumulet.compute.flavors import ShowQuery
from cumulet.compute.model import Server
from cumulet.compute.quotas import limits_of, require_limit
from cumulet.compute.rules import MEMBER, READER
from cumulet.compute.service import COMPUTE
from cumulet.compute.sight import server_in_sight
from cumulet.compute.states import require_state
from cumulet.compute.store import update_server
from cumulet.errors import BadRequest, NotFound
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import rule
from cumulet.web.schema import Body, Json

INDEX = rule("os_compute_api:server-metadata:index", READER)
SHOW = rule("os_compute_api:server-metadata:show", READER)
CREATE = rule("os_compute_api:server-metadata:create", MEMBER)
UPDATE_ALL = rule("os_compute_api:server-metadata:update_all", MEMBER)
UPDATE = rule("os_compute_api:server-metadata:update", MEMBER)
DELETE = rule("os_compute_api:server-metadata:delete", MEMBER)

PATH = "/servers/{server_id}/metadata"


class ManyItems(Body):
    metadata: t.Metadata


class OneItem(Body):
    meta: Annotated[t.Metadata, Json({"minProperties": 1, "maxProperties": 1})]


@COMPUTE.operation("GET", PATH, rules=(Rule(INDEX),), target=server_in_sight, query=ShowQuery)
def list_metadata(call: Call[Server, None]) -> dict[str, object]:
    """Show a server's metadata."""
    return {"metadata": call.target.metadata}


@COMPUTE.operation("GET", PATH + "/{key}", rules=(Rule(SHOW),), target=server_in_sight, query=ShowQuery)
def show_metadata_item(call: Call[Server, None]) -> dict[str, object]:
    """Show one item."""
    key = call.path["key"]
    _require_item(call.target, key)
    return {"meta": {key: call.target.metadata[key]}}


@COMPUTE.operation("POST", PATH, rules=(Rule(CREATE),), target=server_in_sight, body=ManyItems)
def add_metadata(call: Call[Server, ManyItems]) -> dict[str, object]:
    """Add items, over those the server has."""
    return {"metadata": _store(call, call.target.metadata | call.body.metadata)}


@COMPUTE.operation("PUT", PATH, rules=(Rule(UPDATE_ALL),), target=server_in_sight, body=ManyItems)
def replace_metadata(call: Call[Server, ManyItems]) -> dict[str, object]:
    """Replace all items."""
    return {"metadata": _store(call, call.body.metadata)}


@COMPUTE.operation("PUT", PATH + "/{key}", rules=(Rule(UPDATE),), target=server_in_sight, body=OneItem)
def set_metadata_item(call: Call[Server, OneItem]) -> dict[str, object]:
    """Set one item."""
    if call.path["key"] not in call.body.meta:
        raise BadRequest("Request body and URI mismatch")
    _store(call, call.target.metadata | call.body.meta)
    return {"meta": call.body.meta}


@COMPUTE.operation("DELETE", PATH + "/{key}", rules=(Rule(DELETE),), target=server_in_sight, success=204)
def delete_metadata_item(call: Call[Server, None]) -> None:
    """Remove one item."""
    key = call.path["key"]
    _require_item(call.target, key)
    require_state(call.target, "delete metadata", call.caller)
    kept = {name: value for name, value in call.target.metadata.items() if name != key}
    update_server(call.tx, call.target, now_us=call.now_us, metadata=kept)


def _store(call: Call[Server, object], metadata: dict[str, str]) -> dict[str, str]:
    server = call.target
    require_state(server, "update metadata", call.caller)
    require_limit(
        limits_of(call.tx, server.project_id),
        "metadata_items",
        len(metadata),
        words="Maximum number of metadata items exceeds {allowed}",
    )
    update_server(call.tx, server, now_us=call.now_us, metadata=metadata)
    return metadata


def _require_item(server: Server, key: str) -> None:
    if key not in server.metadata:
        raise NotFound("Metadata item was not found")
