"""The standard catalog of metadata definitions, which a first start loads from `metadef_catalog.jsonl`.

It has the names, titles, types, values and associations of Glance's catalog (etc/metadefs of Glance 33, Apache-2.0,
by the OpenStack Foundation's contributors), a namespace a line; not its descriptions.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import msgspec
import sqlalchemy as sa

from cumulet.clock import Clock
from cumulet.db.engine import Database, Tx
from cumulet.image.metadef_store import Namespace, contents, know_types, namespaces

CATALOG = Path(__file__).with_name("metadef_catalog.jsonl")
OWNER = "admin"
"""As Glance has it: no project's id."""


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """A namespace of the catalog."""

    namespace: str
    display_name: str
    protected: bool
    resource_type_associations: list[dict[str, object]] = []
    objects: list[dict[str, object]] = []
    properties: dict[str, dict[str, object]] = {}


def load(database: Database, clock: Clock) -> None:
    """Add the namespaces of the catalog that are missing. Namespaces with the same names stay as they are."""
    decode = msgspec.json.Decoder(Line).decode
    lines = [(clock.uuid(), decode(line)) for line in CATALOG.read_bytes().splitlines()]
    now_us = clock.now_us()

    def add(tx: Tx) -> None:
        known = {row.namespace for row in tx.all(sa.select(namespaces.c.namespace))}
        new = [(namespace_id, line) for namespace_id, line in lines if line.namespace not in known]
        if new:
            tx.execute(sa.insert(namespaces), [_namespace(*each, now_us + n) for n, each in enumerate(new)])
            tx.execute(sa.insert(contents), [row for each in new for row in _contents(*each, now_us)])
            know_types(tx, (str(kind["name"]) for _, line in new for kind in line.resource_type_associations), now_us)

    database.write(add)


def _namespace(namespace_id: str, line: Line, at_us: int) -> dict[str, object]:
    namespace = Namespace(
        id=namespace_id,
        namespace=line.namespace,
        display_name=line.display_name,
        description=None,
        visibility="public",
        protected=line.protected,
        owner=OWNER,
        created_at_us=at_us,
        updated_at_us=at_us,
    )
    return msgspec.structs.asdict(namespace)


def _contents(namespace_id: str, line: Line, now_us: int) -> Iterator[dict[str, object]]:
    named = {
        "resource_type": line.resource_type_associations,
        "object": line.objects,
        "property": [{"name": name, **value} for name, value in line.properties.items()],
    }
    for kind, things in named.items():
        for position, thing in enumerate(things, start=1):
            yield {
                "namespace_id": namespace_id,
                "kind": kind,
                "name": thing["name"],
                "position": position,
                "value": json.dumps({key: value for key, value in thing.items() if key != "name"}),
                "created_at_us": now_us,
                "updated_at_us": now_us,
            }
