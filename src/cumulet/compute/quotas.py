"""Quotas: how much a project may have. Limits are upstream's unless set; use is counted, never kept on the side."""

from __future__ import annotations

from collections.abc import Mapping

import sqlalchemy as sa

from cumulet.compute.model import Flavor
from cumulet.compute.resized import resized_servers
from cumulet.compute.store import server_group_members, server_groups, servers
from cumulet.conductor.saga import operations
from cumulet.db.engine import Tx, metadata
from cumulet.errors import OverQuota

quotas = sa.Table(
    "quotas",
    metadata,
    sa.Column("project_id", sa.String(64), primary_key=True),
    sa.Column("user_id", sa.String(64), primary_key=True, default=""),
    sa.Column("resource", sa.String(64), primary_key=True),
    sa.Column("hard_limit", sa.Integer, nullable=False),
)

LONGEST_CLASS_NAME = 255
quota_classes = sa.Table(
    "quota_classes",
    metadata,
    sa.Column("class_name", sa.String(LONGEST_CLASS_NAME), primary_key=True),
    sa.Column("resource", sa.String(64), primary_key=True),
    sa.Column("hard_limit", sa.Integer, nullable=False),
)

DEFAULTS: Mapping[str, int] = {
    "cores": 20, "fixed_ips": -1, "floating_ips": -1, "injected_file_content_bytes": 10240,
    "injected_file_path_bytes": 255, "injected_files": 5, "instances": 10, "key_pairs": 100, "metadata_items": 128,
    "ram": 51200, "security_group_rules": -1, "security_groups": -1, "server_group_members": 10,
    "server_groups": 10,
}  # fmt: skip
"""Upstream's own; -1 is no limit. The network service counts its own resources: here their limits are only shown."""

PER_USER_COUNTED = ("instances", "cores", "ram")


_OF_DEFAULT_CLASS = sa.select(quota_classes.c.resource, quota_classes.c.hard_limit).where(
    quota_classes.c.class_name == "default"
)
_OF_PROJECT = sa.select(quotas.c.user_id, quotas.c.resource, quotas.c.hard_limit).where(
    quotas.c.project_id == sa.bindparam("of_project")
)
_OF_USER = _OF_PROJECT.where(quotas.c.user_id == sa.bindparam("of_user"))
_OF_PROJECT_AND_USER = _OF_PROJECT.where(
    sa.or_(quotas.c.user_id == "", quotas.c.user_id == sa.bindparam("of_user"))
).order_by(quotas.c.user_id)
_USED_BY_PROJECT = sa.select(
    sa.func.count(),
    sa.func.coalesce(sa.func.sum(servers.c.flavor["vcpus"].as_integer()), 0),
    sa.func.coalesce(sa.func.sum(servers.c.flavor["memory_mib"].as_integer()), 0),
).where(servers.c.project_id == sa.bindparam("of_project"), servers.c.deleted_at_us.is_(None))
_USED_BY_USER = _USED_BY_PROJECT.where(servers.c.user_id == sa.bindparam("of_user"))


def _more(flavor: sa.ColumnElement[object], amount: str) -> sa.ColumnElement[int]:
    """How much more of `amount` this flavor has than its server's."""
    more = flavor[amount].as_integer() - servers.c.flavor[amount].as_integer()
    return sa.func.coalesce(sa.func.sum(sa.case((more > 0, more), else_=0)), 0)


_RESIZING = sa.select(
    _more(operations.c.state["flavor"], "vcpus"), _more(operations.c.state["flavor"], "memory_mib")
).where(
    operations.c.saga == "resize",
    operations.c.ended_at_us.is_(None),
    servers.c.id == operations.c.subject.concat(""),
    servers.c.project_id == sa.bindparam("of_project"),
)
_RESIZED = sa.select(_more(resized_servers.c.flavor, "vcpus"), _more(resized_servers.c.flavor, "memory_mib")).where(
    servers.c.id == resized_servers.c.server_id.concat(""), servers.c.project_id == sa.bindparam("of_project")
)
_MORE_BY_PROJECT = (_RESIZING, _RESIZED)
_MORE_BY_USER = tuple(one.where(servers.c.user_id == sa.bindparam("of_user")) for one in _MORE_BY_PROJECT)
"""What resizes hold beyond the flavors that their servers have now. Of both flavors the larger amount counts. Few
servers are being resized: `concat` makes SQLite begin with those, because it cannot use their index."""


def default_limits(tx: Tx) -> dict[str, int]:
    """What a project without limits of its own has: class `default`, then upstream's defaults."""
    return {**DEFAULTS, **{row.resource: row.hard_limit for row in tx.all(_OF_DEFAULT_CLASS, {})}}


def limits_of(tx: Tx, project_id: str, user_id: str = "") -> dict[str, int]:
    """The limits of a project, or of one of its users where narrower ones were set."""
    limits = default_limits(tx)
    rows = tx.all(_OF_PROJECT_AND_USER, {"of_project": project_id, "of_user": user_id})
    return limits | {row.resource: row.hard_limit for row in rows}


def usage_of(tx: Tx, project_id: str, user_id: str | None = None) -> dict[str, int]:
    """What the project (or one user of it) has now."""
    used = dict.fromkeys(DEFAULTS, 0)
    used["instances"], used["cores"], used["ram"] = _servers_used(tx, project_id, user_id)
    groups = sa.select(sa.func.count()).select_from(server_groups).where(server_groups.c.project_id == project_id)
    if user_id:
        groups = groups.where(server_groups.c.user_id == user_id)
    used["server_groups"] = tx.scalar(groups)
    return used


def _servers_used(tx: Tx, project_id: str, user_id: str | None) -> tuple[int, int, int]:
    values = {"of_project": project_id} | ({"of_user": user_id} if user_id else {})
    count, cores, ram = tuple(tx.all(_USED_BY_USER if user_id else _USED_BY_PROJECT, values)[0])
    for statement in _MORE_BY_USER if user_id else _MORE_BY_PROJECT:
        more_cores, more_ram = tuple(tx.all(statement, values)[0])
        cores, ram = cores + more_cores, ram + more_ram
    return int(count), int(cores), int(ram)


def require_limit(limits: Mapping[str, int], resource: str, wanted: int, *, words: str) -> None:
    """403 with `words` if `wanted` in all would be over the limit."""
    limit = limits[resource]
    if 0 <= limit < wanted:
        raise OverQuota(words.format(allowed=limit))


def require_headroom(tx: Tx, resource: str, wanted: int, *, words: str, project_id: str = "") -> None:
    require_limit(limits_of(tx, project_id), resource, wanted, words=words)


def require_group_member_room(tx: Tx, project_id: str, user_id: str, group_id: str, count: int) -> None:
    """403 if the group would get too many members of this user's."""
    used = tx.scalar(
        sa.select(sa.func.count())
        .select_from(server_group_members.join(servers, servers.c.id == server_group_members.c.server_id))
        .where(
            server_group_members.c.group_id == group_id,
            servers.c.user_id == user_id,
            servers.c.deleted_at_us.is_(None),
        )
    )
    limits = limits_of(tx, project_id, user_id)
    require_limit(limits, "server_group_members", used + count, words="Quota exceeded, too many servers in group")


def how_many_servers(tx: Tx, project_id: str, user_id: str, flavor: Flavor, least: int, most: int) -> int:
    """How many of `least` to `most` servers of a flavor the quotas allow: as many as there is room for, or 403.

    A user with limits of their own has to keep them and the project's. Where nothing is limited nothing is counted.
    """
    own = {row.resource for row in tx.all(_OF_USER, {"of_project": project_id, "of_user": user_id})}
    each = {"instances": 1, "cores": flavor.vcpus, "ram": flavor.memory_mib}
    allowed = most
    for counted_user in (user_id, None) if own & set(PER_USER_COUNTED) else (None,):
        limits = limits_of(tx, project_id, counted_user or "")
        limited = {resource: size for resource, size in each.items() if size and limits[resource] >= 0}
        if not limited:
            continue
        used = dict(zip(PER_USER_COUNTED, _servers_used(tx, project_id, counted_user), strict=True))
        for resource, size in limited.items():
            allowed = min(allowed, max(0, limits[resource] - used[resource]) // size)
        if allowed < least:
            raise _too_many(limits, used, each, least, most)
    return allowed


def _too_many(
    limits: Mapping[str, int], used: Mapping[str, int], each: Mapping[str, int], least: int, most: int
) -> OverQuota:
    overs = [r for r, size in each.items() if 0 <= limits[r] < used[r] + size * most]
    asked = {r: str(size * most) for r, size in each.items()}
    asked["instances"] = str(least) if least == most else f"{least}-{most}"
    return OverQuota(
        f"Quota exceeded for {', '.join(overs)}: Requested {', '.join(asked[r] for r in overs)},"
        f" but already used {', '.join(str(used[r]) for r in overs)}"
        f" of {', '.join(str(limits[r]) for r in overs)} {', '.join(overs)}"
    )
