"""/policies: texts that administrators keep for other services, and for which endpoints (OS-ENDPOINT-POLICY).

Cumulet's own services read none of them: their rules come from the operator's policy file.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec.structs import asdict
from sqlalchemy import (
    JSON,
    Column,
    ColumnElement,
    ForeignKey,
    Index,
    Table,
    Text,
    and_,
    delete,
    insert,
    select,
    text,
    update,
)

from cumulet.db.engine import Row, Tx, metadata
from cumulet.errors import NotFound
from cumulet.identity import store
from cumulet.identity.api import (
    IDENTITY,
    collection,
    known,
    member,
    new_id,
)
from cumulet.identity.endpoint_filters import endpoint_view, reads, writes
from cumulet.identity.immutable import given_extra
from cumulet.identity.listing import On, filtered
from cumulet.web.operation import Call
from cumulet.web.schema import UNSET, Body, Empty, Json, Query, Unset

policies = Table(
    "identity_policies",
    metadata,
    Column("id", Text, primary_key=True),
    Column("type", Text, nullable=False),
    Column("blob", Text, nullable=False),
    Column("extra", JSON, nullable=False, default=dict),
)

associations = Table(
    "identity_policy_associations",
    metadata,
    Column("policy_id", Text, ForeignKey(policies.c.id, ondelete="CASCADE"), nullable=False, index=True),
    Column("endpoint_id", Text, ForeignKey(store.endpoints.c.id, ondelete="CASCADE"), index=True),
    Column("service_id", Text, ForeignKey(store.services.c.id, ondelete="CASCADE"), index=True),
    Column("region_id", Text, ForeignKey(store.regions.c.id, ondelete="CASCADE"), index=True),
)
"""A policy for one endpoint, for a service, or for a service in a region; for each of these there is one at most."""
Index(
    "uq_identity_policy_associations",
    text("coalesce(endpoint_id, '')"),
    text("coalesce(service_id, '')"),
    text("coalesce(region_id, '')"),
    unique=True,
)


LONGEST_BLOB = 65_535
Type = Annotated[str, Json({"minLength": 1, "maxLength": 255, "format": "one line"})]
Blob = Annotated[str, Json({"maxLength": LONGEST_BLOB})]


class NewPolicy(Body, extra="allow"):
    type: Type
    blob: Blob


class PolicyChanges(Body, extra="allow", min_properties=1):
    type: Type | Unset = UNSET
    blob: Blob | Unset = UNSET


class PolicyText(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    type: str
    blob: str
    extra: dict[str, object]


def _view(call: Call[object, object], policy: PolicyText) -> dict[str, object]:
    links = member(call, "policies", policy.id)
    return {**policy.extra, "id": policy.id, "type": policy.type, "blob": policy.blob, "links": links}


def _by_id(tx: Tx, identifier: str) -> PolicyText:
    return known(store.one(tx, PolicyText, select(policies).where(policies.c.id == identifier)), "policy", identifier)


def _policy(call: Call[object, object]) -> PolicyText:
    return _by_id(call.tx, call.path["policy_id"])


class ListPolicies(Query):
    type: Annotated[str | Unset, On(policies.c.type)] = UNSET


@IDENTITY.operation("GET", "/policies", rules=(reads("list_policies"),), query=ListPolicies)
def list_policies(call: Call[None, None]) -> dict[str, object]:
    """List policies."""
    statement = filtered(call, select(policies)).order_by(policies.c.id).limit(call.cloud.settings.largest_page)
    views = [_view(call, policy) for policy in store.many(call.tx, PolicyText, statement)]
    return collection(call, "policies", "policies", views)


@IDENTITY.operation("GET", "/policies/{policy_id}", rules=(reads("get_policy"),))
def show_policy(call: Call[None, None]) -> dict[str, object]:
    """Show a policy."""
    return {"policy": _view(call, _policy(call))}


@IDENTITY.operation(
    "POST", "/policies", rules=(writes("create_policy"),), body=NewPolicy, body_key="policy", success=201
)
def create_policy(call: Call[None, NewPolicy]) -> dict[str, object]:
    """Keep a policy."""
    body = call.body
    policy = PolicyText(id=new_id(call.cloud.clock), type=body.type, blob=body.blob, extra=given_extra(body))
    call.tx.execute(insert(policies).values(**asdict(policy)))
    return {"policy": _view(call, policy)}


@IDENTITY.operation(
    "PATCH", "/policies/{policy_id}", rules=(writes("update_policy"),), body=PolicyChanges, body_key="policy"
)
def update_policy(call: Call[None, PolicyChanges]) -> dict[str, object]:
    """Change a policy."""
    policy, body = _policy(call), call.body
    values: dict[str, object] = {n: v for n in ("type", "blob") if (v := getattr(body, n)) is not UNSET}
    values["extra"] = {**policy.extra, **given_extra(body)}
    call.tx.execute(update(policies).where(policies.c.id == policy.id).values(**values))
    return {"policy": _view(call, _policy(call))}


@IDENTITY.operation("DELETE", "/policies/{policy_id}", rules=(writes("delete_policy"),), success=204)
def delete_policy(call: Call[None, None]) -> None:
    """Delete a policy."""
    call.tx.execute(delete(policies).where(policies.c.id == _policy(call).id))


# -- for which endpoints

BASE = "/policies/{policy_id}/OS-ENDPOINT-POLICY"
_TABLES = {"endpoint": store.endpoints, "service": store.services, "region": store.regions}


def _place(call: Call[object, object]) -> dict[str, str | None]:
    """What the path names: an endpoint, a service, or a service in a region; 404 where it does not exist."""
    place: dict[str, str | None] = {}
    for kind, table in _TABLES.items():
        identifier = call.path.get(f"{kind}_id")
        if identifier is not None:
            known(call.tx.first(select(table.c.id).where(table.c.id == identifier)), kind, identifier)
        place[f"{kind}_id"] = identifier
    return place


def _exactly(place: dict[str, str | None]) -> ColumnElement[bool]:
    a = associations.c
    return and_(*(a[name].is_(None) if value is None else a[name] == value for name, value in place.items()))


def _check(call: Call[object, object]) -> ColumnElement[bool]:
    policy = _policy(call)
    there = and_(associations.c.policy_id == policy.id, _exactly(_place(call)))
    if call.tx.first(select(associations).where(there)) is None:
        raise NotFound(f"Could not find policy association of {policy.id}.")
    return there


def _declare(path: str, suffix: str) -> None:
    at = f"{BASE}/{path}"

    @IDENTITY.operation("GET", at, rules=(reads(f"check_policy_association_for_{suffix}"),), success=204)
    def check_policy_association(call: Call[None, None]) -> None:
        """Say whether a policy is the one for an endpoint, a service, or a service in a region."""
        _check(call)

    @IDENTITY.operation("PUT", at, rules=(writes(f"create_policy_association_for_{suffix}"),), body=Empty, success=204)
    def create_policy_association(call: Call[None, Empty]) -> None:
        """Make a policy the one for an endpoint, a service, or a service in a region."""
        policy, place = _policy(call), _place(call)
        call.tx.execute(delete(associations).where(_exactly(place)))
        call.tx.execute(insert(associations).values(policy_id=policy.id, **place))

    @IDENTITY.operation("DELETE", at, rules=(writes(f"delete_policy_association_for_{suffix}"),), success=204)
    def delete_policy_association(call: Call[None, None]) -> None:
        """End a policy's association with an endpoint, a service, or a service in a region."""
        call.tx.execute(delete(associations).where(_check(call)))


_declare("endpoints/{endpoint_id}", "endpoint")
_declare("services/{service_id}", "service")
_declare("services/{service_id}/regions/{region_id}", "region_and_service")


def _policy_id_for(tx: Tx, endpoint: Row) -> str | None:
    """The policy of an endpoint itself, else of its service in its region or those above, else of its service."""
    places: list[dict[str, str | None]] = [{"endpoint_id": endpoint.id, "service_id": None, "region_id": None}]
    region_id, seen = endpoint.region_id, set[str]()
    while region_id is not None and region_id not in seen:
        seen.add(region_id)
        places.append({"endpoint_id": None, "service_id": endpoint.service_id, "region_id": region_id})
        parent = tx.first(select(store.regions.c.parent_region_id).where(store.regions.c.id == region_id))
        region_id = parent.parent_region_id if parent is not None else None
    places.append({"endpoint_id": None, "service_id": endpoint.service_id, "region_id": None})
    for place in places:
        row = tx.first(select(associations.c.policy_id).where(_exactly(place)))
        if row is not None:
            return str(row.policy_id)
    return None


@IDENTITY.operation("GET", f"{BASE}/endpoints", rules=(reads("list_endpoints_for_policy"),))
def list_endpoints_for_policy(call: Call[None, None]) -> dict[str, object]:
    """List the endpoints that a policy is for."""
    policy = _policy(call)
    rows = call.tx.all(select(store.endpoints).order_by(store.endpoints.c.id).limit(call.cloud.settings.largest_page))
    views = [endpoint_view(call, row) for row in rows if _policy_id_for(call.tx, row) == policy.id]
    return collection(call, f"policies/{policy.id}/OS-ENDPOINT-POLICY/endpoints", "endpoints", views)


@IDENTITY.operation(
    "GET", "/endpoints/{endpoint_id}/OS-ENDPOINT-POLICY/policy", rules=(reads("get_policy_for_endpoint"),)
)
def show_policy_for_endpoint(call: Call[None, None]) -> dict[str, object]:
    """Show the policy for an endpoint."""
    identifier = call.path["endpoint_id"]
    found = call.tx.first(select(store.endpoints).where(store.endpoints.c.id == identifier))
    policy_id = _policy_id_for(call.tx, known(found, "endpoint", identifier))
    if policy_id is None:
        raise NotFound(f"No policy is associated with endpoint {identifier}.")
    return {"policy": _view(call, _by_id(call.tx, policy_id))}
