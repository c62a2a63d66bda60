"""What a project may use of others': whatever an RBAC policy names for it, or for every project.

Nothing else says that something is shared: `shared` of a network, as each project sees it, follows from this.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from enum import StrEnum

import msgspec
import sqlalchemy as sa

from cumulet.clock import Clock
from cumulet.db.engine import Select, Tx
from cumulet.db.parts import in_parts
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
    """Of networks: routers' gateways and floating IPs may be on it."""


_T = rbac_policies.c
_OLDER_COLUMNS: Mapping[str, sa.Table] = {Shareable.NETWORK: networks, Shareable.SUBNET_POOL: subnet_pools}
"""Where control planes of the version before read, and write, whether a thing is shared with everybody."""


class Sharing(msgspec.Struct, frozen=True, kw_only=True):
    """How a kind of resource is shared: by policies on the object that `column` names."""

    object_type: Shareable
    column: sa.Column[str]
    shown: bool = True
    """Whether a resource shows it as an attribute of its own; else it is only known to policy."""

    @property
    def for_everybody(self) -> sa.ColumnElement[bool]:
        """What lists are ordered by where they shall be by `shared`, which is another for each who asks."""
        return self.column.in_(with_project(self.object_type, None))

    def condition(self, project_id: str | None, values: Sequence[str]) -> Condition:
        """A list's filter: whether it is shared with the project that asks."""
        shared = self.column.in_(with_project(self.object_type, project_id))
        return sa.or_(*(shared if value else ~shared for value in {filtering.truth(value) for value in values}))


GROUP_SHARING = Sharing(object_type=Shareable.SECURITY_GROUP, column=security_groups.c.id)
QOS_SHARING = Sharing(object_type=Shareable.QOS_POLICY, column=qos_policies.c.id)


def with_project(object_type: Shareable, project_id: str | None, *more: Action) -> Select:
    """Ids of the objects that are shared with a project, or with every one. None: with every one.

    more: actions that count as well.
    """
    targets = (EVERYBODY,) if project_id is None else (EVERYBODY, project_id)
    return sa.select(_T.object_id).where(
        _T.object_type == object_type,
        _T.action.in_((Action.SHARED, *more)),
        _T.target_project.in_(targets),
        *_not_taken_back(object_type, *more),
    )


def _not_taken_back(object_type: Shareable, *more: Action) -> Iterator[sa.ColumnElement[bool]]:
    """A control plane of the version before ends what is everybody's in the columns alone; its policy stays."""
    table = _OLDER_COLUMNS.get(object_type)
    if table is not None:
        kept = _T.object_id.in_(sa.select(table.c.id).where(table.c.shared))
        yield sa.or_(_T.action != Action.SHARED, _T.target_project != EVERYBODY, kept)
    if Action.EXTERNAL in more:
        yield sa.or_(
            _T.action != Action.EXTERNAL, _T.object_id.in_(sa.select(networks.c.id).where(networks.c.external))
        )


def among(tx: Tx, object_type: Shareable, ids: Collection[str], project_id: str | None) -> set[str]:
    """Those of these objects that are shared with a project."""
    wanted = with_project(object_type, project_id)
    return {str(row[0]) for part in in_parts(sorted(ids)) for row in tx.all(wanted.where(_T.object_id.in_(part)))}


def with_caller(call: Call[object, object], network_id: str) -> bool:
    """Whether a network is shared with the project of a caller."""
    return bool(among(call.tx, Shareable.NETWORK, [network_id], call.caller.project_id))


def share(
    tx: Tx, clock: Clock, object_type: Shareable, object_id: str, *, owner: str, target: str, action: Action
) -> RbacPolicy:
    """Add a policy. `owner`: the project that it belongs to."""
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
    """Record for control planes of the version before whether a thing is shared with everybody."""
    table = _OLDER_COLUMNS.get(object_type)
    if table is not None:
        tx.execute(sa.update(table).where(table.c.id == object_id).values(shared=shared))


def entries(tx: Tx, object_id: str, action: Action) -> list[RbacPolicy]:
    """Whom an object is shared with."""
    return find_by(tx, RbacPolicy, object_id=object_id, action=action)


def end_all(tx: Tx, object_id: str, action: Action) -> None:
    """Nobody has this of an object any more."""
    erase(tx, rbac_policies, object_id=object_id, action=action)
