"""Compute's services as Nova lists them: the control plane's own, and one nova-compute for every host."""

from __future__ import annotations

import uuid
from typing import Annotated

import msgspec
import sqlalchemy as sa

from cumulet.clock import iso_us
from cumulet.compute import attribute_types as t
from cumulet.compute import places
from cumulet.compute.rules import ADMIN
from cumulet.compute.service import COMPUTE
from cumulet.compute.store import hosts, migrations
from cumulet.db.engine import Row, Tx
from cumulet.errors import BadRequest, Conflict, NotFound, NotYet
from cumulet.web.formats import is_uuid
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import rule
from cumulet.web.schema import UNSET, Body, Json, LooseBool, Query, Since, Unset, Until

LIST = rule("os_compute_api:os-services:list", ADMIN)
UPDATE = rule("os_compute_api:os-services:update", ADMIN)
DELETE = rule("os_compute_api:os-services:delete", ADMIN)

COMPUTE_BINARY = "nova-compute"
INTERNAL_ZONE = "internal"
_NAMESPACE = uuid.UUID("6f2d1f0e-4a5b-5c57-9e0e-6f1b7f3f8a10")


class ServiceView(msgspec.Struct, frozen=True, kw_only=True):
    """A service as the API shows it."""

    number: int
    uuid: str
    binary: str
    host: str
    zone: str
    up: bool
    disabled: bool
    disabled_reason: str | None
    forced_down: bool
    updated_at_us: int


CONTROL_PLANE = ("nova-conductor", "nova-scheduler")
CONTROL_HOST = "control"


def services(tx: Tx, now_us: int) -> list[ServiceView]:
    """All services. The control plane's are up, or nobody would be answering."""
    own = [
        ServiceView(
            number=number,
            uuid=str(uuid.uuid5(_NAMESPACE, binary)),
            binary=binary,
            host=CONTROL_HOST,
            zone=INTERNAL_ZONE,
            up=True,
            disabled=False,
            disabled_reason=None,
            forced_down=False,
            updated_at_us=now_us,
        )
        for number, binary in enumerate(CONTROL_PLANE, start=1)
    ]
    return own + [_of_host(row, now_us) for row in tx.all(sa.select(hosts).order_by(hosts.c.name))]


def service_number(host_number: int) -> int:
    """The integer id (before 2.53) of a host's service: after those of the control plane."""
    return host_number + len(CONTROL_PLANE)


def _of_host(row: Row, now_us: int) -> ServiceView:
    up = row.up and not row.forced_down
    return ServiceView(
        number=service_number(row.id),
        uuid=row.service_uuid,
        binary=COMPUTE_BINARY,
        host=row.name,
        zone=row.zone,
        up=up,
        disabled=row.disabled,
        disabled_reason=row.disabled_reason,
        forced_down=row.forced_down,
        # Heartbeats stay in memory; the record says when an absent host was seen last.
        updated_at_us=now_us if row.up else row.seen_at_us or row.updated_at_us,
    )


class ServicesQuery(Query, closed_since="2.75"):
    host: str | None = None
    binary: str | None = None


class UpdateService(Body):
    host: Annotated[t.HostName | Unset, Until("2.52", required=True)] = UNSET
    binary: Annotated[str | Unset, Json({"minLength": 1, "maxLength": 255}), Until("2.52", required=True)] = UNSET
    status: Annotated[str | Unset, Json({"enum": ["enabled", "disabled"]}), Since("2.53")] = UNSET
    disabled_reason: Annotated[str | Unset, Json({"minLength": 1, "maxLength": 255})] = UNSET
    forced_down: Annotated[LooseBool | Unset, Since("2.11")] = UNSET


@COMPUTE.operation("GET", "/os-services", rules=(Rule(LIST),), query=ServicesQuery)
def list_services(call: Call[None, None]) -> dict[str, object]:
    """List services, optionally of one host or binary."""
    host, binary = call.query.get("host"), call.query.get("binary")
    found = [
        view
        for view in services(call.tx, call.now_us)
        if (not host or view.host == host) and (not binary or view.binary == binary)
    ]
    return {"services": [_detail(call, view) for view in found]}


@COMPUTE.operation("PUT", "/os-services/{action}", rules=(Rule(UPDATE),), body=UpdateService, until="2.52")
def update_service_by_action(call: Call[None, UpdateService]) -> dict[str, object]:
    """Enable, disable (with a reason) or force down the nova-compute of a host."""
    body, action = call.body, call.path["action"]
    answer: dict[str, object] = {"host": body.host, "binary": body.binary}
    changes: dict[str, object]
    if action == "enable":
        changes = {"disabled": False, "disabled_reason": None}
        answer["status"] = "enabled"
    elif action in ("disable", "disable-log-reason"):
        reason = body.disabled_reason if action == "disable-log-reason" else None
        if isinstance(reason, Unset):
            raise BadRequest("Missing disabled reason field")
        changes = {"disabled": True, "disabled_reason": reason}
        answer["status"] = "disabled"
        if reason:
            answer["disabled_reason"] = reason
    elif action == "force-down" and call.version.at_least("2.11"):
        if isinstance(body.forced_down, Unset):
            raise BadRequest("Missing forced_down field")
        changes = {"forced_down": body.forced_down}
        answer["forced_down"] = body.forced_down
    else:
        raise NotFound("Unknown action")
    if body.binary != COMPUTE_BINARY:
        raise _only_compute(str(body.binary))
    if not _change(call, str(body.host), changes):
        raise NotFound(f"Host '{body.host}' is not mapped to any cell")
    return {"service": answer}


def _require_uuid(call: Call[object, object]) -> None:
    if not is_uuid(call.path["service_id"]):
        raise BadRequest(f"Invalid uuid {call.path['service_id']}")


@COMPUTE.operation(
    "PUT", "/os-services/{service_id}", rules=(Rule(UPDATE),), target=_require_uuid, body=UpdateService, since="2.53"
)
def update_service(call: Call[None, UpdateService]) -> dict[str, object]:
    """Enable, disable or force down a nova-compute, named by its uuid."""
    body, service_id = call.body, call.path["service_id"]
    found = {view.uuid: view for view in services(call.tx, call.now_us)}.get(str(uuid.UUID(service_id)))
    if found is None:
        raise NotFound(f"Service {service_id} could not be found.")
    if found.binary != COMPUTE_BINARY:
        raise _only_compute(found.binary)
    changes: dict[str, object] = {}
    reason = None if isinstance(body.disabled_reason, Unset) else body.disabled_reason
    if body.status == "enabled":
        if reason:
            raise BadRequest("Specifying 'disabled_reason' with status 'enabled' is invalid.")
        changes |= {"disabled": False, "disabled_reason": None}
    elif body.status == "disabled":
        changes |= {"disabled": True, "disabled_reason": reason}
    if not isinstance(body.forced_down, Unset):
        changes["forced_down"] = body.forced_down
    if not changes:
        raise BadRequest("No updates were requested. Fields 'status' or 'forced_down' should be specified.")
    _change(call, found.host, changes)
    row = call.tx.all(sa.select(hosts).where(hosts.c.service_uuid == found.uuid))[0]
    return {"service": _detail(call, _of_host(row, call.now_us))}


@COMPUTE.operation("DELETE", "/os-services/{service_id}", rules=(Rule(DELETE),), success=204)
def delete_service(call: Call[None, None]) -> None:
    """Remove the nova-compute of a host that is gone for good."""
    service_id = call.path["service_id"]
    by_uuid = call.version.at_least("2.53")
    if by_uuid:
        _require_uuid(call)
    elif not (service_id.isascii() and service_id.isdigit()):
        raise BadRequest(f"Invalid input received: id must be an integer, got {service_id}")
    found = next(
        (
            view
            for view in services(call.tx, call.now_us)
            if (view.uuid == service_id.lower() if by_uuid else view.number == int(service_id))
        ),
        None,
    )
    if found is None:
        raise NotFound(f"Service {service_id} not found.")
    _require_unused(call.tx, found)
    raise NotYet("Removing hosts is not implemented; disable the service, and stop the host's agent.")


def _require_unused(tx: Tx, found: ServiceView) -> None:
    moving = sa.select(migrations.c.id).where(
        migrations.c.destination_host == found.host, migrations.c.ended_at_us.is_(None)
    )
    if tx.first(moving) is not None:
        raise Conflict(
            "Unable to delete compute service that has in-progress migrations. Complete the migrations or delete "
            "the instances first."
        )
    if places.any_on(tx, [found.host]):
        raise Conflict(
            "Unable to delete compute service that is hosting instances. Migrate or delete the instances first."
        )


def _change(call: Call[None, object], host: str, changes: dict[str, object]) -> int:
    call.tx.touch(host)
    return call.tx.changed(sa.update(hosts).where(hosts.c.name == host).values(updated_at_us=call.now_us, **changes))


def _only_compute(binary: str) -> BadRequest:
    return BadRequest(f"Updating a {binary} service is not supported. Only nova-compute services can be updated.")


def _detail(call: Call[object, object], view: ServiceView) -> dict[str, object]:
    detail: dict[str, object] = {
        "binary": view.binary,
        "host": view.host,
        "id": view.uuid if call.version.at_least("2.53") else view.number,
        "zone": view.zone,
        "status": "disabled" if view.disabled else "enabled",
        "state": "up" if view.up else "down",
        "updated_at": iso_us(view.updated_at_us),
        "disabled_reason": view.disabled_reason,
    }
    if call.version.at_least("2.11"):
        detail["forced_down"] = view.forced_down
    return detail
