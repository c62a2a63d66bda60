"""A condition that takes any number of values and is always the same SQL: statements are kept by their SQL, and what a
caller sends must not make new ones. The values are one parameter: JSON for SQLite, an array for PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.engine import Dialect
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import operators
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator, TypeEngine

Column = sa.ColumnElement[str] | sa.ColumnElement[str | None] | sa.ColumnElement[int] | sa.ColumnElement[int | None]
"""Of texts, or of whole numbers."""


class _Many(TypeDecorator[Sequence[object]]):
    """All values as one."""

    impl = sa.Text
    cache_ok = True

    def __init__(self, numbers: bool) -> None:
        super().__init__()
        self.numbers = numbers

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[object]:
        if dialect.name == "postgresql":
            return ARRAY(sa.BigInteger() if self.numbers else sa.String())  # type: ignore[return-value]
        return sa.Text()  # type: ignore[return-value]

    def process_bind_param(self, value: Sequence[object] | None, dialect: Dialect) -> object:
        return list(value or ()) if dialect.name == "postgresql" else msgspec.json.encode(value).decode()


class _OneOf(FunctionElement[bool]):
    """Its clauses: the column, and all values as one."""

    inherit_cache = True
    type = sa.Boolean()

    def self_group(self, against: object = None) -> _OneOf:
        """It is a condition as it is: compared with 1, as SQLAlchemy would for SQLite, it would use no index."""
        return self

    def _negate(self) -> sa.ColumnElement[bool]:
        return sa.UnaryExpression(self, operator=operators.inv)


@compiles(_OneOf, "sqlite")
def _on_sqlite(element: _OneOf, compiler: SQLCompiler, **options: object) -> str:
    column, values = (compiler.process(clause, **options) for clause in element.clauses)
    return f"({column} IN (SELECT value FROM json_each({values})))"  # noqa: S608 - both are SQLAlchemy's SQL, with a place for the values


@compiles(_OneOf, "postgresql")
def _on_postgresql(element: _OneOf, compiler: SQLCompiler, **options: object) -> str:
    column, values = (compiler.process(clause, **options) for clause in element.clauses)
    return f"({column} = ANY ({values}))"


def one_of(column: Column, values: Iterable[object]) -> sa.ColumnElement[bool]:
    """Whether the column has one of the values. For a single one it is plain equality."""
    wanted = list(values)
    if len(wanted) == 1:
        return column == wanted[0]
    many = sa.bindparam(None, wanted, type_=_Many(isinstance(column.type, sa.Integer)), unique=True)
    return _OneOf(column, many)


def how_many(column: Column, values: Iterable[object], *where: sa.ColumnElement[bool]) -> sa.ColumnElement[int]:
    """How many rows that fit `where` have one of the values in their column: in a condition on another table."""
    return sa.select(sa.func.count()).where(*where, one_of(column, values)).scalar_subquery()
