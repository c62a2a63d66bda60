"""Addresses of images' data in other stores: none is accepted and none is shown. Data is read through Image only."""

from __future__ import annotations

from typing import Annotated

from cumulet.errors import BadRequest, Conflict, Forbidden
from cumulet.image.service import IMAGE, MEMBER_OF_PROJECT, SERVICE_API, facts_of_call, image_in_sight
from cumulet.image.store import Image
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import rule
from cumulet.web.schema import UNSET, Body, Json, Unset

ADD_LOCATION = rule(
    "add_image_location",
    f"{SERVICE_API} or ({MEMBER_OF_PROJECT[1:-1]} and project_id:%(owner)s)",
    description="Say where an image's data is.",
)
FETCH_LOCATION = rule("fetch_image_location", SERVICE_API, description="Ask where an image's data is.")


class AddLocation(Body):
    """Where the data is, and what is known of it."""

    url: Annotated[str, Json({"maxLength": 2048})]
    validation_data: Annotated[dict[str, object] | Unset, Json({"maxProperties": 16})] = UNSET


@IMAGE.operation(
    "POST",
    "/images/{image_id}/locations",
    rules=(Rule(ADD_LOCATION),),
    target=image_in_sight,
    facts=facts_of_call,
    body=AddLocation,
    success=202,
)
def add_location(call: Call[Image, AddLocation]) -> None:
    """Refused: an image's data is only in the store of this cloud."""
    if call.target.status != "queued":
        raise Conflict(f"It's not allowed to add locations if image status is {call.target.status}.")
    if "service" not in call.caller.roles:
        raise Forbidden("http store must be enabled to use location API by normal user.")
    scheme = call.body.url.partition(":")[0][:32]
    raise BadRequest(f"Unknown scheme '{scheme}' found in URI: no store here takes data from elsewhere.")


@IMAGE.operation(
    "GET",
    "/images/{image_id}/locations",
    rules=(Rule(FETCH_LOCATION),),
    target=image_in_sight,
    facts=facts_of_call,
)
def list_locations(_call: Call[Image, None]) -> list[object]:
    """List the addresses of an image's data in other stores: there are none."""
    return []
