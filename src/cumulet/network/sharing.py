"""What is shared with a project: the objects that an RBAC policy names for it, or for every project.

Only RBAC policies say so. The attribute `shared` of a network, which each project sees for itself, follows from them.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterator, Mapping, Sequence
from enum import StrEnum

import msgspec
import sqlalchemy as sa

from cumulet.clock import Clock
from cumulet.db.engine import Tx
from cumulet.db.parts import OfMany
from cumulet.network import filtering
from cumulet.network.filtering import Condition
from cumulet.network.group_records import security_groups
from cumulet.network.qos_records import qos_policies
from cumulet.network.rbac_records import RbacPolicy, rbac_policies
from cumulet.network.store import erase, find_by, insert, networks
from cumulet.network.subnet_pool_records import subnet_pools
from cumulet.web.operation import Call

EVERYBODY = "*"


class Shareable(StrEnum):
    """What RBAC policies are about: their `object_type`."""

    NETWORK = "network"
    SECURITY_GROUP = "security_group"
    ADDRESS_GROUP = "address_group"
    SUBNET_POOL = "subnetpool"
    QOS_POLICY = "qos_policy"
    ADDRESS_SCOPE = "address_scope"


class Action(StrEnum):
    SHARED = "access_as_shared"
    EXTERNAL = "access_as_external"
    """Of networks only: gateways of routers and floating IPs may be on it."""


_T = rbac_policies.c
_OLDER_COLUMNS: Mapping[str, sa.Table] = {Shareable.NETWORK: networks, Shareable.SUBNET_POOL: subnet_pools}
"""The tables whose column `shared` is read and written by control planes of the version before."""


class Sharing(msgspec.Struct, frozen=True, kw_only=True):
    """How a kind of resource is shared: by RBAC policies on the object whose id is in `column`."""

    object_type: Shareable
    column: sa.Column[str]
    shown: bool = True
    """Whether a resource shows `shared` as an attribute. Otherwise only policy knows it."""

    @property
    def for_everybody(self) -> sa.ColumnElement[bool]:
        """The order of lists by `shared`: whether it is shared with every project. `shared` depends on the caller."""
        return self.column.in_(with_project(self.object_type, None))

    def condition(self, project_id: str | None, values: Sequence[str]) -> Condition:
        """The filter of a list by whether an object is shared with this project."""
        shared = self.column.in_(with_project(self.object_type, project_id))
        return sa.or_(*(shared if value else ~shared for value in {filtering.truth(value) for value in values}))


GROUP_SHARING = Sharing(object_type=Shareable.SECURITY_GROUP, column=security_groups.c.id)
QOS_SHARING = Sharing(object_type=Shareable.QOS_POLICY, column=qos_policies.c.id)


def with_project(
    object_type: Shareable, project_id: str | sa.BindParameter[str] | None, *more: Action
) -> sa.Select[str]:
    """Ids of the objects that are shared with a project or with every project. None: with every project only.

    more: further actions that count as shared.
    """
    targets = (EVERYBODY,) if project_id is None else (EVERYBODY, project_id)
    return sa.select(_T.object_id).where(
        _T.object_type == object_type,
        _T.action.in_((Action.SHARED, *more)),
        _T.target_project.in_(targets),
        *_not_taken_back(object_type, *more),
    )


def _not_taken_back(object_type: Shareable, *more: Action) -> Iterator[sa.ColumnElement[bool]]:
    """Leave out what a control plane of the version before has unshared: it changes the columns, not the policies."""
    table = _OLDER_COLUMNS.get(object_type)
    if table is not None:
        kept = _T.object_id.in_(sa.select(table.c.id).where(table.c.shared))
        yield sa.or_(_T.action != Action.SHARED, _T.target_project != EVERYBODY, kept)
    if Action.EXTERNAL in more:
        yield sa.or_(
            _T.action != Action.EXTERNAL, _T.object_id.in_(sa.select(networks.c.id).where(networks.c.external))
        )


def among(tx: Tx, object_type: Shareable, ids: Collection[str], project_id: str | None) -> set[str]:
    """Which of these objects are shared with a project."""
    return {row[0] for row in _among(object_type).rows(tx, sorted(ids), project_id=project_id)}


@functools.cache
def _among(object_type: Shareable) -> OfMany[str]:
    """A project of None matches none."""
    return OfMany(with_project(object_type, sa.bindparam("project_id", type_=sa.String)), _T.object_id)


def with_caller(call: Call[object, object], network_id: str) -> bool:
    """Whether a network is shared with the caller's project."""
    return bool(among(call.tx, Shareable.NETWORK, [network_id], call.caller.project_id))


def require_everybody(call: Call[object, object], project_id: str) -> None:
    """403 unless the caller may create the RBAC policy that shares with every project."""
    facts = {"project_id": project_id, "target_project": EVERYBODY}
    call.require("create_rbac_policy:target_project", facts)


def share(
    tx: Tx, clock: Clock, object_type: Shareable, object_id: str, *, owner: str, target: str, action: Action
) -> RbacPolicy:
    """Add an RBAC policy. `owner`: the project that the policy belongs to."""
    if target == EVERYBODY and action is Action.SHARED:
        tell_older(tx, object_type, object_id, shared=True)
    return insert(
        tx,
        RbacPolicy,
        clock,
        project_id=owner,
        object_type=object_type,
        object_id=object_id,
        target_project=target,
        action=action,
    )


def tell_older(tx: Tx, object_type: str, object_id: str, *, shared: bool) -> None:
    """Record for control planes of the version before whether an object is shared with every project."""
    table = _OLDER_COLUMNS.get(object_type)
    if table is not None:
        tx.execute(sa.update(table).where(table.c.id == object_id).values(shared=shared))


def entries(tx: Tx, object_id: str, action: Action) -> list[RbacPolicy]:
    """The RBAC policies on an object for an action."""
    return find_by(tx, RbacPolicy, object_id=object_id, action=action)


def end_all(tx: Tx, object_id: str, action: Action) -> None:
    """Remove the RBAC policies on an object for an action."""
    erase(tx, rbac_policies, object_id=object_id, action=action)
