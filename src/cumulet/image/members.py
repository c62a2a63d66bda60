"""Members: the projects that a shared image is shared with, and whether they have accepted it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import msgspec

from cumulet.errors import Conflict, Forbidden, NotFound, TooLarge
from cumulet.image import attributes, store, views
from cumulet.image.service import (
    ADMIN,
    ADMIN_OR_MEMBER,
    IMAGE,
    SHARED_WITH_CALLER,
    facts_of_call,
    image_facts,
    image_in_sight,
)
from cumulet.image.store import Image, Member
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import rule
from cumulet.web.schema import Body, Json

READER_OF_PROJECT_OR_SHARED = f"{ADMIN} or role:reader and (project_id:%(project_id)s or {SHARED_WITH_CALLER})"
ADD_MEMBER = rule("add_member", ADMIN_OR_MEMBER, description="Share an image with a project.")
GET_MEMBER = rule("get_member", READER_OF_PROJECT_OR_SHARED, description="Show a member of an image.")
GET_MEMBERS = rule("get_members", READER_OF_PROJECT_OR_SHARED, description="List an image's members.")
DELETE_MEMBER = rule("delete_member", ADMIN_OR_MEMBER, description="Stop sharing an image with a project.")
MODIFY_MEMBER = rule(
    "modify_member",
    f"{ADMIN} or (role:member and {SHARED_WITH_CALLER})",
    description="Accept or reject a shared image.",
)


class AddMember(Body, extra="allow"):
    """The project to share with."""

    member: Annotated[str, Json({"minLength": 1, "maxLength": 255, "format": "one line"})]


class UpdateMember(Body, extra="allow"):
    """Whether the project accepts the image."""

    status: Literal["pending", "accepted", "rejected"]


class Membership(msgspec.Struct, frozen=True, kw_only=True):
    """A member together with its image."""

    image: Image
    member: Member


def shared_image_in_sight(call: Call[object, object]) -> Image:
    image = image_in_sight(call)
    if image.visibility != "shared":
        raise Forbidden("Only shared images have members.")
    return image


def member_in_sight(call: Call[object, object]) -> Membership:
    """The member the path names; 404 for members the caller may not know of."""
    image, member_id = shared_image_in_sight(call), call.path["member_id"]
    call.require(GET_MEMBER, image_facts(image, call.caller))
    for member in store.members(call.tx, image, call.caller):
        if member.member_id == member_id:
            return Membership(image=image, member=member)
    raise NotFound(f"{member_id} not found in the member list of the image {image.id}.")


def member_to_show(call: Call[object, object]) -> Membership:
    """As `member_in_sight`, but 404 where that would be 403: outsiders learn nothing of the image's members."""
    image = image_in_sight(call)
    if image.visibility != "shared" or not call.authorise(GET_MEMBER, image_facts(image, call.caller)):
        raise NotFound(f"{call.path['member_id']} not found in the member list of the image {image.id}.")
    return member_in_sight(call)


def facts_of_membership(call: Call[Membership, object]) -> Mapping[str, object]:
    return image_facts(call.target.image, call.caller)


@IMAGE.operation(
    "POST",
    "/images/{image_id}/members",
    rules=(Rule(ADD_MEMBER),),
    target=shared_image_in_sight,
    facts=facts_of_call,
    body=AddMember,
)
def create_member(call: Call[Image, AddMember]) -> dict[str, object]:
    """Share an image with a project."""
    image, member_id = call.target, call.body.member
    present = store.members(call.tx, image, call.caller)
    if any(member.member_id == member_id for member in present):
        raise Conflict(f"Member {member_id} is duplicated for image {image.id}")
    if len(present) >= attributes.MOST_MEMBERS:
        raise TooLarge(f"The limit of {attributes.MOST_MEMBERS} members for an image is exceeded.")
    member = Member(
        image_id=image.id,
        member_id=member_id,
        status="pending",
        created_at_us=call.now_us,
        updated_at_us=call.now_us,
    )
    store.add_member(call.tx, member)
    return views.show_member(member)


@IMAGE.operation(
    "GET",
    "/images/{image_id}/members",
    rules=(Rule(GET_MEMBERS),),
    target=shared_image_in_sight,
    facts=facts_of_call,
)
def list_members(call: Call[Image, None]) -> dict[str, object]:
    """List an image's members; a member sees only itself."""
    members = store.members(call.tx, call.target, call.caller) if call.authorise(GET_MEMBER, None) else []
    return {"members": [views.show_member(member) for member in members], "schema": "/v2/schemas/members"}


@IMAGE.operation(
    "GET",
    "/images/{image_id}/members/{member_id}",
    rules=(Rule(GET_MEMBER),),
    target=member_to_show,
    facts=facts_of_membership,
)
def show_member(call: Call[Membership, None]) -> dict[str, object]:
    """Show a member of an image."""
    return views.show_member(call.target.member)


@IMAGE.operation(
    "PUT",
    "/images/{image_id}/members/{member_id}",
    rules=(Rule(MODIFY_MEMBER),),
    target=member_in_sight,
    facts=facts_of_membership,
    body=UpdateMember,
)
def update_member(call: Call[Membership, UpdateMember]) -> dict[str, object]:
    """Accept or reject a shared image. The member's list of images shows it only after it was accepted."""
    member, status = call.target.member, call.body.status
    store.set_member_status(call.tx, member, status, call.now_us)
    return views.show_member(
        Member(
            image_id=member.image_id,
            member_id=member.member_id,
            status=status,
            created_at_us=member.created_at_us,
            updated_at_us=call.now_us,
        )
    )


@IMAGE.operation(
    "DELETE",
    "/images/{image_id}/members/{member_id}",
    rules=(Rule(DELETE_MEMBER),),
    target=member_in_sight,
    facts=facts_of_membership,
    success=204,
)
def delete_member(call: Call[Membership, None]) -> None:
    """Stop sharing an image with a project."""
    store.remove_member(call.tx, call.target.member)
