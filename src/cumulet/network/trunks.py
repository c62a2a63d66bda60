"""Trunks: ``/trunks``. A guest sends the frames of subports tagged on the NIC of a trunk's parent port."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from cumulet.db.engine import Tx
from cumulet.db.parts import in_parts
from cumulet.network import bodies, filtering, limits, policy, resource, subports, trunk_details
from cumulet.network.bodies import either, text
from cumulet.network.resource import Kind, View
from cumulet.network.service import NETWORK
from cumulet.network.sight import own_in_sight
from cumulet.network.store import change, delete, insert, must_get, ports, tags_of
from cumulet.network.subports import SomeSubports, Subports
from cumulet.network.trunk_records import Trunk, trunk_subports, trunks
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import rule
from cumulet.web.schema import UNSET, Unset

CREATE = rule("create_trunk", policy.ADMIN_OR_PROJECT_MEMBER, description="Create a trunk")
SHOW = rule("get_trunk", policy.ADMIN_OR_PROJECT_READER, description="See a trunk")
UPDATE = rule("update_trunk", policy.ADMIN_OR_PROJECT_MEMBER, description="Change a trunk")
DELETE = rule("delete_trunk", policy.ADMIN_OR_PROJECT_MEMBER, description="Delete a trunk")
SHOW_SUBPORTS = rule("get_subports", policy.ADMIN_OR_PROJECT_READER, description="See a trunk's subports")
ADD = rule("add_subports", policy.ADMIN_OR_PROJECT_MEMBER, description="Add subports to a trunk")
REMOVE = rule("remove_subports", policy.ADMIN_OR_PROJECT_MEMBER, description="Take subports from a trunk")
SHOW_TAGS = rule("get_trunk:tags", policy.ADMIN_OR_PROJECT_READER, description="See the tags of a trunk")
ADD_TAGS = rule("create_trunk:tags", policy.ADMIN_OR_PROJECT_MEMBER, description="Add tags to a trunk")
SET_TAGS = rule("update_trunk:tags", policy.ADMIN_OR_PROJECT_MEMBER, description="Set the tags of a trunk")
DELETE_TAGS = rule("delete_trunk:tags", policy.ADMIN_OR_PROJECT_MEMBER, description="Remove tags of a trunk")

PATH = "/trunks/{trunk_id}"

_SUBPORT = ports.alias("subport")


def _subports_are(up: bool) -> sa.ColumnElement[bool]:
    """Whether a trunk has a subport that is ACTIVE, or (`up` false) one that is not, though it might be."""
    active = _SUBPORT.c.status == "ACTIVE"
    return sa.exists().where(
        trunk_subports.c.trunk_id == trunks.c.id,
        _SUBPORT.c.id == trunk_subports.c.port_id,
        active if up else sa.and_(_SUBPORT.c.admin_state_up, ~active),
    )


_CARRIES = sa.exists().where(ports.c.id == trunks.c.port_id, ports.c.status == "ACTIVE")
STATUS = sa.case(
    (~_CARRIES, sa.literal("DOWN")),
    (~_subports_are(False), sa.literal("ACTIVE")),
    (_subports_are(True), sa.literal("DEGRADED")),
    else_=sa.literal("BUILD"),
)
"""A trunk's status follows from its ports: DOWN while no guest is plugged into the parent, ACTIVE if all subports are,
DEGRADED if only some are, BUILD if none is yet. Subports that are administratively down do not count."""


def _views(tx: Tx, records: Sequence[Trunk]) -> list[View]:
    ids = [trunk.id for trunk in records]
    tags, members = tags_of(tx, ids), trunk_details.of_trunks(tx, ids)
    status: dict[str, str] = {}
    for part in in_parts(ids):
        status |= dict(map(tuple, tx.all(sa.select(trunks.c.id, STATUS).where(trunks.c.id.in_(part)))))
    return [
        resource.resource_view(trunk, tags.get(trunk.id, []))
        | {
            "name": trunk.name,
            "admin_state_up": trunk.admin_state_up,
            "port_id": trunk.port_id,
            "status": status[trunk.id],
            "sub_ports": [trunk_details.view(one) for one in members.get(trunk.id, ())],
        }
        for trunk in records
    ]


TRUNKS = Kind(
    record=Trunk,
    singular="trunk",
    plural="trunks",
    title="Trunk",
    show=SHOW,
    sight=lambda caller: own_in_sight(caller, trunks),
    filters=resource.filters_on(trunks, "name", "admin_state_up", "port_id")
    | {"status": filtering.by_column(STATUS, "status")},
    sorts=resource.sorts_on(trunks, "name", "admin_state_up", "port_id") | {"status": STATUS},
    views=_views,
    hidden={"tags": SHOW_TAGS},
)


class UpdateTrunk(bodies.NamedChange):
    admin_state_up: bodies.Truth | Unset = UNSET


class NewTrunk(UpdateTrunk):
    project_id: bodies.ProjectId | Unset = UNSET
    tenant_id: bodies.ProjectId | Unset = UNSET
    port_id: bodies.Id
    sub_ports: Subports | Unset = UNSET


@NETWORK.operation("GET", "/trunks", rules=())
def list_trunks(call: Call[None, None]) -> View:
    """List the project's trunks; for administrators all."""
    return resource.listed(call, TRUNKS)


def _creation_facts(call: Call[None, NewTrunk]) -> View:
    return {"project_id": resource.owner(call, call.body)}


@NETWORK.operation(
    "POST", "/trunks", rules=(Rule(CREATE),), facts=_creation_facts, body=NewTrunk, body_key="trunk", success=201
)
def create_trunk(call: Call[None, NewTrunk]) -> View:
    """Create a trunk, with subports or without."""
    tx, new = call.tx, call.body
    project_id = resource.owner(call, new)
    limits.check(tx, project_id, "trunk")
    wanted = either(new.sub_ports, ())
    subports.refuse_repeated(wanted)
    parent = subports.require_parent(call, project_id, new.port_id)
    added = subports.checked(call, project_id, parent, wanted)
    trunk = insert(
        tx,
        Trunk,
        call.cloud.clock,
        project_id=project_id,
        name=text(new.name),
        description=text(new.description),
        admin_state_up=either(new.admin_state_up, True),
        port_id=parent.id,
    )
    subports.add(call, trunk, parent, added)
    return resource.shown(call, TRUNKS, trunk)


@NETWORK.operation("GET", PATH, rules=(), target=resource.target(TRUNKS))
def show_trunk(call: Call[Trunk, None]) -> View:
    """Show a trunk with its subports."""
    return resource.shown(call, TRUNKS, call.target)


@NETWORK.operation(
    "PUT", PATH, rules=(Rule(UPDATE),), target=resource.target(TRUNKS), body=UpdateTrunk, body_key="trunk"
)
def update_trunk(call: Call[Trunk, UpdateTrunk]) -> View:
    """Change a trunk's name, description, or whether its subports may be changed."""
    change(call.tx, Trunk, call.target.id, call.now_us, **resource.given(call.body))
    return _as_it_is(call)


@NETWORK.operation("DELETE", PATH, rules=(Rule(DELETE),), target=resource.target(TRUNKS), success=204)
def delete_trunk(call: Call[Trunk, None]) -> None:
    """Delete a trunk. Its ports stay, and lead nowhere but the parent."""
    subports.refuse_disabled(call.target)
    subports.remove(call, call.target, [one.port_id for one in trunk_details.of(call.tx, call.target.id)])
    delete(call.tx, Trunk, call.target.id)


def _as_it_is(call: Call[Trunk, object]) -> View:
    return resource.shown(call, TRUNKS, must_get(call.tx, Trunk, call.target.id))


@NETWORK.operation("GET", f"{PATH}/get_subports", rules=(Rule(SHOW_SUBPORTS),), target=resource.target(TRUNKS))
def get_subports(call: Call[Trunk, None]) -> View:
    """List a trunk's subports."""
    return {"sub_ports": [trunk_details.view(one) for one in trunk_details.of(call.tx, call.target.id)]}


@NETWORK.operation("PUT", f"{PATH}/add_subports", rules=(Rule(ADD),), target=resource.target(TRUNKS), body=SomeSubports)
def add_subports(call: Call[Trunk, SomeSubports]) -> View:
    """Add subports to a trunk, also while a guest is plugged into its parent port."""
    trunk = call.target
    subports.refuse_repeated(call.body.sub_ports, operation=True)
    parent = subports.parent_of(call.tx, trunk)
    added = subports.checked(call, trunk.project_id, parent, call.body.sub_ports)
    subports.refuse_disabled(trunk)
    subports.add(call, trunk, parent, added)
    return _as_it_is(call)


@NETWORK.operation(
    "PUT", f"{PATH}/remove_subports", rules=(Rule(REMOVE),), target=resource.target(TRUNKS), body=SomeSubports
)
def remove_subports(call: Call[Trunk, SomeSubports]) -> View:
    """Take subports from a trunk: their ports stay, and lead nowhere."""
    subports.refuse_disabled(call.target)
    subports.refuse_repeated(call.body.sub_ports, operation=True)
    subports.remove(call, call.target, [one.port_id for one in call.body.sub_ports])
    return _as_it_is(call)
