"""Flavors: the sizes servers come in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NotRequired, TypedDict

import sqlalchemy as sa

from cumulet.compute import attribute_types as t
from cumulet.compute.links import Page, links, next_links, page
from cumulet.compute.model import Flavor
from cumulet.compute.rules import ADMIN, READER
from cumulet.compute.service import COMPUTE
from cumulet.compute.store import flavor_access, flavors
from cumulet.db.engine import Select, Tx
from cumulet.db.part_of_text import has_part
from cumulet.errors import BadRequest, Conflict, NotFound
from cumulet.web.boolean_words import boolean
from cumulet.web.operation import Call, Caller, Microversion, Rule
from cumulet.web.policy import rule
from cumulet.web.schema import Body, Json, Key, LooseBool, NonNegativeInteger, Query, Since, Until, Versions
from cumulet.web.schema import Convert as To

CREATE = rule("os_compute_api:os-flavor-manage:create", ADMIN)
UPDATE = rule("os_compute_api:os-flavor-manage:update", ADMIN)
DELETE = rule("os_compute_api:os-flavor-manage:delete", ADMIN)
SHOW_EXTRA_SPECS = rule("os_compute_api:os-flavor-extra-specs:index", READER)

LARGEST_FLOAT = 3.40282e38
_SORT_COLUMNS: dict[str, sa.ColumnElement[object]] = {
    "created_at": flavors.c.created_at_us,
    "description": sa.func.coalesce(flavors.c.description, ""),
    "disabled": flavors.c.disabled,
    "ephemeral_gb": flavors.c.ephemeral_gib,
    "flavorid": flavors.c.flavor_id,
    "id": flavors.c.id,
    "is_public": flavors.c.is_public,
    "memory_mb": flavors.c.memory_mib,
    "name": flavors.c.name,
    "root_gb": flavors.c.disk_gib,
    "rxtx_factor": flavors.c.rxtx_factor,
    "swap": flavors.c.swap_mib,
    "updated_at": flavors.c.created_at_us,
    "vcpu_weight": flavors.c.id,
    "vcpus": flavors.c.vcpus,
}
_SORT_KEYS = sorted(_SORT_COLUMNS)


class FlavorsQuery(Query, closed_since="2.75"):
    limit: NonNegativeInteger | None = None
    marker: str | None = None
    is_public: str | None = None
    min_ram: Annotated[str | None, Key("minRam")] = None
    min_disk: Annotated[str | None, Key("minDisk")] = None
    sort_key: Annotated[
        str,
        Versions(
            ("2.1", Annotated[str, Json({"enum": _SORT_KEYS})]),
            ("2.102", Annotated[str, Json({"enum": [key for key in _SORT_KEYS if key != "rxtx_factor"]})]),
        ),
    ] = "flavorid"
    sort_dir: Annotated[str, Json({"enum": ["asc", "desc"]})] = "asc"
    name: Annotated[str | None, Since("2.102")] = None


class ShowQuery(Query, closed_since="2.102"):
    """No parameters; unknown ones are refused from 2.102 on."""


def _positive(factor: str | float) -> float:
    value = float(factor)
    if not 0 < value <= LARGEST_FLOAT:
        raise ValueError("'rxtx_factor' argument must be a float between 0 and 3.40282e+38")
    return value


class CreateFlavor(Body):
    name: t.Name
    id: Annotated[
        str | None,
        Json(
            {
                "type": ["string", "number", "null"],
                "minLength": 1,
                "maxLength": 255,
                "pattern": "^(?! )[a-zA-Z0-9. _-]+(?<! )$",
            }
        ),
        To(str),
    ] = None
    memory_mib: Annotated[t.VolumeSize, Key("ram")]
    vcpus: t.VolumeSize
    disk_gib: Annotated[t.FlavorSize, Key("disk")]
    ephemeral_gib: Annotated[t.FlavorSize, Key("OS-FLV-EXT-DATA:ephemeral")] = 0
    swap_mib: Annotated[t.FlavorSize, Key("swap")] = 0
    rxtx_factor: Annotated[
        float,
        Json({"type": ["number", "string"], "pattern": r"^[0-9]+(\.[0-9]+)?$", "maximum": LARGEST_FLOAT}),
        To(_positive),
        Until("2.101"),
    ] = 1.0
    is_public: Annotated[LooseBool, Key("os-flavor-access:is_public")] = True
    description: Annotated[t.LongDescription, Since("2.55")] = None


class UpdateFlavor(Body):
    description: t.LongDescription


@COMPUTE.operation("GET", "/flavors", rules=(), query=FlavorsQuery)
def list_flavors(call: Call[None, None]) -> dict[str, object]:
    """List the flavors the caller may use."""
    asked = page(call)
    found = _select_page(call, asked)
    described = call.version.at_least("2.55")
    brief: list[dict[str, object]] = [
        {"id": f.flavor_id, "name": f.name, "links": links(call, "flavors", f.flavor_id)}
        | ({"description": f.description} if described else {})
        for f in found
    ]
    return _listed(call, "flavors", asked, found, brief)


@COMPUTE.operation("GET", "/flavors/detail", rules=(), query=FlavorsQuery)
def list_flavors_in_detail(call: Call[None, None]) -> dict[str, object]:
    """List the flavors the caller may use, with all they say."""
    asked = page(call)
    found = _select_page(call, asked)
    with_specs = _shows_extra_specs(call)
    return _listed(call, "flavors/detail", asked, found, [flavor_view(call, f, extra_specs=with_specs) for f in found])


@COMPUTE.operation("GET", "/flavors/{flavor_id}", rules=(), query=ShowQuery)
def show_flavor(call: Call[None, None]) -> dict[str, object]:
    """Show a flavor."""
    flavor = flavor_in_sight(call.tx, call.caller, call.path["flavor_id"])
    return {"flavor": flavor_view(call, flavor, extra_specs=_shows_extra_specs(call))}


@COMPUTE.operation("POST", "/flavors", rules=(Rule(CREATE),), body=CreateFlavor, body_key="flavor")
def create_flavor(call: Call[None, CreateFlavor]) -> dict[str, object]:
    """Create a flavor."""
    flavor_id = call.body.id or call.cloud.clock.uuid()
    if call.tx.first(sa.select(flavors.c.id).where(flavors.c.name == call.body.name)) is not None:
        raise Conflict(f"Flavor with name {call.body.name} already exists.")
    if call.tx.first(sa.select(flavors.c.id).where(flavors.c.flavor_id == flavor_id)) is not None:
        raise Conflict(f"Flavor with ID {flavor_id} already exists.")
    b = call.body
    call.tx.execute(
        sa.insert(flavors).values(
            flavor_id=flavor_id,
            name=b.name,
            vcpus=b.vcpus,
            memory_mib=b.memory_mib,
            disk_gib=b.disk_gib,
            ephemeral_gib=b.ephemeral_gib,
            swap_mib=b.swap_mib,
            rxtx_factor=b.rxtx_factor,
            is_public=b.is_public,
            disabled=False,
            description=b.description,
            extra_specs={},
            created_at_us=call.now_us,
        )
    )
    flavor = flavor_by_id(call.tx, flavor_id)
    return {"flavor": flavor_view(call, flavor, extra_specs=_shows_extra_specs(call))}


@COMPUTE.operation(
    "PUT", "/flavors/{flavor_id}", rules=(Rule(UPDATE),), body=UpdateFlavor, body_key="flavor", since="2.55"
)
def update_flavor(call: Call[None, UpdateFlavor]) -> dict[str, object]:
    """Change a flavor's description."""
    flavor_in_sight(call.tx, call.caller, call.path["flavor_id"])
    call.tx.execute(
        sa.update(flavors)
        .where(flavors.c.flavor_id == call.path["flavor_id"])
        .values(description=call.body.description)
    )
    flavor = flavor_by_id(call.tx, call.path["flavor_id"])
    return {"flavor": flavor_view(call, flavor, extra_specs=_shows_extra_specs(call))}


@COMPUTE.operation("DELETE", "/flavors/{flavor_id}", rules=(Rule(DELETE),), success=202)
def delete_flavor(call: Call[None, None]) -> None:
    """Delete a flavor. Servers made with it keep their own copy."""
    flavor_id = call.path["flavor_id"]
    if not call.tx.changed(sa.delete(flavors).where(flavors.c.flavor_id == flavor_id)):
        raise NotFound(f"Flavor {flavor_id} could not be found.")


def flavor_by_id(tx: Tx, flavor_id: str) -> Flavor:
    """The flavor whoever asks, or NotFound."""
    row = tx.first(_select().where(flavors.c.flavor_id == flavor_id))
    if row is None:
        raise NotFound(f"Flavor {flavor_id} could not be found.")
    return Flavor(**row._mapping)


def find_flavor(tx: Tx, caller: Caller, flavor_id: str) -> Flavor | None:
    """The flavor if it is public, or private with access for the caller's project, or the caller an administrator."""
    row = tx.first(_select().where(flavors.c.flavor_id == flavor_id, _in_sight(caller)))
    return None if row is None else Flavor(**row._mapping)


def flavor_in_sight(tx: Tx, caller: Caller, flavor_id: str) -> Flavor:
    """As `find_flavor`, or NotFound."""
    flavor = find_flavor(tx, caller, flavor_id)
    if flavor is None:
        raise NotFound(f"Flavor {flavor_id} could not be found.")
    return flavor


FlavorView = TypedDict(
    "FlavorView",
    {
        "id": str,
        "name": str,
        "ram": int,
        "disk": int,
        "swap": int | str,
        "OS-FLV-EXT-DATA:ephemeral": int,
        "vcpus": int,
        "os-flavor-access:is_public": bool,
        "links": list[dict[str, str]],
        "OS-FLV-DISABLED:disabled": NotRequired[bool],
        "rxtx_factor": NotRequired[float | str],
        "description": NotRequired[str | None],
        "extra_specs": NotRequired[dict[str, str]],
    },
)


def flavor_view(call: Call[object, object], flavor: Flavor, *, extra_specs: bool) -> FlavorView:
    """A flavor as this microversion shows it."""
    version = call.version
    view: FlavorView = {
        "id": flavor.flavor_id,
        "name": flavor.name,
        "ram": flavor.memory_mib,
        "disk": flavor.disk_gib,
        "swap": flavor.swap_mib or (0 if version.at_least("2.75") else ""),
        "OS-FLV-EXT-DATA:ephemeral": flavor.ephemeral_gib,
        "vcpus": flavor.vcpus,
        "os-flavor-access:is_public": flavor.is_public,
        "links": links(call, "flavors", flavor.flavor_id),
    }
    if not version.at_least("2.102"):
        view["OS-FLV-DISABLED:disabled"] = flavor.disabled
        view["rxtx_factor"] = flavor.rxtx_factor or ""
    if version.at_least("2.55"):
        view["description"] = flavor.description
    if extra_specs:
        view["extra_specs"] = flavor.extra_specs
    return view


def _shows_extra_specs(call: Call[object, object]) -> bool:
    if call.version < Microversion(2, 61):
        return False
    if call.caller.project_id is None:
        # A token of the wrong scope is refused even where the rule only decides about a part of the answer.
        call.require(SHOW_EXTRA_SPECS)
    return call.authorise(SHOW_EXTRA_SPECS, None)


def _select() -> Select:
    return sa.select(*(c for c in flavors.c if c.name not in ("id", "created_at_us")))


def _accessible(project_id: str | None) -> sa.ColumnElement[bool]:
    return flavors.c.flavor_id.in_(
        sa.select(flavor_access.c.flavor_id).where(flavor_access.c.project_id == (project_id or ""))
    )


def _in_sight(caller: Caller) -> sa.ColumnElement[bool]:
    if caller.is_admin:
        return sa.true()
    return sa.or_(flavors.c.is_public.is_(True), _accessible(caller.project_id))


def _select_page(call: Call[None, None], asked: Page) -> list[Flavor]:
    query = call.query
    conditions = [_visible(call)]
    for name, size in (("minRam", flavors.c.memory_mib), ("minDisk", flavors.c.disk_gib)):
        if (text := query.get(name)) is not None:
            conditions.append(size >= _number(name, text))
    if call.version.at_least("2.102") and (wanted := query.get("name")) is not None:
        conditions.append(has_part(flavors.c.name, wanted))
    key = query.get("sort_key") or "flavorid"
    descending = (query.get("sort_dir") or "asc") == "desc"
    column = _SORT_COLUMNS[key]
    order = [column.desc(), flavors.c.id.desc()] if descending else [column.asc(), flavors.c.id.asc()]
    if asked.marker is not None:
        conditions.append(_after(call, asked.marker, column, descending))
    if not asked.limit:
        return []
    rows = call.tx.all(_select().where(*conditions).order_by(*order).limit(asked.limit))
    return [Flavor(**row._mapping) for row in rows]


def _visible(call: Call[None, None]) -> sa.ColumnElement[bool]:
    """Administrators choose with `is_public` (default: public ones); others see what they may use."""
    project_id = call.caller.project_id
    if not call.caller.is_admin:
        return sa.and_(flavors.c.disabled.is_(False), _in_sight(call.caller))
    text = call.query.get("is_public")
    if text is not None and text.lower() == "none":
        return sa.true()
    public = True if text is None else _boolean(text)
    own = _accessible(project_id) if public else sa.false()
    return sa.or_(flavors.c.is_public.is_(public), own)


def _after(call: Call[None, None], marker: str, column: Any, descending: bool) -> sa.ColumnElement[bool]:
    in_sight = sa.true() if call.caller.is_admin else _visible(call)
    at = call.tx.first(sa.select(column, flavors.c.id).where(flavors.c.flavor_id == marker, in_sight))
    if at is None:
        raise BadRequest(f"marker [{marker}] not found")
    value, number = tuple(at)
    past = column < value if descending else column > value
    past_number = flavors.c.id < number if descending else flavors.c.id > number
    return sa.or_(past, sa.and_(column == value, past_number))


def _number(name: str, text: str) -> int:
    digits = text.strip().removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) < 19):
        raise BadRequest(f"Invalid {name} filter [{text}]")
    return int(text)


def _boolean(text: str) -> bool:
    value = boolean(text)
    if value is None:
        raise BadRequest(f"Invalid is_public filter [{text}]")
    return value


def _listed(
    call: Call[object, object], path: str, asked: Page, found: list[Flavor], views: Sequence[Mapping[str, object]]
) -> dict[str, object]:
    answer: dict[str, object] = {"flavors": views}
    if following := next_links(call, path, asked, len(found), found[-1].flavor_id if found else ""):
        answer["flavors_links"] = following
    return answer
