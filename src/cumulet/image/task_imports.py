"""The older way of import, for administrators: a task that makes an image from a URL."""

from __future__ import annotations

from typing import Annotated, Literal

from cumulet.errors import BadRequest
from cumulet.image import internet, tasks
from cumulet.image.images import ADD_IMAGE, CreateImage, make, proposed
from cumulet.image.imports import begin, require_allowed
from cumulet.image.service import IMAGE, image_facts
from cumulet.image.tasks import TASKS_API_ACCESS
from cumulet.web.operation import Call, Reply, Rule
from cumulet.web.schema import Body, Json, plan


class TaskInput(Body, extra="allow"):
    """The URL, and the attributes of the image."""

    import_from: Annotated[str, Json({"maxLength": internet.LONGEST_URL})]
    import_from_format: Annotated[str, Json({"maxLength": 255})]
    image_properties: dict[str, object]


class CreateTask(Body, extra="allow"):
    """A task. There is one type."""

    type: Literal["import"]
    input: TaskInput


@IMAGE.operation("POST", "/tasks", rules=(Rule(TASKS_API_ACCESS),), facts=lambda _: {}, body=CreateTask, success=201)
def create_task(call: Call[None, CreateTask]) -> Reply:
    """Make an image from a URL. The data must have the image's format."""
    wanted = call.body.input
    image = proposed(call, plan(CreateImage, call.version).read(wanted.image_properties, "image_properties"))
    require_allowed(wanted.import_from, call.cloud.settings)
    if not image.disk_format or not image.container_format:
        raise BadRequest("image_properties: disk_format and container_format must be set prior to saving data.")
    if wanted.import_from_format != image.disk_format:
        raise BadRequest(f"import_from_format: it must be the image's disk_format, {image.disk_format}.")
    call.require(ADD_IMAGE, image_facts(image, call.caller))
    make(call, image)
    said: dict[str, object] = {
        "import_from": wanted.import_from,
        "import_from_format": wanted.import_from_format,
        "image_properties": wanted.image_properties,
    }
    task = begin(call, image, wanted.import_from, "import", said)
    return Reply(body=tasks.show(task), headers={"Location": f"{call.service_url}/tasks/{task.id}"})
