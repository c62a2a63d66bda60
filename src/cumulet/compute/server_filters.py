"""Which servers a list shows: Nova's filters and pages, all decided in SQL."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import sqlalchemy as sa

from cumulet.compute import attribute_types as t
from cumulet.compute.links import known, page
from cumulet.compute.model import PowerState
from cumulet.compute.moments import changed_between
from cumulet.compute.pattern import LONGEST_PATTERN, Pattern, is_literal
from cumulet.compute.rules import ADMIN
from cumulet.compute.server_sorting import IGNORED_SORT_KEYS, SORT_KEYS, ZONE, after_marker, order_of
from cumulet.compute.server_status import states_of
from cumulet.compute.server_views import ROOT_DEVICE, SCSI_ROOT_DEVICE
from cumulet.compute.store import server_tags, servers
from cumulet.db.engine import Row, Select, Tx
from cumulet.db.one_of import how_many, one_of
from cumulet.db.part_of_text import has_part
from cumulet.errors import BadRequest, Forbidden
from cumulet.host.devices import SATA, SCSI, USB
from cumulet.network.store import port_addresses, ports
from cumulet.web.boolean_words import FALSE, TRUE, boolean
from cumulet.web.operation import Call
from cumulet.web.policy import rule
from cumulet.web.schema import Json, Key, NonNegativeInteger, Query, Since, Versions
from cumulet.web.value_lists import values_in

ALL_FILTERS = rule("os_compute_api:servers:allow_all_filters", ADMIN)

PAGING = frozenset({"sort_key", "sort_dir", "limit", "marker"})
JOINED_TABLES = frozenset(
    {"block_device_mapping", "services", "metadata", "system_metadata", "info_cache", "security_groups", "pci_devices"}
)
TAG_FILTERS = ("tags", "tags-any", "not-tags", "not-tags-any")
_OPEN_FILTERS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("2.1", ("reservation_id", "name", "status", "image", "flavor", "ip", "changes-since", "all_tenants")),
    ("2.5", ("ip6",)),
    ("2.26", TAG_FILTERS),
    ("2.66", ("changes-before",)),
    ("2.73", ("locked",)),
    (
        "2.83",
        (
            "availability_zone", "config_drive", "key_name", "created_at", "launched_at", "terminated_at",
            "power_state", "task_state", "vm_state", "progress", "user_id",
        ),
    ),
    ("2.90", ("hostname",)),
)  # fmt: skip
"""What callers who may not use all filters can use, by microversion. Their other filters are ignored, as upstream."""

Matched = list[str] | None
"""What Nova hands to its database as a regular expression. It is judged where it is matched, beside the event loop."""
Text = list[str] | None
Moments = list[t.Moment] | None


def _keys(*names: str) -> Any:
    return Annotated[list[str], Json({"items": {"type": "string", "enum": list(names)}})]


class ServersQuery(Query, closed_since="2.75", ignored="^_"):
    """All names that Nova knows. Names that begin with ``_`` are refused later, each by its name."""

    user_id: Text = None
    project_id: Text = None
    tenant_id: Text = None
    launch_index: Text = None
    image_ref: Text = None
    image: Text = None
    kernel_id: Matched = None
    ramdisk_id: Matched = None
    hostname: Matched = None
    key_name: Matched = None
    power_state: Matched = None
    vm_state: Text = None
    task_state: Text = None
    host: Text = None
    node: Matched = None
    flavor: Matched = None
    reservation_id: Matched = None
    launched_at: Matched = None
    terminated_at: Matched = None
    availability_zone: Matched = None
    name: Matched = None
    display_name: Matched = None
    description: Matched = None
    display_description: Matched = None
    locked_by: Matched = None
    uuid: Text = None
    root_device_name: Matched = None
    config_drive: Matched = None
    access_ip_v4: Matched = None
    access_ip_v6: Matched = None
    auto_disk_config: Matched = None
    progress: Matched = None
    sort_key: Annotated[
        list[str] | None,
        Versions(
            ("2.1", _keys(*SORT_KEYS, *IGNORED_SORT_KEYS)),
            ("2.75", _keys(*SORT_KEYS, "locked")),
        ),
    ] = None
    sort_dir: Text = None
    all_tenants: Text = None
    soft_deleted: Text = None
    deleted: Text = None
    status: Text = None
    changes_since: Annotated[Moments, Key("changes-since")] = None
    changes_before: Annotated[Moments, Key("changes-before"), Since("2.66")] = None
    ip: Matched = None
    ip6: Matched = None
    created_at: Matched = None
    block_device_mapping: Text = None
    services: Text = None
    metadata: Text = None
    system_metadata: Text = None
    info_cache: Text = None
    security_groups: Text = None
    pci_devices: Text = None
    limit: NonNegativeInteger | None = None
    marker: str | None = None
    tags: Annotated[Text, Since("2.26")] = None
    tags_any: Annotated[Text, Key("tags-any"), Since("2.26")] = None
    not_tags: Annotated[Text, Key("not-tags"), Since("2.26")] = None
    not_tags_any: Annotated[Text, Key("not-tags-any"), Since("2.26")] = None
    locked: Annotated[Text, Since("2.73")] = None


_PATTERNS = frozenset(TAG_FILTERS) | {name for name, kind in ServersQuery.__annotations__.items() if kind == "Matched"}
Condition = sa.ColumnElement[bool]


def select_servers(call: Call[object, object], columns: Select, *, all_tenants_rule: str) -> list[Row]:
    """The rows of the page asked for. `columns` selects from `servers`."""
    options = _allowed_options(call)
    conditions = _scope(call, options, all_tenants_rule)
    asked = page(call)
    order = order_of(call)
    status = _status_conditions(call, options)
    if status is None or not asked.limit:
        return []
    conditions += status
    conditions += _time_conditions(options)
    conditions += [make(value) for name, make in _EXACT.items() if (value := options.get(name)) is not None]
    if call.version.at_least("2.26"):
        conditions += [_by_tags(name, options[name]) for name in TAG_FILTERS if name in options]
    conditions += _patterns(call.tx, options, conditions)
    if asked.marker is not None:
        conditions.append(after_marker(call, asked.marker, order, project=_own_project(call, options)))
    ordered = [(column.desc() if descending else column.asc()) for column, descending in order]
    return call.tx.all(columns.where(*conditions).order_by(*ordered).limit(asked.limit))


def _allowed_options(call: Call[object, object]) -> dict[str, str]:
    if any(name.startswith("_") for name, _ in call.query.pairs):
        hidden = next(name for name, _ in call.query.pairs if name.startswith("_"))
        if call.authorise(ALL_FILTERS, None):
            raise BadRequest(f"Invalid filter field: {hidden}.")
    options = {name: value for name, value in known(call, ServersQuery).items() if name not in PAGING}
    for name in _PATTERNS & options.keys():
        _require_pattern(name, options[name])
    if not call.authorise(ALL_FILTERS, None):
        allowed = {name for since, names in _OPEN_FILTERS if call.version.at_least(since) for name in names}
        options = {name: value for name, value in options.items() if name in allowed}
    for name in options:
        if name in JOINED_TABLES:
            raise BadRequest(f"Invalid filter field: {name}.")
    return options


def _require_pattern(name: str, value: str) -> None:
    """Upstream refuses what is none also where it ignores the filter, or looks for the text as it is.

    That is judged of as much as is matched anywhere: one that is longer is refused there.
    """
    if not value:
        raise BadRequest(f"The filter {name} is empty.")
    if not is_literal(value) and len(value) <= LONGEST_PATTERN:
        Pattern(value)


# -- whose


def _scope(call: Call[object, object], options: dict[str, str], all_tenants_rule: str) -> list[Condition]:
    """The caller's own project; with `all_tenants`, if its rule allows that, the projects asked for."""
    locked = options.get("locked")
    conditions = [servers.c.locked.is_(_boolean(locked))] if locked is not None else []
    if _all_tenants(options):
        call.require(all_tenants_rule)
        project = options.get("tenant_id") or options.get("project_id")
        return conditions + ([servers.c.project_id == project] if project is not None else [])
    return [*conditions, servers.c.project_id == (call.caller.project_id or "")]


def _all_tenants(options: dict[str, str]) -> bool:
    value = options.get("all_tenants")
    return value is not None and (value == "" or _boolean(value))


def _own_project(call: Call[object, object], options: dict[str, str]) -> str | None:
    return None if _all_tenants(options) else call.caller.project_id or ""


def _boolean(text: str) -> bool:
    value = boolean(text)
    if value is None:
        words = ", ".join(map(repr, sorted(TRUE | FALSE)))
        raise BadRequest(f"Unrecognized value '{text}', acceptable values are: {words}")
    return value


# -- state and time


def _status_conditions(call: Call[object, object], options: dict[str, str]) -> list[Condition] | None:
    """The conditions for `status` (which stands for vm_states and task_states) and `deleted`. None: no server fits."""
    conditions: list[Condition] = []
    deleted = _deleted(options)
    if "status" in call.query:
        vm_states, task_states = states_of(call.query.getall("status"))
        if not vm_states:
            if call.version.at_least("2.38"):
                raise BadRequest("Invalid status value")
            return None
        if vm_states == {"deleted"}:
            if not call.caller.is_admin:
                raise Forbidden("Only administrators may list deleted instances")
            deleted = True
        conditions.append(servers.c.vm_state.in_(vm_states))
        if "default" not in task_states:
            conditions.append(servers.c.task_state.in_(task_states))
        options.pop("vm_state", None)
    if deleted is not None:
        at = servers.c.deleted_at_us
        conditions.append(at.is_not(None) if deleted else at.is_(None))
    return conditions


def _deleted(options: dict[str, str]) -> bool | None:
    """Whether only deleted servers are asked for. None: deleted and others, as when changes are asked for."""
    if (text := options.get("deleted")) is not None:
        return boolean(text) is True
    return None if "changes-since" in options or "changes-before" in options else False


def _time_conditions(options: dict[str, str]) -> list[Condition]:
    return changed_between(servers.c.updated_at_us, options.get("changes-since"), options.get("changes-before"))


# -- exact filters


def _power_state(value: str) -> Condition:
    return servers.c.power_state.in_([state.value for state in PowerState if str(state.number) == value.strip("^$")])


def _config_drive(value: str) -> Condition:
    wanted = boolean(value)
    return sa.false() if wanted is None else servers.c.config_drive.is_(wanted)


def _with_address(version: int) -> Callable[[str], Condition]:
    """Servers with an address that contains the text, as Nova asks Neutron."""
    dotted = "." if version == 4 else ":"

    def condition(value: str) -> Condition:
        wanted = value.strip("^$").replace("\\", "")
        return servers.c.id.in_(
            sa.select(ports.c.server_id)
            .join(port_addresses, port_addresses.c.port_id == ports.c.id)
            .where(
                has_part(port_addresses.c.address, wanted),
                port_addresses.c.address.contains(dotted),
                ports.c.server_id.is_not(None),
            )
        )

    return condition


_EXACT: dict[str, Callable[[str], Condition]] = {
    "user_id": lambda value: servers.c.user_id == value,
    "image": lambda value: servers.c.image_id == value,
    "image_ref": lambda value: servers.c.image_id == value,
    "vm_state": lambda value: servers.c.vm_state == value,
    "task_state": lambda value: servers.c.task_state == value,
    "uuid": lambda value: servers.c.id == value,
    "host": lambda value: servers.c.host == value,
    "flavor": lambda value: servers.c.flavor["flavor_id"].as_string() == value,
    "power_state": _power_state,
    "config_drive": _config_drive,
    "ip": _with_address(4),
    "ip6": _with_address(6),
}


def _by_tags(name: str, value: str) -> Condition:
    wanted = sorted(set(values_in(value, name)))
    held = how_many(server_tags.c.tag, wanted, server_tags.c.server_id == servers.c.id)
    enough = 1 if name.endswith("-any") else len(wanted)
    return held < enough if name.startswith("not-") else held >= enough


# -- filters that Nova matches as patterns


def _text(column: sa.ColumnElement[Any]) -> sa.ColumnElement[str]:
    return sa.func.coalesce(sa.cast(column, sa.Text), "")


_ROOT_DEVICE = sa.case(
    (sa.func.lower(servers.c.image_properties["hw_disk_bus"].as_string()).in_((SCSI, SATA, USB)), SCSI_ROOT_DEVICE),
    else_=ROOT_DEVICE,
)
_MATCHED: dict[str, sa.ColumnElement[Any]] = {
    "name": _text(servers.c.name), "display_name": _text(servers.c.name),
    "display_description": _text(servers.c.description), "hostname": _text(servers.c.hostname),
    "key_name": _text(servers.c.key_name), "reservation_id": _text(servers.c.reservation_id),
    "launch_index": _text(servers.c.launch_index), "node": _text(servers.c.host), "availability_zone": ZONE,
    "locked_by": _text(servers.c.locked_by), "access_ip_v4": _text(servers.c.access_ipv4),
    "access_ip_v6": _text(servers.c.access_ipv6), "progress": _text(servers.c.progress),
    "root_device_name": _ROOT_DEVICE, "kernel_id": sa.literal(""), "ramdisk_id": sa.literal(""),
    "auto_disk_config": sa.case((servers.c.disk_config == "AUTO", "1"), else_="0"),
}  # fmt: skip
_MOMENTS = {
    "created_at": servers.c.created_at_us,
    "launched_at": servers.c.launched_at_us,
    "terminated_at": servers.c.terminated_at_us,
}


def _patterns(tx: Tx, options: dict[str, str], conditions: Sequence[Condition]) -> list[Condition]:
    """The database looks for plain text. A real pattern is matched here, on what the other conditions leave."""
    found: list[Condition] = []
    for name, value in options.items():
        if name in _MATCHED:
            column = _MATCHED[name]
            if is_literal(value):
                found.append(has_part(column, value))
            else:
                found.append(_matching(tx, column, value, [*conditions, *found], str))
        elif name in _MOMENTS:
            found.append(_matching(tx, _MOMENTS[name], value, [*conditions, *found], _moment_text))
    return found


def _matching(
    tx: Tx, column: Any, value: str, conditions: Sequence[Condition], as_text: Callable[[Any], str]
) -> Condition:
    pattern = Pattern(value)
    rows = tx.all(sa.select(servers.c.number, column).where(*conditions))
    found = [number for number, text in map(tuple, rows) if pattern.search(as_text(text))]
    return one_of(servers.c.number, found)


def _moment_text(moment: int | None) -> str:
    return "" if moment is None else datetime.fromtimestamp(moment / 1_000_000, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
