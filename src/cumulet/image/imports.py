"""Imports: data is staged and then imported, or fetched from the Internet where the operator allows it."""

from __future__ import annotations

import json
from typing import Annotated

import sqlalchemy as sa

from cumulet.conductor import saga
from cumulet.db.engine import Tx
from cumulet.errors import BadRequest, Conflict, Forbidden, OverQuota
from cumulet.image import attributes, internet, tasks
from cumulet.image.data import take_body
from cumulet.image.importing import IMAGE_IMPORT, Importing
from cumulet.image.service import ADMIN, IMAGE, MODIFY_IMAGE, facts_of_call, image_facts, image_in_sight
from cumulet.image.store import STORE, Image, images
from cumulet.image.stores import STORE_HEADER, import_methods, store_in_header
from cumulet.image.tasks import Task
from cumulet.image.uploads import STAGE
from cumulet.settings import Settings
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import rule
from cumulet.web.schema import UNSET, Body, Json, Unset

COPY_IMAGE = rule("copy_image", ADMIN, description="Copy an image's data to further stores.")
DELETE_LOCATION = rule("delete_image_location", ADMIN, description="Remove an image's data from a store.")
MOST_AT_ONCE = 8
"""Imports of one project that are under way."""


class Method(Body, extra="allow"):
    """How to import."""

    name: Annotated[str, Json({"maxLength": 64})]
    uri: Annotated[str | Unset, Json({"maxLength": internet.LONGEST_URL})] = UNSET


class ImportImage(Body, extra="allow"):
    """What to import, and to which stores."""

    method: Method
    stores: Annotated[list[str] | Unset, Json({"maxItems": 16})] = UNSET
    all_stores: bool = False
    all_stores_must_succeed: bool = True


@IMAGE.operation(
    "PUT",
    "/images/{image_id}/stage",
    rules=(Rule(MODIFY_IMAGE),),
    target=image_in_sight,
    facts=facts_of_call,
    success=204,
    raw_body=True,
)
async def stage_image_data(call: Call[Image, None]) -> None:
    """Stage data for an image, to be imported."""
    await take_body(call, STAGE)


@IMAGE.operation(
    "POST",
    "/images/{image_id}/import",
    rules=(Rule(MODIFY_IMAGE),),
    target=image_in_sight,
    facts=facts_of_call,
    body=ImportImage,
    success=202,
)
def import_image(call: Call[Image, ImportImage]) -> None:
    """Import an image's data: what is staged for it, or from a URL. Or copy it to all stores: there is one."""
    image, body = call.target, call.body
    name, uri = body.method.name, body.method.uri
    if name not in import_methods(call.cloud.settings):
        raise BadRequest(f"Unknown import method name '{name}'.")
    _require_fit(image, name)
    _refuse_two_answers(call)
    if unknown := [each for each in (() if body.stores is UNSET else body.stores) if each != STORE]:
        raise Conflict(f"Could not find the store {unknown[0]}.")
    if name == "copy-image":
        call.require(COPY_IMAGE, image_facts(image, call.caller))
        if not body.all_stores:
            raise BadRequest(f"Image is already present at store '{STORE}'")
        # It is in all of them: there is one.
        call.tx.execute(sa.update(images).where(images.c.id == image.id).values(import_failed=False))
        return
    if name == "web-download":
        require_allowed("" if uri is UNSET else uri, call.cloud.settings)
    said: dict[str, object] = {"image_id": image.id, "import_req": _said(body), "backend": [STORE]}
    begin(call, image, None if uri is UNSET or name == "glance-direct" else uri, "api_image_import", said)


def _refuse_two_answers(call: Call[Image, ImportImage]) -> None:
    """400 for a request that says in two ways to which stores it imports."""
    listed, everywhere = call.body.stores is not UNSET, call.body.all_stores
    header = store_in_header(call.headers) is not None
    if everywhere and (listed or header):
        raise BadRequest(f"All_stores parameter can't be used with {STORE_HEADER} header or stores parameter")
    if listed and header:
        raise BadRequest(f"Stores parameter and {STORE_HEADER} header can't be both specified")


def require_allowed(uri: str, settings: Settings) -> None:
    """400 for a URL that may not be fetched."""
    try:
        internet.target_of(uri, internet.hosts_in(settings.web_download_hosts))
    except internet.NotAllowed as refused:
        raise BadRequest(f"URI for web-download does not pass filtering: {refused}") from None


def _require_fit(image: Image, method: str) -> None:
    """409 for an image that cannot be imported by this method."""
    if image.import_task_id is not None:
        raise Conflict(f"New operation on image '{image.id}' is not permitted as prior operation is still in progress")
    if image.status == "active" and method != "copy-image":
        raise Conflict("Image with status active cannot be target for import")
    if image.status != "active" and method == "copy-image":
        raise Conflict("Only images with status active can be targeted for copying")
    if image.status != "queued" and method == "web-download":
        raise Conflict(f"Image needs to be in 'queued' state to use '{method}' method")
    if method == "glance-direct" and (image.status != "uploading" or image.upload_id is not None):
        raise Conflict("Image needs to be staged before 'glance-direct' method can be used")
    attributes.refuse_signed(image.properties)
    for name in ("container_format", "disk_format"):
        if not getattr(image, name):
            raise Conflict(f"'{name}' needs to be set before import")


def begin(call: Call[object, object], image: Image, uri: str | None, kind: str, said: dict[str, object]) -> Task:
    """Record a task with its input, set the image to `importing`, and begin the operation."""
    running = sa.select(sa.func.count()).select_from(images).where(images.c.import_task_id.is_not(None))
    if call.tx.scalar(running.where(images.c.owner == image.owner, images.c.deleted_at_us.is_(None))) >= MOST_AT_ONCE:
        raise OverQuota(f"The limit of {MOST_AT_ONCE} imports of a project at once is reached.")
    task = Task(
        id=call.cloud.clock.uuid(),
        type=kind,
        status="pending",
        owner=call.caller.project_id,
        image_id=image.id,
        user_id=call.caller.user_id,
        request_id=call.request_id,
        input=json.dumps(said),
        created_at_us=call.now_us,
        updated_at_us=call.now_us,
    )
    tasks.add(call.tx, task)
    if not _take(call.tx, image, task.id, call.now_us):
        raise Conflict(f"Image {image.id} was changed at the same time.")
    saga.begin(
        call.tx,
        call.cloud.wake,
        IMAGE_IMPORT,
        operation_id=call.cloud.clock.uuid(),
        subject=image.id,
        state=Importing(image_id=image.id, task_id=task.id, uri=uri),
        now_us=call.now_us,
    )
    return task


def _said(body: ImportImage) -> dict[str, object]:
    """The request without unknown attributes."""
    uri = {} if body.method.uri is UNSET else {"uri": body.method.uri}
    said: dict[str, object] = {"method": {"name": body.method.name, **uri}}
    if body.stores is not UNSET:
        said["stores"] = body.stores
    return said | {"all_stores": body.all_stores, "all_stores_must_succeed": body.all_stores_must_succeed}


def _take(tx: Tx, image: Image, task_id: str, now_us: int) -> bool:
    where = (images.c.id == image.id, images.c.status == image.status, images.c.import_task_id.is_(None))
    taken = {"status": "importing", "import_task_id": task_id, "import_failed": None, "updated_at_us": now_us}
    return tx.changed(sa.update(images).where(*where, images.c.deleted_at_us.is_(None)).values(taken)) == 1


@IMAGE.operation(
    "DELETE",
    "/stores/{store_id}/{image_id}",
    rules=(Rule(DELETE_LOCATION),),
    target=image_in_sight,
    facts=facts_of_call,
    success=204,
)
def delete_from_store(call: Call[Image, None]) -> None:
    """Refused: an image's data is in one store only."""
    if call.path["store_id"] != STORE:
        raise Conflict(f"The selected store {call.path['store_id']} is not available on this node.")
    if call.target.status != "active":
        raise Conflict("It's not allowed to remove image data from store if image status is not 'active'")
    raise Forbidden("Cannot delete image data from the only store containing it. Consider deleting the image instead.")
