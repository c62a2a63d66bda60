"""Metadata definitions: their tables, their records, and who may know of a namespace.

A namespace holds objects, properties, tags and associations with types of resources. All four are named things with a
value, so they share one table. The module of each kind knows what its value holds.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import msgspec
import sqlalchemy as sa

from cumulet.clock import iso_z
from cumulet.db.engine import Tx, metadata
from cumulet.errors import Conflict, NotFound, OverQuota, TooLarge
from cumulet.web.operation import Caller

MOST_NAMESPACES = 128
"""Of one owner."""
MOST_OF_A_KIND = 512
"""Objects, properties, tags or associations of one namespace."""
MOST_TYPES = 4096
"""Types of resources in a cloud. None is ever removed: the API has no operation for it."""
LONGEST_NAME = 80

Kind = Literal["object", "property", "tag", "resource_type"]

namespaces = sa.Table(
    "metadef_namespaces",
    metadata,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("namespace", sa.String(LONGEST_NAME), nullable=False, unique=True),
    sa.Column("display_name", sa.String(80)),
    sa.Column("description", sa.String(500)),
    sa.Column("visibility", sa.String(16), nullable=False),
    sa.Column("protected", sa.Boolean, nullable=False),
    sa.Column("owner", sa.String(255), index=True),
    sa.Column("created_at_us", sa.BigInteger, nullable=False),
    sa.Column("updated_at_us", sa.BigInteger, nullable=False),
)

contents = sa.Table(
    "metadef_contents",
    metadata,
    sa.Column("namespace_id", sa.ForeignKey("metadef_namespaces.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("kind", sa.String(16), primary_key=True),
    sa.Column("name", sa.String(LONGEST_NAME), primary_key=True),
    # Lists are in the order in which things came.
    sa.Column("position", sa.BigInteger, nullable=False),
    sa.Column("value", sa.Text, nullable=False),
    sa.Column("created_at_us", sa.BigInteger, nullable=False),
    sa.Column("updated_at_us", sa.BigInteger, nullable=False),
    sa.Index("ix_metadef_contents_kind", "kind", "name"),
)

types = sa.Table(
    "metadef_resource_types",
    metadata,
    sa.Column("name", sa.String(LONGEST_NAME), primary_key=True),
    sa.Column("created_at_us", sa.BigInteger, nullable=False),
    sa.Column("updated_at_us", sa.BigInteger, nullable=False),
)
"""Every type of resource that a namespace was ever associated with: it stays when the last association goes."""

WORDS: Mapping[Kind, str] = {
    "object": "metadata definition object",
    "property": "metadata definition property",
    "tag": "metadata tag",
    "resource_type": "metadata definition resource-type association",
}


class Namespace(msgspec.Struct, frozen=True, kw_only=True):
    """A namespace without what it holds."""

    id: str
    namespace: str
    display_name: str | None
    description: str | None
    visibility: str
    protected: bool
    owner: str | None
    created_at_us: int
    updated_at_us: int


class Content(msgspec.Struct, frozen=True, kw_only=True):
    """An object, a property, a tag or an association: its name and its value."""

    name: str
    value: Mapping[str, object]
    created_at_us: int = 0
    updated_at_us: int = 0

    def times(self) -> dict[str, object]:
        return {"created_at": iso_z(self.created_at_us), "updated_at": iso_z(self.updated_at_us)}


# -- namespaces


def visible_to(caller: Caller) -> sa.ColumnElement[bool]:
    """The condition for namespaces the caller may know of."""
    if caller.is_admin:
        return sa.true()
    public = namespaces.c.visibility == "public"
    return public if caller.project_id is None else sa.or_(public, namespaces.c.owner == caller.project_id)


def find_visible(tx: Tx, caller: Caller, name: str) -> Namespace | None:
    row = tx.first(sa.select(namespaces).where(namespaces.c.namespace == name, visible_to(caller)))
    return None if row is None else Namespace(**row._mapping)


def add(tx: Tx, namespace: Namespace) -> None:
    """OverQuota: its owner has as many as it may. Conflict: there is one of this name, whosever it is."""
    number = sa.select(sa.func.count()).select_from(namespaces).where(namespaces.c.owner == namespace.owner)
    if tx.scalar(number) >= MOST_NAMESPACES:
        raise OverQuota(f"The limit of {MOST_NAMESPACES} metadata definition namespaces of one owner is reached.")
    _require_free(tx, namespace.namespace)
    tx.execute(sa.insert(namespaces).values(msgspec.structs.asdict(namespace)))


def save(tx: Tx, before: Namespace, after: Namespace) -> None:
    if after.namespace != before.namespace:
        _require_free(tx, after.namespace)
    values = msgspec.structs.asdict(after)
    tx.execute(sa.update(namespaces).where(namespaces.c.id == before.id).values(values))


def _require_free(tx: Tx, name: str) -> None:
    if tx.first(sa.select(namespaces.c.id).where(namespaces.c.namespace == name)) is not None:
        raise Conflict(f"The metadata definition namespace={name} already exists.")


def remove(tx: Tx, namespace: Namespace) -> None:
    tx.execute(sa.delete(contents).where(contents.c.namespace_id == namespace.id))
    tx.execute(sa.delete(namespaces).where(namespaces.c.id == namespace.id))


# -- what they hold


def _of(namespace: Namespace, kind: Kind) -> tuple[sa.ColumnElement[bool], ...]:
    return contents.c.namespace_id == namespace.id, contents.c.kind == kind


def _content(row: sa.RowMapping) -> Content:
    return Content(
        name=row["name"],
        value=json.loads(row["value"]),
        created_at_us=row["created_at_us"],
        updated_at_us=row["updated_at_us"],
    )


def all_of(tx: Tx, namespace: Namespace, kind: Kind) -> list[Content]:
    """In the order in which they came."""
    found = sa.select(contents).where(*_of(namespace, kind)).order_by(contents.c.position)
    return [_content(row._mapping) for row in tx.all(found)]


def associations_of(tx: Tx, found: Iterable[Namespace]) -> Mapping[str, list[Content]]:
    """The associations of several namespaces, by the id of each."""
    wanted = [namespace.id for namespace in found]
    many: dict[str, list[Content]] = {namespace_id: [] for namespace_id in wanted}
    rows = sa.select(contents).where(contents.c.namespace_id.in_(wanted), contents.c.kind == "resource_type")
    for row in tx.all(rows.order_by(contents.c.position)):
        many[row.namespace_id].append(_content(row._mapping))
    return many


def get(tx: Tx, namespace: Namespace, kind: Kind, name: str) -> Content:
    row = tx.first(sa.select(contents).where(*_of(namespace, kind), contents.c.name == name))
    if row is None:
        raise NotFound(f"The {WORDS[kind]} with name={name} was not found in namespace={namespace.namespace}.")
    return _content(row._mapping)


def put(tx: Tx, namespace: Namespace, kind: Kind, new: Sequence[Content], now_us: int) -> list[Content]:
    """Add all of `new` to what the namespace holds, or nothing. Returns it as it is kept. Conflict: a name is taken."""
    held = {row.name: row.position for row in tx.all(sa.select(contents).where(*_of(namespace, kind)))}
    if len(held) + len(new) > MOST_OF_A_KIND:
        raise TooLarge(f"The limit of {MOST_OF_A_KIND} of a {WORDS[kind]} for a namespace is exceeded.")
    position = max(held.values(), default=0)
    rows: list[dict[str, object]] = []
    for number, content in enumerate(new, start=position + 1):
        if content.name in held:
            raise duplicate(namespace, kind, content.name)
        held[content.name] = number
        row: dict[str, object] = {"namespace_id": namespace.id, "kind": kind, "name": content.name, "position": number}
        rows.append(row | {"value": json.dumps(content.value), "created_at_us": now_us, "updated_at_us": now_us})
    if rows:
        tx.execute(sa.insert(contents), rows)
    if rows and kind == "resource_type":
        know_types(tx, (content.name for content in new), now_us)
    return [msgspec.structs.replace(content, created_at_us=now_us, updated_at_us=now_us) for content in new]


def duplicate(namespace: Namespace, kind: Kind, name: str) -> Conflict:
    return Conflict(f"A {WORDS[kind]} with name={name} already exists in namespace={namespace.namespace}.")


def replace(tx: Tx, namespace: Namespace, kind: Kind, name: str, new: Content, now_us: int) -> Content:
    """Replace the value, and perhaps the name, of what has `name`."""
    before = get(tx, namespace, kind, name)
    where = (*_of(namespace, kind), contents.c.name == name)
    taken = sa.select(contents.c.name).where(*_of(namespace, kind), contents.c.name == new.name)
    if new.name != name and tx.first(taken) is not None:
        raise duplicate(namespace, kind, new.name)
    values = {"name": new.name, "value": json.dumps(new.value), "updated_at_us": now_us}
    tx.execute(sa.update(contents).where(*where).values(values))
    return msgspec.structs.replace(new, created_at_us=before.created_at_us, updated_at_us=now_us)


def drop(tx: Tx, namespace: Namespace, kind: Kind, name: str | None = None) -> None:
    """Remove one of a kind, or all."""
    where = _of(namespace, kind) if name is None else (*_of(namespace, kind), contents.c.name == name)
    tx.execute(sa.delete(contents).where(*where))


def know_types(tx: Tx, names: Iterable[str], now_us: int) -> None:
    """Record those of these types of resources that are new."""
    known = {row.name for row in tx.all(sa.select(types.c.name))}
    new = sorted(set(names) - known)
    if len(known) + len(new) > MOST_TYPES:
        raise TooLarge(f"The limit of {MOST_TYPES} types of resources is exceeded.")
    if new:
        tx.execute(sa.insert(types), [{"name": name, "created_at_us": now_us, "updated_at_us": now_us} for name in new])


def resource_types(tx: Tx) -> list[Content]:
    """The types that namespaces are or were associated with, without a value."""
    return [Content(**row._mapping, value={}) for row in tx.all(sa.select(types).order_by(types.c.name))]
