"""/projects/{project_id}/tags: words by which projects are found."""

from __future__ import annotations

from typing import TypedDict
from urllib.parse import quote

from sqlalchemy import delete, select

from cumulet.errors import BadRequest, NotFound
from cumulet.identity import store
from cumulet.identity.api import ANYWHERE, IDENTITY, known
from cumulet.identity.domains import Tags
from cumulet.identity.projects import MANAGE, SEE, project_facts, project_in_path, set_tags
from cumulet.identity.store import Project
from cumulet.web.formats import is_one_line
from cumulet.web.operation import Call, Reply, Rule
from cumulet.web.policy import rule
from cumulet.web.schema import Body, Empty

LIST_TAGS = rule("identity:list_project_tags", SEE, scope=ANYWHERE)
GET_TAG = rule("identity:get_project_tag", SEE, scope=ANYWHERE)
UPDATE_TAGS = rule("identity:update_project_tags", MANAGE, scope=ANYWHERE)
CREATE_TAG = rule("identity:create_project_tag", MANAGE, scope=ANYWHERE)
DELETE_TAGS = rule("identity:delete_project_tags", MANAGE, scope=ANYWHERE)
DELETE_TAG = rule("identity:delete_project_tag", MANAGE, scope=ANYWHERE)

MOST_TAGS = 80


class NewTags(Body):
    tags: Tags


TAGS = "/projects/{project_id}/tags"
TAG = "/projects/{project_id}/tags/{tag}"


class TagsView(TypedDict):
    tags: list[str]
    links: dict[str, str]


def _tags_view(call: Call[Project | None, object]) -> TagsView:
    t = store.project_tags.c
    rows = call.tx.all(select(t.tag).where(t.project_id == call.path["project_id"]).order_by(t.tag))
    url = f"{call.service_url}/projects/{call.path['project_id']}/tags"
    return {"tags": [row.tag for row in rows], "links": {"self": url}}


@IDENTITY.operation("GET", TAGS, rules=(Rule(LIST_TAGS),), target=project_in_path, facts=project_facts)
def list_project_tags(call: Call[Project | None, None]) -> TagsView:
    """List a project's tags."""
    known(call.target, "project", call.path["project_id"])
    return _tags_view(call)


@IDENTITY.operation("PUT", TAGS, rules=(Rule(UPDATE_TAGS),), target=project_in_path, facts=project_facts, body=NewTags)
def replace_project_tags(call: Call[Project | None, NewTags]) -> TagsView:
    """Give a project exactly these tags."""
    project = known(call.target, "project", call.path["project_id"])
    set_tags(call.tx, project.id, call.body.tags)
    return _tags_view(call)


@IDENTITY.operation(
    "DELETE", TAGS, rules=(Rule(DELETE_TAGS),), target=project_in_path, facts=project_facts, success=204
)
def delete_project_tags(call: Call[Project | None, None]) -> None:
    """Take all tags off a project."""
    project = known(call.target, "project", call.path["project_id"])
    set_tags(call.tx, project.id, [])


@IDENTITY.operation("GET", TAG, rules=(Rule(GET_TAG),), target=project_in_path, facts=project_facts, success=204)
def check_project_tag(call: Call[Project | None, None]) -> None:
    """Say whether a project has a tag."""
    known(call.target, "project", call.path["project_id"])
    _require_tag(call)


@IDENTITY.operation(
    "PUT", TAG, rules=(Rule(CREATE_TAG),), target=project_in_path, facts=project_facts, body=Empty, success=201
)
def add_project_tag(call: Call[Project | None, Empty]) -> Reply:
    """Put one more tag on a project."""
    project = known(call.target, "project", call.path["project_id"])
    tag = call.path["tag"]
    if not 1 <= len(tag) <= 255 or "," in tag or "/" in tag or not is_one_line(tag):
        raise BadRequest("Invalid input for field tag: one line of 1 to 255 characters without comma or slash.")
    tags = {*_tags_view(call)["tags"], tag}
    if len(tags) > MOST_TAGS:
        raise BadRequest(f"A project has at most {MOST_TAGS} tags.")
    set_tags(call.tx, project.id, tags)
    return Reply(
        status=201, headers={"Location": f"{call.service_url}/projects/{project.id}/tags/{quote(tag, safe='')}"}
    )


@IDENTITY.operation("DELETE", TAG, rules=(Rule(DELETE_TAG),), target=project_in_path, facts=project_facts, success=204)
def delete_project_tag(call: Call[Project | None, None]) -> None:
    """Take one tag off a project."""
    project = known(call.target, "project", call.path["project_id"])
    _require_tag(call)
    t = store.project_tags.c
    call.tx.execute(delete(store.project_tags).where(t.project_id == project.id, t.tag == call.path["tag"]))


def _require_tag(call: Call[object, object]) -> None:
    t = store.project_tags.c
    statement = select(t.tag).where(t.project_id == call.path["project_id"], t.tag == call.path["tag"])
    if call.tx.first(statement) is None:
        raise NotFound(f"Could not find project tag: {call.path['tag']}.")
