"""Which statements read whole tables: SQLite is asked how it would run them (EXPLAIN QUERY PLAN).

Its plans follow from the schema alone, because it is never told how many rows there are.
"""

from __future__ import annotations

import contextlib
import re
import sqlite3
import threading
from collections.abc import Iterator, Mapping

import pytest
import sqlalchemy as sa

from cumulet.db import schema
from cumulet.db.prepared import Prepared

ALL_ROWS = re.compile(r"SCAN (?P<table>\w+)")

MADE_BY_OPERATORS = """
    aggregates default_security_group_rules flavor_access identity_endpoints identity_implied_roles identity_services
    metadef_resource_types network_flavors network_segment_ranges network_service_profiles resource_classes
"""
ONE_ROW_A_HOST = "hosts inventories joined_hosts network_agent_descriptions resource_providers"
SMALL = {
    **dict.fromkeys(MADE_BY_OPERATORS.split(), "some tens"),
    **dict.fromkeys(ONE_ROW_A_HOST.split(), "hosts are 10,000 at most"),
    "findings": "the newest are kept, `findings.KEPT`",
    "identity_generation": "one row",
    "identity_oauth1_consumers": "their number has a limit",
    "resized_servers": "one row for each resize that nobody has confirmed yet",
}
"""Tables that a change may read as a whole, and why they stay small."""


@contextlib.contextmanager
def changes(patch: pytest.MonkeyPatch) -> Iterator[set[str]]:
    """The SQL of all statements in transactions that write, while it is entered."""
    with statements(patch, "db-write") as seen:
        yield seen


@contextlib.contextmanager
def statements(patch: pytest.MonkeyPatch, thread: str = "") -> Iterator[set[str]]:
    """The SQL of all statements on threads whose names begin so, while it is entered."""
    seen: set[str] = set()
    run = Prepared._run

    def note(sql: str) -> None:
        if threading.current_thread().name.startswith(thread):
            seen.add(sql)

    def run_prepared(prepared: Prepared, driver: object, values: Mapping[str, object]) -> object:
        note(prepared._sql)
        return run(prepared, driver, values)

    def executed(_connection: object, _cursor: object, statement: str, *_others: object) -> None:
        note(statement)

    with patch.context() as patched:
        patched.setattr(Prepared, "_run", run_prepared)
        sa.event.listen(sa.Engine, "before_cursor_execute", executed)
        try:
            yield seen
        finally:
            sa.event.remove(sa.Engine, "before_cursor_execute", executed)


def read_whole(statements: set[str]) -> dict[str, set[str]]:
    """By statement: the tables of which it reads all rows, other than `SMALL` ones."""
    with contextlib.closing(sqlite3.connect(":memory:")) as database:
        database.executescript(schema.RECORDED.read_text(encoding="utf-8"))
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        found: dict[str, set[str]] = {}
        for sql in sorted(statements):
            plan = database.execute(f"EXPLAIN QUERY PLAN {sql}", [1] * sql.count("?"))
            scanned = {match["table"] for *_, line in plan if (match := ALL_ROWS.match(line))}
            if large := (scanned & tables) - SMALL.keys():
                found[sql] = large
    return found
