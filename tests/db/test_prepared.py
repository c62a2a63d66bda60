"""Prepared statements give the same values, rows and errors as SQLAlchemy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError, OperationalError

from cumulet.db import prepared as prepared_module
from cumulet.db.compiled import CompiledStatements
from cumulet.db.engine import Database, Tx, opened

things = sa.Table(
    "things",
    sa.MetaData(),
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("kind", sa.String(16), nullable=False, default="plain"),
    sa.Column("big", sa.Boolean),
    sa.Column("parts", sa.JSON, nullable=False),
    sa.Column("error", sa.JSON(none_as_null=True)),
    sa.Column("weight", sa.Float),
)
FULL = {"id": "a", "kind": "red", "big": True, "parts": {"b": [1, None]}, "error": None, "weight": 1.5}
OTHER = {"id": "b", "kind": "blue", "big": False, "parts": [], "error": {"code": 5}, "weight": None}
INSERT = sa.insert(things)
BY_ID = sa.select(things).where(things.c.id == sa.bindparam("of_id"))
OF_TWO_KINDS = sa.select(things.c.id, things.c.big).where(
    things.c.kind.in_(("red", "blue")), things.c.weight != sa.bindparam("not_weight")
)
IN_GIVEN = sa.select(things.c.id).where(things.c.id.in_(sa.bindparam("of_ids", expanding=True))).order_by(things.c.id)
IN_TWO = sa.select(things.c.id).where(
    things.c.id.in_(sa.bindparam("of_ids", expanding=True)), things.c.kind.in_(sa.bindparam("of_kinds", expanding=True))
)
CHANGE_ALL = sa.update(things).where(things.c.id.in_(sa.bindparam("of_ids", expanding=True)))
CHANGE = sa.update(things).where(things.c.id == sa.bindparam("of_id"))
COUNT = sa.select(sa.func.count()).select_from(things).where(things.c.big == sa.bindparam("of_size"))
twin = things.alias("twin")
TWINS = sa.select(things.c.id, twin.c.id).where(things.c.id == sa.bindparam("of_id"), twin.c.id == things.c.id)


@pytest.fixture(params=[False, True], ids=["by SQLAlchemy", "prepared"])
def database(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Database]:
    """Each test runs both ways, so what it says of the one holds of the other."""
    if not request.param:
        monkeypatch.setattr(Tx, "_prepared", lambda *_: None)
    with opened("sqlite://", inline=True) as database:
        things.metadata.create_all(database.engine)
        for row in (FULL, OTHER):
            database.write(lambda tx, row=row: tx.run(INSERT, row))  # type: ignore[misc]
        yield database


def first(database: Database, statement: sa.Executable, **values: object) -> Any:
    return database.read(lambda tx: tx.first(statement, values))


@pytest.mark.parametrize("row", [FULL, OTHER], ids=["full", "other"])
def test_values_come_out_as_they_went_in(database: Database, row: Mapping[str, object]) -> None:
    found = first(database, BY_ID, of_id=row["id"])
    assert dict(found._mapping) == row
    assert tuple(found) == tuple(row.values())
    assert (found.kind, found.big, found[3]) == (row["kind"], row["big"], row["parts"])
    assert type(found.big) is bool
    assert first(database, BY_ID, of_id="nobody") is None


def test_constants_of_the_statement_stand_beside_the_values(database: Database) -> None:
    assert tuple(first(database, OF_TWO_KINDS, not_weight=9.0)) == ("a", True)
    assert first(database, OF_TWO_KINDS, not_weight=1.5) is None
    assert database.read(lambda tx: tx.scalar(COUNT, {"of_size": True})) == 1


@pytest.mark.parametrize("ids", [["a"], ["a", "b"], [], ["a", "b", "c"]])
def test_lists_of_any_length(database: Database, ids: list[str]) -> None:
    rows = database.read(lambda tx: tx.all(IN_GIVEN, {"of_ids": ids}))
    assert [row.id for row in rows] == [name for name in ids if name != "c"]


@pytest.mark.parametrize("number", [3, 5, 1000, 1024, 1025, 3000])
def test_long_lists(database: Database, number: int) -> None:
    """Lists near and above the compiled length: the values that fill a list up find no further rows."""
    ids = [*(f"none {n}" for n in range(number - 2)), "b", "a"]
    for _ in range(2):
        rows = database.read(lambda tx: tx.all(IN_GIVEN, {"of_ids": ids}))
        assert [row.id for row in rows] == ["a", "b"]


def test_values_that_have_no_order(database: Database) -> None:
    for kind in (set, dict.fromkeys, frozenset):
        rows = database.read(lambda tx, kind=kind: tx.all(IN_GIVEN, {"of_ids": kind(("a", "b", "c"))}))  # type: ignore[misc]
        assert [row.id for row in rows] == ["a", "b"]


def test_two_lists_of_different_lengths(database: Database) -> None:
    for ids, kinds, found in (
        (["a", "b", "c"], ["red"], ["a"]),
        (["a"], ["blue", "red", "green"], ["a"]),
        (["a"], [], []),
        (["a", "b", "c"], ["blue"], ["b"]),
    ):
        rows = database.read(lambda tx, of=(ids, kinds): tx.all(IN_TWO, {"of_ids": of[0], "of_kinds": of[1]}))  # type: ignore[misc]
        assert [row.id for row in rows] == found


def test_a_change_of_what_a_list_names(database: Database) -> None:
    assert database.write(lambda tx: tx.changed(CHANGE_ALL, {"of_ids": ["a", "b", "c"], "kind": "green"})) == 2
    assert database.write(lambda tx: tx.changed(CHANGE_ALL, {"of_ids": [], "kind": "none"})) == 0
    assert first(database, COUNT, of_size=True)[0] == 1
    assert first(database, BY_ID, of_id="b").kind == "green"


def test_a_change_returns_what_it_has_changed(database: Database) -> None:
    changed = CHANGE_ALL.returning(things.c.id, things.c.parts)
    found = database.write(lambda tx: tx.all(changed, {"of_ids": ["a", "b", "c"], "kind": "green"}))
    assert sorted(map(tuple, found)) == [("a", FULL["parts"]), ("b", OTHER["parts"])]
    one = database.write(lambda tx: tx.first(changed, {"of_ids": ["a", "b"], "kind": "grey"}))
    assert one is not None
    assert [first(database, BY_ID, of_id=name).kind for name in ("a", "b")] == ["grey"] * 2, "both, whatever was read"


def test_a_change_says_how_many_it_matched_and_sets_what_it_is_given(database: Database) -> None:
    def change(tx: Tx) -> tuple[int, int]:
        missed = tx.changed(CHANGE, {"of_id": "nobody", "kind": "green"})
        return missed, tx.changed(CHANGE, {"of_id": "a", "kind": "green", "error": None, "parts": None})

    assert database.write(change) == (0, 1)
    database.write(lambda tx: tx.run(CHANGE, {"of_id": "a", "big": None}))
    found = first(database, BY_ID, of_id="a")
    assert (found.kind, found.error, found.parts, found.big) == ("green", None, None, None)
    absent = sa.select(things.c.error.is_(None), sa.cast(things.c.parts, sa.Text)).where(things.c.id == "a")
    assert tuple(database.read(lambda tx: tx.all(absent))[0]) == (True, "null")


def test_a_default_made_by_python_is_made(database: Database) -> None:
    database.write(lambda tx: tx.run(INSERT, {"id": "c", "parts": {}}))
    assert first(database, BY_ID, of_id="c").kind == "plain"


def test_errors_are_sqlalchemys_and_show_no_values(database: Database) -> None:
    """Errors are logged, and a row's values may be secrets."""
    with pytest.raises(IntegrityError, match=r"UNIQUE constraint failed: things\.id") as problem:
        database.write(lambda tx: tx.run(INSERT, OTHER))
    assert "blue" not in str(problem.value)


def test_two_columns_of_one_name_are_no_ones(database: Database) -> None:
    row = first(database, TWINS, of_id="a")
    assert row[0] == "a"
    assert [key for key in row._mapping if key == "id"] == ["id"]


@pytest.mark.parametrize("with_values", [True, False])
def test_what_is_kept_of_statements_is_bounded_by_their_length(database: Database, with_values: bool) -> None:
    """A statement that is built as the program runs may be long, and each may be another one."""

    def run(tx: Tx) -> None:
        for n in range(60):
            long = things.c.kind != sa.literal_column(f"'{'x' * 50_000}{n}'")
            statement = sa.select(things.c.id).where(
                long, things.c.id == (sa.bindparam("of_id") if with_values else "a")
            )
            assert tx.all(statement, {"of_id": "a"} if with_values else None)

    database.read(run)
    assert database._statements is not None
    compiled = database.engine.get_execution_options()["compiled_cache"]
    assert isinstance(compiled, CompiledStatements)
    lengths = [len(one.string) for one in compiled.values()]
    prepared = [one.length for one in database._statements._known.values() if one is not None]
    for kept in (lengths, prepared):
        assert sum(kept) <= prepared_module.MOST_CHARACTERS
    assert sum(lengths) + sum(prepared) > prepared_module.MOST_CHARACTERS // 3, "the last ones are kept"
    assert compiled._characters == sum(lengths)


def test_a_failed_statement_is_told_at_a_bounded_length(database: Database) -> None:
    """Its error is logged, on the event loop, and has the statement."""
    values = {f"v{n}": n for n in range(5000)}
    long = sa.select(things.c.id).where(*(things.c.weight != sa.bindparam(name) for name in values))
    with pytest.raises(OperationalError, match="Expression tree is too large") as problem:
        database.read(lambda tx: tx.all(long, values))
    assert "more characters)" in str(problem.value)
    assert len(str(problem.value)) < prepared_module.LONGEST_TOLD + 500
