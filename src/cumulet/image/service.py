"""The Image service's place in the registry, its rules' building blocks, and who may see an image at all."""

from __future__ import annotations

from collections.abc import Mapping

from cumulet.errors import NotFound
from cumulet.image import store
from cumulet.image.dialect import ImageDialect
from cumulet.image.store import Image
from cumulet.web.operation import Call, Caller, Microversion, Service
from cumulet.web.policy import base_rule, rule

IMAGE = Service(
    name="image",
    type="image",
    prefix="/image/v2",
    versions=(Microversion(2, 17), Microversion(2, 17)),
    dialect=ImageDialect(),
)

base_rule("context_is_admin", "role:admin")

base_rule("service_api", "role:service or role:admin")

ADMIN = "rule:context_is_admin"
SERVICE_API = "rule:service_api"
MEMBER_OF_PROJECT = "(role:member and project_id:%(project_id)s)"
READER_OF_PROJECT = "(role:reader and project_id:%(project_id)s)"
SHARED_WITH_CALLER = "project_id:%(member_id)s"
ANYBODYS = "'community':%(visibility)s or 'public':%(visibility)s or 'shared':%(visibility)s"

ADMIN_OR_MEMBER = f"{ADMIN} or {MEMBER_OF_PROJECT}"
ADMIN_OR_READER = f"{ADMIN} or {READER_OF_PROJECT}"
ADMIN_OR_READER_WHO_SEES = (
    f"{ADMIN} or (role:reader and (project_id:%(project_id)s or {SHARED_WITH_CALLER} or {ANYBODYS}))"
)
ADMIN_OR_MEMBER_WHO_SEES = (
    f"{ADMIN} or (role:member and (project_id:%(project_id)s or {SHARED_WITH_CALLER} or {ANYBODYS}))"
)

GET_IMAGE = rule("get_image", ADMIN_OR_READER_WHO_SEES, description="Show an image.")
MODIFY_IMAGE = rule("modify_image", ADMIN_OR_MEMBER, description="Change an image's attributes or tags.")
PUBLICIZE = rule("publicize_image", ADMIN, description="Make an image public.")
COMMUNITIZE = rule("communitize_image", ADMIN_OR_MEMBER, description="Make a community image.")


def image_facts(image: Image, caller: Caller) -> dict[str, object]:
    """What rules may ask about an image. `member_id` is set only for images shared with the caller's project."""
    facts: dict[str, object] = {"project_id": image.owner, "owner": image.owner, "visibility": image.visibility}
    if image.visibility == "shared" and caller.project_id is not None and caller.project_id != image.owner:
        facts["member_id"] = caller.project_id
    return facts


def facts_of_call(call: Call[Image, object]) -> Mapping[str, object]:
    return image_facts(call.target, call.caller)


def image_in_sight(call: Call[object, object]) -> Image:
    """The image the path names; 404, the same for one that does not exist and one the caller may not know of."""
    image_id = call.path["image_id"]
    image = store.find_visible(call.tx, call.caller, image_id)
    if image is None or not call.authorise(GET_IMAGE, image_facts(image, call.caller)):
        raise NotFound(f"Failed to find image {image_id}")
    return image


def require_visibility(call: Call[object, object], visibility: str, facts: Mapping[str, object]) -> None:
    """403 where the caller may not make images public, or community images."""
    if visibility == "public":
        call.require(PUBLICIZE, facts)
    elif visibility == "community":
        call.require(COMMUNITIZE, facts)
