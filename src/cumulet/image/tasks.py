"""Tasks: each shows how an import goes. A project sees those of its images; administrators can list all."""

from __future__ import annotations

import json
from collections.abc import Mapping

import msgspec
import sqlalchemy as sa

from cumulet.clock import iso_z
from cumulet.db.engine import Select, Tx, metadata
from cumulet.errors import BadRequest, MethodNotAllowed, NotFound
from cumulet.image import paging
from cumulet.image.schemas import serve
from cumulet.image.service import ADMIN, GET_IMAGE, IMAGE, facts_of_call, image_in_sight
from cumulet.image.store import Image
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import rule

TASKS_API_ACCESS = rule("tasks_api_access", ADMIN, description="Use the list of all tasks.")

KEPT_US = 48 * 3600 * 1_000_000
"""How long a task is kept when it has ended."""
MOST_ENDED = 256
"""How many tasks of one project are kept when they have ended: the newest."""
STATUSES = ("pending", "processing", "success", "failure")
ENDED = ("success", "failure")
TYPES = ("import", "api_image_import")
SORT_KEYS = ("created_at", "updated_at", "id", "type", "status")

tasks = sa.Table(
    "image_tasks",
    metadata,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("type", sa.String(32), nullable=False),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("owner", sa.String(255), index=True),
    sa.Column("image_id", sa.String(36), nullable=False, index=True),
    sa.Column("user_id", sa.String(255)),
    sa.Column("request_id", sa.String(64)),
    sa.Column("input", sa.Text, nullable=False),
    sa.Column("result", sa.Text),
    sa.Column("message", sa.Text, nullable=False),
    sa.Column("created_at_us", sa.BigInteger, nullable=False),
    sa.Column("updated_at_us", sa.BigInteger, nullable=False),
    sa.Column("expires_at_us", sa.BigInteger, index=True),
)


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """One import. `input` and `result` are JSON."""

    id: str
    type: str
    status: str
    owner: str | None
    image_id: str
    user_id: str | None
    request_id: str | None
    input: str
    result: str | None = None
    message: str = ""
    created_at_us: int
    updated_at_us: int
    expires_at_us: int | None = None


def add(tx: Tx, task: Task) -> None:
    """Record a task, and delete those that are too old or too many."""
    tx.execute(sa.delete(tasks).where(tasks.c.expires_at_us <= task.created_at_us))
    mine = tasks.c.owner == task.owner
    ended = sa.select(tasks.c.id).where(mine, tasks.c.status.in_(ENDED)).order_by(tasks.c.updated_at_us.desc())
    old = [row.id for row in tx.all(ended.offset(MOST_ENDED - 1))]
    if old:
        tx.execute(sa.delete(tasks).where(tasks.c.id.in_(old)))
    tx.execute(sa.insert(tasks).values(msgspec.structs.asdict(task)))


def change(tx: Tx, task_id: str, status: str, now_us: int, *, message: str = "", result: object = None) -> None:
    """Set the task's status. A task that has ended stays as it is."""
    values: dict[str, object] = {"status": status, "message": message, "updated_at_us": now_us}
    if status in ENDED:
        values |= {"expires_at_us": now_us + KEPT_US, "result": None if result is None else json.dumps(result)}
    tx.execute(sa.update(tasks).where(tasks.c.id == task_id, tasks.c.status.not_in(ENDED)).values(values))


def _found(now_us: int, *conditions: sa.ColumnElement[bool]) -> Select:
    living = sa.or_(tasks.c.expires_at_us.is_(None), tasks.c.expires_at_us > now_us)
    return sa.select(tasks).where(living, *conditions)


def stub(task: Task) -> dict[str, object]:
    """A task as lists show it."""
    shown: dict[str, object] = {
        "id": task.id,
        "type": task.type,
        "status": task.status,
        "owner": task.owner,
        "created_at": iso_z(task.created_at_us),
        "updated_at": iso_z(task.updated_at_us),
        "self": f"/v2/tasks/{task.id}",
        "schema": "/v2/schemas/task",
    }
    if task.expires_at_us is not None:
        shown["expires_at"] = iso_z(task.expires_at_us)
    return shown


def show(task: Task) -> dict[str, object]:
    more = {"image_id": task.image_id, "request_id": task.request_id, "user_id": task.user_id}
    return {
        **stub(task),
        **{name: value for name, value in more.items() if value},
        "input": json.loads(task.input),
        "result": None if task.result is None else json.loads(task.result),
        "message": task.message,
    }


def task_named(call: Call[object, object]) -> Task:
    """The task the path names."""
    task_id = call.path["task_id"]
    row = call.tx.first(_found(call.now_us, tasks.c.id == task_id))
    if row is None:
        raise NotFound(f"No task found with ID {task_id}")
    return Task(**row._mapping)


@IMAGE.operation("GET", "/tasks", rules=(Rule(TASKS_API_ACCESS),))
def list_tasks(call: Call[None, None]) -> dict[str, object]:
    """List tasks, newest first, in pages."""
    page = paging.read(call.query, SORT_KEYS, call.cloud.settings.largest_page)
    conditions: list[sa.ColumnElement[bool]] = []
    for name, words in (("status", STATUSES), ("type", TYPES)):
        if value := call.query.get(name):
            if value not in words:
                raise BadRequest(f"Invalid {name} value: {value}")
            conditions.append(tasks.c[name] == value)
    columns = [tasks.c[f"{page.key}_us" if page.key.endswith("_at") else page.key], tasks.c.id]
    if page.marker is not None:
        last = call.tx.first(sa.select(*columns).where(tasks.c.id == page.marker))
        if last is None:
            raise BadRequest(f"No task found with ID {page.marker}")
        conditions.append(page.beyond(columns, last))
    rows = call.tx.all(_found(call.now_us, *conditions).order_by(*page.order(columns)).limit(page.limit))
    shown = [stub(Task(**row._mapping)) for row in rows]
    return page.reply("/v2/tasks", "tasks", shown, following=rows[-1].id if len(rows) == page.limit > 0 else None)


@IMAGE.operation("GET", "/tasks/{task_id}", rules=(Rule(TASKS_API_ACCESS),), target=task_named, facts=lambda _: {})
def show_task(call: Call[Task, None]) -> dict[str, object]:
    """Show a task."""
    return show(call.target)


@IMAGE.operation("DELETE", "/tasks/{task_id}", rules=(Rule(TASKS_API_ACCESS),), facts=lambda _: {}, success=204)
def delete_task(call: Call[None, None]) -> None:
    """Refused: tasks go by themselves."""
    raise MethodNotAllowed(
        "This operation is currently not permitted on Glance Tasks. They are auto deleted after reaching the time "
        "based on their expires_at property.",
        headers={"Allow": "GET"},
    )


@IMAGE.operation(
    "GET", "/images/{image_id}/tasks", rules=(Rule(GET_IMAGE),), target=image_in_sight, facts=facts_of_call
)
def list_image_tasks(call: Call[Image, None]) -> dict[str, object]:
    """List the tasks of an image."""
    image, caller = call.target, call.caller
    mine = _found(call.now_us, tasks.c.image_id == image.id).order_by(tasks.c.created_at_us)
    if not caller.is_admin and caller.project_id != image.owner:
        # Others who see the image do not see its URL or who imported it: a signed URL may give access to more.
        mine = mine.where(tasks.c.owner == caller.project_id)
    shown = [show(Task(**row._mapping)) for row in call.tx.all(mine.limit(MOST_ENDED))]
    return {
        "tasks": [{name: value for name, value in task.items() if name not in ("self", "schema")} for task in shown]
    }


_TEXT: Mapping[str, object] = {"type": "string"}
_OBJECT: Mapping[str, object] = {"type": ["null", "object"]}
_READ_ONLY: Mapping[str, object] = {"type": "string", "readOnly": True}
_STUB: dict[str, object] = {
    "id": {**_TEXT, "description": "The task's id"},
    "type": {**_TEXT, "enum": list(TYPES)},
    "status": {**_TEXT, "enum": list(STATUSES)},
    "owner": {**_TEXT, "description": "The project whose import it is"},
    "image_id": {**_TEXT, "description": "The image it is about"},
    "request_id": {**_TEXT, "description": "The request that began it"},
    "user_id": {**_TEXT, "description": "Who began it"},
    "expires_at": {"type": ["null", "string"], "description": "When it is forgotten"},
    "created_at": _TEXT,
    "updated_at": _TEXT,
    "self": _READ_ONLY,
    "schema": _READ_ONLY,
}
_WHOLE = {**_STUB, "input": _OBJECT, "result": _OBJECT, "message": {**_TEXT, "description": "Why it failed"}}


def task_schema() -> dict[str, object]:
    return {"name": "task", "properties": _WHOLE, "additionalProperties": False}


def tasks_schema() -> dict[str, object]:
    one = {"name": "task", "properties": _STUB, "additionalProperties": False}
    links = [{"rel": rel, "href": f"{{{href}}}"} for rel, href in (("first", "first"), ("next", "next"))]
    return {
        "name": "tasks",
        "properties": {"tasks": {"type": "array", "items": one}, "first": _TEXT, "next": _TEXT, "schema": _TEXT},
        "links": [*links, {"rel": "describedby", "href": "{schema}"}],
    }


serve("task", task_schema)
serve("tasks", tasks_schema)
