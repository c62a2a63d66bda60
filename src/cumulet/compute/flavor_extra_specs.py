"""A flavor's extra specs: free properties that hosts and scheduler may read."""

from __future__ import annotations

import re
from collections.abc import Mapping

import sqlalchemy as sa

from cumulet.compute import attribute_types as t
from cumulet.compute.extra_spec_rules import require_meaningful
from cumulet.compute.flavors import SHOW_EXTRA_SPECS, ShowQuery, flavor_in_sight
from cumulet.compute.rules import ADMIN, READER
from cumulet.compute.service import COMPUTE
from cumulet.compute.store import flavors
from cumulet.db.engine import Tx
from cumulet.errors import BadRequest, NotFound
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import rule
from cumulet.web.schema import Body

_KEY = re.compile(r"[a-zA-Z0-9_:. -]{1,255}")

SHOW = rule("os_compute_api:os-flavor-extra-specs:show", READER)
CREATE = rule("os_compute_api:os-flavor-extra-specs:create", ADMIN)
UPDATE = rule("os_compute_api:os-flavor-extra-specs:update", ADMIN)
DELETE = rule("os_compute_api:os-flavor-extra-specs:delete", ADMIN)


class CreateExtraSpecs(Body):
    extra_specs: t.ExtraSpecs


class OneExtraSpec(Body, extra="allow", min_properties=1, max_properties=1):
    """One key, the path's own, and its value."""


@COMPUTE.operation("GET", "/flavors/{flavor_id}/os-extra_specs", rules=(Rule(SHOW_EXTRA_SPECS),), query=ShowQuery)
def list_extra_specs(call: Call[None, None]) -> dict[str, object]:
    """List a flavor's extra specs."""
    return {"extra_specs": flavor_in_sight(call.tx, call.caller, call.path["flavor_id"]).extra_specs}


@COMPUTE.operation("GET", "/flavors/{flavor_id}/os-extra_specs/{key}", rules=(Rule(SHOW),), query=ShowQuery)
def show_extra_spec(call: Call[None, None]) -> dict[str, object]:
    """Show one extra spec."""
    specs = flavor_in_sight(call.tx, call.caller, call.path["flavor_id"]).extra_specs
    _require(specs, call)
    return {call.path["key"]: specs[call.path["key"]]}


@COMPUTE.operation("POST", "/flavors/{flavor_id}/os-extra_specs", rules=(Rule(CREATE),), body=CreateExtraSpecs)
def create_extra_specs(call: Call[None, CreateExtraSpecs]) -> dict[str, object]:
    """Add extra specs to a flavor, over those it has."""
    _add(call, call.body.extra_specs)
    return {"extra_specs": call.body.extra_specs}


@COMPUTE.operation("PUT", "/flavors/{flavor_id}/os-extra_specs/{key}", rules=(Rule(UPDATE),), body=OneExtraSpec)
def update_extra_spec(call: Call[None, OneExtraSpec]) -> dict[str, str | int | float]:
    """Set one extra spec."""
    specs = {str(key): _value(value) for key, value in call.body.extra.items()}
    if call.path["key"] not in specs:
        raise BadRequest("Request body and URI mismatch")
    if _KEY.fullmatch(call.path["key"]) is None:
        raise BadRequest("Invalid input for field/attribute extra_specs. A key is letters, digits and '_:. -'.")
    _add(call, specs)
    return specs


@COMPUTE.operation("DELETE", "/flavors/{flavor_id}/os-extra_specs/{key}", rules=(Rule(DELETE),))
def delete_extra_spec(call: Call[None, None]) -> None:
    """Remove one extra spec."""
    flavor = flavor_in_sight(call.tx, call.caller, call.path["flavor_id"])
    _require(flavor.extra_specs, call)
    kept = {key: value for key, value in flavor.extra_specs.items() if key != call.path["key"]}
    _store(call.tx, flavor.flavor_id, kept)


def _value(value: object) -> str | int | float:
    if isinstance(value, str | int | float) and not isinstance(value, bool) and len(str(value)) <= 255:
        return value
    raise BadRequest(f"Invalid input for field/attribute extra_specs. Value: {value}. It is not a string or a number")


def _add(call: Call[None, object], specs: Mapping[str, object]) -> None:
    if call.version.at_least("2.86"):
        for key, value in specs.items():
            require_meaningful(key, str(value))
    flavor = flavor_in_sight(call.tx, call.caller, call.path["flavor_id"])
    # Nova stores text, whatever was given.
    _store(call.tx, flavor.flavor_id, flavor.extra_specs | {key: str(value) for key, value in specs.items()})


def _store(tx: Tx, flavor_id: str, specs: dict[str, str]) -> None:
    tx.execute(sa.update(flavors).where(flavors.c.flavor_id == flavor_id).values(extra_specs=specs))


def _require(specs: Mapping[str, str], call: Call[None, object]) -> None:
    key = call.path["key"]
    if key not in specs:
        raise NotFound(f"Flavor {call.path['flavor_id']} has no extra specs with key {key}.")
