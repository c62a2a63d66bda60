"""Images and backups of servers: `createImage` and `createBackup`. How the image comes: `compute.snapshot`."""

from __future__ import annotations

from typing import Annotated

import msgspec

from cumulet.compute import attribute_types as t
from cumulet.compute import operations
from cumulet.compute.model import Server
from cumulet.compute.quotas import limits_of, require_limit
from cumulet.compute.rules import MEMBER
from cumulet.compute.server_actions import PATH
from cumulet.compute.service import COMPUTE
from cumulet.compute.sight import server_in_sight
from cumulet.compute.snapshot import SNAPSHOT, Snapshot, new_image
from cumulet.compute.states import require_state
from cumulet.web.operation import Call, Reply, Rule
from cumulet.web.policy import rule
from cumulet.web.schema import Body, Json, NonNegativeInteger

CREATE_IMAGE = rule("os_compute_api:servers:create_image", MEMBER)
CREATE_BACKUP = rule("os_compute_api:os-create-backup", MEMBER)


class CreateImage(Body):
    """Compute API, "Create Image (createImage Action)"."""

    name: t.Name
    metadata: t.Metadata = msgspec.field(default_factory=dict)


class CreateBackup(Body):
    """Compute API, "Create Server Back Up (createBackup Action)"."""

    name: t.Name
    backup_type: Annotated[str, Json({"format": "one line"})]
    rotation: NonNegativeInteger
    metadata: t.Metadata = msgspec.field(default_factory=dict)


@COMPUTE.operation(
    "POST",
    PATH,
    action="createImage",
    rules=(Rule(CREATE_IMAGE),),
    target=server_in_sight,
    body=CreateImage,
    success=202,
)
def create_image(call: Call[Server, CreateImage]) -> Reply:
    """Make an image of a server's disk, as it is at one moment. The server goes on meanwhile."""
    _require_metadata_room(call, call.body.metadata)
    require_state(call.target, "createImage", call.caller)
    image_id = new_image(call, call.target, name=call.body.name, image_type="snapshot", properties=call.body.metadata)
    _begin(call, image_id, action="createImage", event="compute_snapshot_instance", task_state="image_snapshot_pending")
    if call.version.at_least("2.45"):
        return Reply(status=202, body={"image_id": image_id})
    return Reply(status=202, headers={"Location": f"{call.base_url}/image/images/{image_id}"})


@COMPUTE.operation(
    "POST",
    PATH,
    action="createBackup",
    rules=(Rule(CREATE_BACKUP),),
    target=server_in_sight,
    body=CreateBackup,
    success=202,
)
def create_backup(call: Call[Server, CreateBackup]) -> Reply:
    """As createImage; of the server's backups of one type the newest `rotation` are kept, the others deleted."""
    body = call.body
    _require_metadata_room(call, body.metadata)
    require_state(call.target, "createBackup", call.caller)
    properties = {**body.metadata, "backup_type": body.backup_type}
    image_id = new_image(call, call.target, name=body.name, image_type="backup", properties=properties)
    _begin(
        call,
        image_id,
        action="createBackup",
        event="compute_backup_instance",
        task_state="image_backup",
        backup_type=body.backup_type,
        rotation=body.rotation,
    )
    if call.version.at_least("2.45"):
        return Reply(status=202, body={"image_id": image_id})
    headers = {"Location": f"{call.service_url}/images/{image_id}"} if body.rotation > 0 else {}
    return Reply(status=202, headers=headers)


def _begin(
    call: Call[Server, object],
    image_id: str,
    *,
    action: str,
    event: str,
    task_state: str,
    backup_type: str | None = None,
    rotation: int = 0,
) -> None:
    operations.begin(
        call,
        call.target,
        SNAPSHOT,
        lambda *begun: Snapshot(
            **operations.on_host(*begun),
            image_id=image_id,
            backup_type=backup_type,
            rotation=rotation,
        ),
        action=action,
        event=event,
        task_state=task_state,
    )


def _require_metadata_room(call: Call[Server, object], metadata: dict[str, str]) -> None:
    if metadata and not call.version.at_least("2.39"):
        limits = limits_of(call.tx, call.caller.project_id or "")
        require_limit(limits, "metadata_items", len(metadata), words="Image metadata limit exceeded")
