"""Metering labels: ``/metering/metering-labels``. What passes routers to and from the outside is counted by label."""

from __future__ import annotations

from collections.abc import Sequence

from cumulet.db.engine import Tx
from cumulet.network import bodies, filtering, limits, policy, resource, sharing
from cumulet.network.bodies import either, text
from cumulet.network.filtering import Column
from cumulet.network.metering_records import MeteringLabel, metering_label_rules, metering_labels
from cumulet.network.resource import Kind, View
from cumulet.network.service import NETWORK
from cumulet.network.sight import own_in_sight
from cumulet.network.store import delete, erase, insert
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import rule
from cumulet.web.schema import UNSET, Body, Unset

CREATE = rule("create_metering_label", policy.ADMIN_OR_PROJECT_MANAGER, description="Create a metering label")
SHOW = rule("get_metering_label", policy.ADMIN_OR_PROJECT_READER, description="See a metering label")
DELETE = rule("delete_metering_label", policy.ADMIN_OR_PROJECT_MANAGER, description="Delete a metering label")

PATH = "/metering/metering-labels"


_COLUMNS: dict[str, Column] = {name: metering_labels.c[name] for name in ("id", "name", "description", "shared")}
_COLUMNS |= dict.fromkeys(("project_id", "tenant_id"), metering_labels.c.project_id)


def _views(_tx: Tx, records: Sequence[MeteringLabel]) -> list[View]:
    return [
        {
            "id": label.id,
            "project_id": label.project_id,
            "tenant_id": label.project_id,
            "name": label.name,
            "description": label.description,
            "shared": label.shared,
        }
        for label in records
    ]


METERING_LABELS = Kind(
    record=MeteringLabel,
    singular="metering_label",
    plural="metering_labels",
    title="Metering label",
    show=SHOW,
    sight=lambda caller: own_in_sight(caller, metering_labels),
    filters=filtering.by_columns(_COLUMNS),
    sorts=_COLUMNS,
    views=_views,
    hidden={},
    place="metering/metering-labels",
)


class NewMeteringLabel(bodies.NewNamed):
    shared: bodies.Truth | Unset = UNSET


class CreateMeteringLabels(Body):
    metering_label: NewMeteringLabel | Unset = UNSET
    metering_labels: list[NewMeteringLabel] | Unset = UNSET


@NETWORK.operation("GET", PATH, rules=())
def list_metering_labels(call: Call[None, None]) -> View:
    """List the project's metering labels; for administrators all."""
    return resource.listed(call, METERING_LABELS)


@NETWORK.operation(
    "POST",
    PATH,
    rules=(Rule(CREATE),),
    facts=resource.first_owner(METERING_LABELS),
    body=CreateMeteringLabels,
    success=201,
)
def create_metering_labels(call: Call[None, CreateMeteringLabels]) -> View:
    """Create a metering label, or several at once."""
    return resource.created(call, METERING_LABELS, lambda new: _create(call, new))


def _create(call: Call[object, object], new: NewMeteringLabel) -> MeteringLabel:
    project_id = resource.may_create(call, new, CREATE)
    shared = either(new.shared, False)
    if shared:  # Upstream lets a project's manager have the routers of all projects metered.
        sharing.require_everybody(call, project_id)
    limits.check(call.tx, project_id, "metering_label")
    return insert(
        call.tx,
        MeteringLabel,
        call.cloud.clock,
        project_id=project_id,
        name=text(new.name),
        description=text(new.description),
        shared=shared,
    )


@NETWORK.operation("GET", PATH + "/{metering_label_id}", rules=(), target=resource.target(METERING_LABELS))
def show_metering_label(call: Call[MeteringLabel, None]) -> View:
    """Show a metering label."""
    return resource.shown(call, METERING_LABELS, call.target)


@NETWORK.operation(
    "DELETE",
    PATH + "/{metering_label_id}",
    rules=(Rule(DELETE),),
    target=resource.target(METERING_LABELS),
    success=204,
)
def delete_metering_label(call: Call[MeteringLabel, None]) -> None:
    """Delete a metering label with its rules."""
    erase(call.tx, metering_label_rules, metering_label_id=call.target.id)
    delete(call.tx, MeteringLabel, call.target.id)
