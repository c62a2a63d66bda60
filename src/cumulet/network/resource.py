"""What all kinds of resources have in common in the API: sight, filters, order, pages, fields, bulk creation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import msgspec
import sqlalchemy as sa

from cumulet.clock import iso_z
from cumulet.db.engine import Tx
from cumulet.errors import BadRequest, NotFound
from cumulet.network import filtering, paging, policy, sharing
from cumulet.network.filtering import Column, Condition, Filter, Reader
from cumulet.network.resource_columns import LONGEST_PROJECT_ID, Resource
from cumulet.network.sharing import Sharing
from cumulet.network.sight import SEES_ALL_ROLES, with_id
from cumulet.network.store import SOURCES, load, select
from cumulet.web.annotations import declared
from cumulet.web.formats import is_one_line
from cumulet.web.operation import Call, Caller
from cumulet.web.schema import UNSET, Body, Key

RecordT = TypeVar("RecordT", bound=Resource)
RecordT_co = TypeVar("RecordT_co", bound=Resource, covariant=True)
View = dict[str, object]


def nothing_more(_tx: Tx, records: Sequence[Resource]) -> list[View]:
    return [{} for _ in records]


class Kind(msgspec.Struct, Generic[RecordT_co], frozen=True, kw_only=True):
    """One kind of resource: how it is found and shown. Its functions get records of this kind only."""

    record: type[RecordT_co]
    singular: str
    plural: str
    title: str
    """As in ``Network 1234 could not be found.``"""
    show: str
    """The rule for seeing one."""
    sight: Callable[[Caller], Condition] | None
    """Which ones a caller finds. None: they are nobody's, so whoever `show` lets through finds all of them."""
    filters: Mapping[str, Filter | Sharing]
    """The filters of a list, beside tags. Other names in a query are refused."""
    sorts: Mapping[str, Column]
    """The attributes that a list can be ordered by."""
    views: Callable[[Tx, Sequence[RecordT_co]], list[View]]
    hidden: Mapping[str, str]
    """Attributes that need a rule to be seen: {attribute: rule}."""
    parents: Callable[[Tx, Sequence[RecordT_co]], list[View]] = nothing_more
    """Policy facts that a view does not have, such as the owner of a parent."""
    sharing: Sharing | None = None
    """How it, or the network that it is on, is shared with other projects."""
    place: str = ""
    """The path of its list, where it differs from `plural`."""

    @property
    def table(self) -> sa.FromClause:
        return SOURCES[self.record]


def resource_view(record: Resource, tags: Sequence[str] | None) -> View:
    """The attributes that every resource shows. `tags` None: this kind has none."""
    view: View = {
        "id": record.id,
        "project_id": record.project_id,
        "tenant_id": record.project_id,
        "description": record.description,
        "revision_number": record.revision,
        "created_at": iso_z(record.created_at_us),
        "updated_at": iso_z(record.updated_at_us),
    }
    if tags is not None:
        view["tags"] = list(tags)
    return view


def filters_on(table: sa.Table, *names: str, **readers: Reader) -> dict[str, Filter]:
    """Filters on columns, by attribute: those of every resource, and columns named like their attribute.

    readers: {attribute: how its values are spelled in the column}.
    """
    columns: dict[str, Column] = {name: table.c[name] for name in ("id", *names, *readers)}
    columns |= {"project_id": table.c.project_id, "tenant_id": table.c.project_id}
    columns |= {"description": table.c.description, "revision_number": table.c.revision}
    return {name: filtering.by_column(column, name, readers.get(name)) for name, column in columns.items()}


def sorts_on(table: sa.Table, *names: str) -> dict[str, Column]:
    """Columns to order by, by attribute: those of every resource, and columns named like their attribute."""
    columns: dict[str, Column] = {name: table.c[name] for name in ("id", *names)}
    return columns | {"project_id": table.c.project_id, "tenant_id": table.c.project_id}


# -- one resource


def facts_of(kind: Kind[RecordT], call: Call[object, object], record: RecordT) -> View:
    """Policy facts of a record: what it shows, who owns its parents, and whether it is shared with the caller."""
    views, parents = _views(call, kind, [record])
    return views[0] | parents[0]


def _views(
    call: Call[object, object], kind: Kind[RecordT], records: Sequence[RecordT]
) -> tuple[list[View], list[View]]:
    """For each record its view, and its further policy facts."""
    views, parents = kind.views(call.tx, records), kind.parents(call.tx, records)
    if kind.sharing is not None:
        object_ids = [str(getattr(record, kind.sharing.column.name)) for record in records]
        shared = sharing.among(call.tx, kind.sharing.object_type, set(object_ids), call.caller.project_id)
        for view, object_id in zip(views if kind.sharing.shown else parents, object_ids, strict=True):
            view["shared"] = object_id in shared
    return views, parents


def in_sight(call: Call[object, object], kind: Kind[Resource]) -> Condition:
    """Which records the caller finds, for lists, the links of their pages, markers and single records alike."""
    if kind.sight is not None:
        return kind.sight(call.caller)
    return sa.true() if call.authorise(kind.show, {}) else sa.false()


def find_in_sight(call: Call[object, object], kind: Kind[RecordT], record_id: str) -> RecordT:
    """The record if the caller may see it; else 404, the same as for an id that does not exist."""
    found = with_id(call.tx, kind.record, record_id, in_sight(call, kind))
    if not found or not call.authorise(kind.show, facts_of(kind, call, found[0])):
        raise unknown(kind, record_id)
    return found[0]


def found_in_sight(call: Call[object, object], kind: Kind[RecordT], record_ids: Sequence[str]) -> dict[str, RecordT]:
    """Those of up to a thousand records that the caller may see, by id."""
    found = load(call.tx, kind.record, select(kind.record, kind.table.c.id.in_(record_ids), in_sight(call, kind)))
    known = zip(found, *_views(call, kind, found), strict=True)
    return {record.id: record for record, view, parents in known if call.authorise(kind.show, view | parents)}


def unknown(kind: Kind[Resource], record_id: str) -> NotFound:
    name = "".join(word[:1].upper() + word[1:] for word in kind.title.split())
    return NotFound(f"{kind.title} {record_id} could not be found.", reason=f"{name}NotFound")


def target(kind: Kind[RecordT]) -> Callable[[Call[object, object]], RecordT]:
    """Loads the resource in the path, for `@operation(target=...)`."""
    parameter = f"{kind.singular}_id"
    return lambda call: find_in_sight(call, kind, call.path[parameter])


def target_facts(kind: Kind[RecordT]) -> Callable[[Call[RecordT, object]], View]:
    """Policy facts of the target, for `@operation(facts=...)`."""
    return lambda call: facts_of(kind, call, call.target)


def shown(call: Call[object, object], kind: Kind[RecordT], record: RecordT) -> View:
    """The answer to a request for, or a change of, one resource."""
    return {kind.singular: _shown(call, kind, [record], may_see=True)[0]}


def shown_many(call: Call[object, object], kind: Kind[RecordT], records: Sequence[RecordT]) -> View:
    """The answer to the creation of several."""
    return {kind.plural: _shown(call, kind, records, may_see=True)}


def _shown(call: Call[object, object], kind: Kind[RecordT], records: Sequence[RecordT], *, may_see: bool) -> list[View]:
    wanted = frozenset(call.query.getall("fields"))
    out: list[View] = []
    for view, parents in zip(*_views(call, kind, records), strict=True):
        facts = view | parents if parents else view
        if not may_see and not call.authorise(kind.show, facts):
            continue
        for attribute, name in kind.hidden.items():
            if attribute in view and not call.authorise(name, facts):
                facts = facts if facts is not view else dict(view)
                del view[attribute]
        out.append({name: value for name, value in view.items() if name in wanted} if wanted else view)
    return out


# -- lists

MOST_AT_ONCE = 16
"""Resources that one request may make. They are made in one transaction, during which nobody else writes."""
_CONTROLS = frozenset({"fields", "sort_key", "sort_dir", "limit", "marker", "page_reverse"})


def listed(call: Call[object, object], kind: Kind[RecordT]) -> View:
    """The answer to a list request: what the caller sees, filtered and sorted, one page of it, with links."""
    statement = select(kind.record, in_sight(call, kind), *_conditions(call, kind))
    limit = paging.limit(call)
    marker = call.query.get("marker") if paging.asks_for_pages(call) else None
    reverse = paging.flag(call, "page_reverse")
    keys = _sort_keys(call, kind)
    if reverse:
        keys = [(column, not descending) for column, descending in keys]
    if marker is not None:
        statement = statement.where(_after(call, kind, keys, marker))
    for column, descending in keys:
        statement = statement.order_by(column.desc() if descending else column.asc())
    statement = statement.limit(limit)
    records = load(call.tx, kind.record, statement)
    if reverse:
        records.reverse()
    answer: View = {kind.plural: _shown(call, kind, records, may_see=False)}
    if links := paging.links(
        call, kind.place or kind.plural.replace("_", "-"), [one.id for one in records], limit, marker
    ):
        answer[f"{kind.plural}_links"] = links
    return answer


def _conditions(call: Call[object, object], kind: Kind[Resource]) -> list[Condition]:
    conditions: list[Condition] = []
    invalid: list[str] = []
    for name in call.query.names():
        values = call.query.getall(name)
        if name in _CONTROLS:
            continue
        if name in kind.filters and name in kind.hidden and not _may_ask(call, kind, name):
            # A filter must not reveal an attribute that is hidden from the caller.
            conditions.append(sa.false())
        elif name in kind.filters:
            wanted = kind.filters[name]
            if isinstance(wanted, Sharing):
                conditions.append(wanted.condition(call.caller.project_id, values))
            else:
                conditions.append(wanted(values))
        elif name in filtering.TAGS and "tags" in kind.hidden:
            conditions.append(filtering.by_tags(kind.table, name, values))
        else:
            invalid.append(name)
    if invalid:
        raise BadRequest(f"{invalid} is invalid attribute for filtering")
    return conditions


def _may_ask(call: Call[object, object], kind: Kind[Resource], attribute: str) -> bool:
    return call.authorise(kind.hidden[attribute], {"project_id": call.caller.project_id})


def _sort_keys(call: Call[object, object], kind: Kind[Resource]) -> list[tuple[Column, bool]]:
    """(column, descending) for each key. The id is the last key, so that the order is total."""
    names, directions = call.query.getall("sort_key"), call.query.getall("sort_dir")
    if len(names) != len(directions):
        raise BadRequest("The number of sort_keys and sort_dirs must be same")
    keys: dict[str, tuple[Column, bool]] = {}
    for name, direction in zip(names, directions, strict=True):
        if name not in kind.sorts or (name in kind.hidden and not _may_ask(call, kind, name)):
            raise BadRequest(f"{[name]} is invalid attribute for sort_keys")
        if direction not in ("asc", "desc"):
            raise BadRequest(f"{[direction]} is invalid value for sort_dirs, valid value is 'asc' and 'desc'")
        keys.setdefault(name, (_comparable(kind.sorts[name]), direction == "desc"))
    return [*(keys.values() or [(kind.table.c.created_at_us, False)]), (kind.table.c.id, False)]


def _comparable(column: Column) -> Column:
    """The column without nulls and booleans, so that a page can start after any value."""
    if isinstance(column.type, sa.Boolean):
        return sa.cast(column, sa.Integer)
    return sa.func.coalesce(column, -1 if isinstance(column.type, sa.Integer) else "")


def _after(
    call: Call[object, object], kind: Kind[Resource], keys: Sequence[tuple[Column, bool]], marker: str
) -> Condition:
    """The condition for what follows the marker in the order of `keys`. 404 for a marker out of sight."""
    statement = sa.select(*(column for column, _ in keys)).where(kind.table.c.id == marker, in_sight(call, kind))
    row = call.tx.first(statement)
    if row is None:
        raise unknown(kind, marker)
    steps: list[Condition] = []
    for n, (column, descending) in enumerate(keys):
        same = [earlier == row[i] for i, (earlier, _) in enumerate(keys[:n])]
        steps.append(sa.and_(*same, column < row[n] if descending else column > row[n]))
    return sa.or_(*steps)


# -- bodies


_known_keys: dict[type, tuple[tuple[str, str], ...]] = {}


def _keys(cls: type) -> tuple[tuple[str, str], ...]:
    """(attribute, JSON name) of a body class."""
    known = _known_keys.get(cls)
    if known is None:
        known = _known_keys[cls] = _read_keys(cls)
    return known


def _read_keys(cls: Any) -> tuple[tuple[str, str], ...]:
    found = []
    for field in declared(cls):
        metadata = getattr(field.type, "__metadata__", ())
        found.append((field.name, next((item.name for item in metadata if isinstance(item, Key)), field.name)))
    return tuple(found)


def given(body: Body, *, but_defaults: bool = False) -> dict[str, object]:
    """What the caller set, by JSON name. A description of null is the empty one.

    `but_defaults`: leave out values that equal upstream's default. They need no permission when creating.
    """
    found = {key: getattr(body, name) for name, key in _keys(type(body)) if getattr(body, name) is not UNSET}
    if found.get("description", "") is None:
        found["description"] = ""
    if but_defaults:
        return {key: value for key, value in found.items() if not _is_default(key, value)}
    return found


_DEFAULTS: Mapping[str, tuple[object, ...]] = {
    "shared": (False,),
    "router:external": (False,),
    "is_default": (False,),
    "device_id": ("",),
    "device_owner": ("",),
    "external_gateway_info": (None,),
    "floating_ip_address": (None,),
    "binding:vnic_type": ("normal",),
    "tags": ([], ()),
}


def _is_default(key: str, value: object) -> bool:
    return any(value == default for default in _DEFAULTS.get(key, ()))


def project_in_path(call: Call[object, object]) -> str:
    """The project that the path names: any text that could be the id of one. BadRequest for another."""
    named = call.path["project_id"]
    if len(named) > LONGEST_PROJECT_ID:
        raise BadRequest(f"Invalid input for project_id. Reason: it has more than {LONGEST_PROJECT_ID} characters.")
    if not is_one_line(named):
        raise BadRequest("Invalid input for project_id. Reason: it has control characters.")
    return named


def owner(call: Call[object, object], body: Any) -> str:
    """The project a new resource will belong to: the caller's, or for administrators the one named."""
    named = {value for value in (body.project_id, body.tenant_id) if value is not UNSET}
    if len(named) > 1:
        raise BadRequest("'project_id' and 'tenant_id' do not match")
    project: str | None = named.pop() if named else call.caller.project_id
    if project is None:
        # A token without a project: every rule refuses it.
        return ""
    if project != call.caller.project_id and SEES_ALL_ROLES.isdisjoint(call.caller.roles):
        raise BadRequest(
            "Specifying 'project_id' or 'tenant_id' other than the authenticated project in request "
            "requires admin privileges"
        )
    return project


def may_create(call: Call[object, object], new: Body, rule: str, attributes: Mapping[str, str] | None = None) -> str:
    """The project that a new resource will belong to.

    403 unless the caller passes `rule` there, and the rules of the attributes given ({attribute: rule}).
    """
    project_id = owner(call, new)
    facts = {"project_id": project_id}
    call.require(rule, facts)
    policy.require_attributes(call, attributes or {}, given(new, but_defaults=True), facts)
    return project_id


def items_of(body: Any, singular: str, plural: str) -> tuple[list[Any], bool]:
    """The new resources of a body with one or with several, and whether it has several."""
    one, many = getattr(body, singular), getattr(body, plural)
    if (one is UNSET) == (many is UNSET):
        raise BadRequest(f"Unable to find '{singular}' in request body")
    if one is not UNSET:
        return [one], False
    if not many:
        raise BadRequest("Resources required")
    if len(many) > MOST_AT_ONCE:
        raise BadRequest(f"Invalid input for {plural}: one request makes {MOST_AT_ONCE} at most.")
    return list(many), True


def created(call: Call[object, object], kind: Kind[RecordT], make: Callable[[Any], RecordT]) -> View:
    """Make the resources of a body, one or several: all of them or none."""
    items, several = items_of(call.body, kind.singular, kind.plural)
    records = [make(item) for item in items]
    return shown_many(call, kind, records) if several else shown(call, kind, records[0])


def first_owner(kind: Kind[Resource]) -> Callable[[Call[object, object]], View]:
    """Policy facts of a creation, for `@operation(facts=...)`. Of several, those of the first."""

    def facts(call: Call[object, object]) -> View:
        items, _ = items_of(call.body, kind.singular, kind.plural)
        return {"project_id": owner(call, items[0])}

    return facts
