"""A server's tags (2.26): short words to find it by."""

from __future__ import annotations

import re
from typing import Annotated, Any
from urllib.parse import quote

import sqlalchemy as sa

from cumulet.compute import attribute_types as t
from cumulet.compute.flavors import ShowQuery
from cumulet.compute.links import self_link
from cumulet.compute.model import Server
from cumulet.compute.rules import MEMBER, READER
from cumulet.compute.service import COMPUTE
from cumulet.compute.sight import server_in_sight
from cumulet.compute.states import require_state
from cumulet.compute.store import server_tags
from cumulet.db.engine import Tx
from cumulet.errors import BadRequest, NotFound
from cumulet.web.formats import is_one_line
from cumulet.web.operation import Call, Reply, Rule
from cumulet.web.policy import rule
from cumulet.web.schema import Body, Json

INDEX = rule("os_compute_api:os-server-tags:index", READER)
SHOW = rule("os_compute_api:os-server-tags:show", READER)
UPDATE = rule("os_compute_api:os-server-tags:update", MEMBER)
UPDATE_ALL = rule("os_compute_api:os-server-tags:update_all", MEMBER)
DELETE = rule("os_compute_api:os-server-tags:delete", MEMBER)
DELETE_ALL = rule("os_compute_api:os-server-tags:delete_all", MEMBER)

PATH = "/servers/{server_id}/tags"
MOST_TAGS = 50
LONGEST_TAG = 60
_TAG = re.compile(r"[^,/]*\Z")


class Tags(Body):
    tags: Annotated[list[t.Tag], Json({"maxItems": MOST_TAGS})]


@COMPUTE.operation("GET", PATH, rules=(Rule(INDEX),), target=server_in_sight, query=ShowQuery, since="2.26")
def list_tags(call: Call[Server, None]) -> dict[str, object]:
    """List a server's tags."""
    return {"tags": _tags(call.tx, call.target.id)}


@COMPUTE.operation(
    "GET", PATH + "/{tag}", rules=(Rule(SHOW),), target=server_in_sight, query=ShowQuery, since="2.26", success=204
)
def check_tag(call: Call[Server, None]) -> None:
    """Answer whether a server has a tag: 204 or 404."""
    _require_tag(call)


@COMPUTE.operation("PUT", PATH + "/{tag}", rules=(Rule(UPDATE),), target=server_in_sight, body=t.Nothing, since="2.26")
def add_tag(call: Call[Server, t.Nothing]) -> Reply:
    """Tag a server: 201, or 204 if it was tagged so."""
    server, tag = call.target, call.path["tag"]
    require_state(server, "update tag", call.caller)
    _require_valid(tag)
    held = _tags(call.tx, server.id)
    if tag in held:
        return Reply(status=204)
    if len(held) >= MOST_TAGS:
        raise BadRequest(f"The number of tags exceeded the per-server limit {MOST_TAGS}")
    call.tx.execute(sa.insert(server_tags).values(server_id=server.id, tag=tag))
    return Reply(
        status=201, headers={"Location": self_link(call, f"servers/{server.id}/tags", quote(tag, safe=""))["href"]}
    )


@COMPUTE.operation("PUT", PATH, rules=(Rule(UPDATE_ALL),), target=server_in_sight, body=Tags, since="2.26")
def replace_tags(call: Call[Server, Tags]) -> dict[str, object]:
    """Replace all tags."""
    server = call.target
    require_state(server, "update tags", call.caller)
    call.tx.execute(sa.delete(server_tags).where(server_tags.c.server_id == server.id))
    if wanted := dict.fromkeys(call.body.tags):
        call.tx.execute(sa.insert(server_tags), [{"server_id": server.id, "tag": tag} for tag in wanted])
    return {"tags": _tags(call.tx, server.id)}


@COMPUTE.operation("DELETE", PATH + "/{tag}", rules=(Rule(DELETE),), target=server_in_sight, since="2.26", success=204)
def remove_tag(call: Call[Server, None]) -> None:
    """Take a tag from a server."""
    require_state(call.target, "delete tag", call.caller)
    _require_tag(call)
    call.tx.execute(_one(call.target.id, call.path["tag"], sa.delete(server_tags)))


@COMPUTE.operation("DELETE", PATH, rules=(Rule(DELETE_ALL),), target=server_in_sight, since="2.26", success=204)
def remove_tags(call: Call[Server, None]) -> None:
    """Take all tags from a server."""
    require_state(call.target, "delete tags", call.caller)
    call.tx.execute(sa.delete(server_tags).where(server_tags.c.server_id == call.target.id))


def _tags(tx: Tx, server_id: str) -> list[str]:
    query = sa.select(server_tags.c.tag).where(server_tags.c.server_id == server_id).order_by(server_tags.c.tag)
    return [row.tag for row in tx.all(query)]


def _one(server_id: str, tag: str, statement: Any) -> Any:
    return statement.where(server_tags.c.server_id == server_id, server_tags.c.tag == tag)


def _require_tag(call: Call[Server, None]) -> None:
    server, tag = call.target, call.path["tag"]
    if call.tx.first(_one(server.id, tag, sa.select(server_tags.c.tag))) is None:
        raise NotFound(f"Server {server.id} has no tag '{tag}'")


def _require_valid(tag: str) -> None:
    if not 0 < len(tag) <= LONGEST_TAG or not _TAG.match(tag) or not is_one_line(tag):
        raise BadRequest(
            f"Tag '{tag}' is invalid. It must be a non empty string without characters '/' and ','. "
            f"Validation error message: it is at most {LONGEST_TAG} characters long"
        )
