"""The product's database in memory, whose commits may fail, or succeed without saying so; and quick, for many runs.

It runs the same statements. Those that are built once, and asked often, are compiled once too, and then handed to the
driver as they are: SQLAlchemy's own way to it costs several times what SQLite takes.
"""

from __future__ import annotations

import asyncio
import sqlite3
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine.result import SimpleResultMetaData
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.sql.compiler import SQLCompiler

from cumulet.db.engine import Database, Tx
from cumulet.testing.simulation.faults import Weather

T = TypeVar("T")

FOR_THE_API: ContextVar[bool] = ContextVar("FOR_THE_API", default=False)
"""Whether what is running is a request's."""
_NO_VALUES: Mapping[str, Any] = {}


@dataclass(frozen=True, slots=True)
class Plan:
    """A statement as the driver takes it. `binds`: name, constant (where no value is given), processor.

    `numbers`: it inserts into a table that numbers its rows.
    """

    sql: str
    binds: tuple[tuple[str, Any, Callable[[Any], Any] | None], ...]
    row: Callable[[Any], Any]
    numbers: bool


class _Known:
    """What is known of a statement, kept on it. A statement made from it copies this, and is told apart by `of`."""

    __slots__ = ("of", "plans")

    def __init__(self, statement: Any) -> None:
        self.of = weakref.ref(statement)
        self.plans: dict[tuple[str, ...], Plan | None] = {}


@dataclass(frozen=True, slots=True)
class Written:
    """Of the result of an INSERT, UPDATE or DELETE, what the product asks."""

    rowcount: int
    inserted_primary_key: tuple[int] | None


class SimulatedTx(Tx):
    """`db.engine.Tx` with plans; what has none goes SQLAlchemy's way."""

    __slots__ = ("_driver",)

    def __init__(self, connection: sa.Connection, driver: Any, *, writable: bool) -> None:
        super().__init__(connection, writable=writable)
        self._driver = driver

    def execute(self, statement: Any, rows: Any = None) -> Any:
        if isinstance(rows, list):
            alike = isinstance(statement, sa.Insert) and all(row.keys() == rows[0].keys() for row in rows)
            plan = self._plan(statement, rows[0]) if alike else None
            if plan is None:
                return super().execute(statement, rows)
            for row in rows:
                self._run(plan, row)
            return None
        plan = self._plan(statement, rows) if isinstance(statement, sa.Insert | sa.Update | sa.Delete) else None
        if plan is None:
            return super().execute(statement, rows)
        cursor = self._run(plan, rows)
        return Written(cursor.rowcount, (cursor.lastrowid,) if plan.numbers else None)

    def all(self, statement: Any, values: Mapping[str, Any] | None = None) -> list[Any]:
        plan = self._plan(statement, values)
        if plan is None:
            return super().all(statement, values)
        return [plan.row(found) for found in self._run(plan, values).fetchall()]

    def first(self, statement: Any, values: Mapping[str, Any] | None = None) -> Any:
        plan = self._plan(statement, values)
        if plan is None:
            return super().first(statement, values)
        cursor = self._run(plan, values)
        found = cursor.fetchone()
        cursor.close()
        return None if found is None else plan.row(found)

    def scalar(self, statement: Any, values: Mapping[str, Any] | None = None) -> Any:
        found = self.first(statement, values)
        return None if found is None else found[0]

    def changed(self, statement: Any, values: Mapping[str, Any] | None = None) -> int:
        count: int = self.execute(statement, values).rowcount
        return count

    def _plan(self, statement: Any, values: Mapping[str, Any] | None) -> Plan | None:
        known: _Known | None = statement.__dict__.get("_cumulet_known")
        if known is None or known.of() is not statement:
            # The first time; most statements that are built each time are never seen again.
            statement.__dict__["_cumulet_known"] = _Known(statement)
            return None
        names = tuple(values) if values is not None else ()
        if names not in known.plans:
            known.plans[names] = _plan(self.connection.dialect, statement, names)
        return known.plans[names]

    def _run(self, plan: Plan, values: Mapping[str, Any] | None) -> Any:
        """The driver's cursor."""
        given = values if values is not None else _NO_VALUES
        parameters = [_bound(given.get(name, constant), processor) for name, constant, processor in plan.binds]
        try:
            return self._driver.execute(plan.sql, parameters)
        except sqlite3.IntegrityError as error:
            raise IntegrityError(plan.sql, parameters, error) from error


def _bound(value: Any, processor: Callable[[Any], Any] | None) -> Any:
    return value if processor is None else processor(value)


def _plan(dialect: Any, statement: Any, names: tuple[str, ...]) -> Plan | None:
    """None for what this does not cover: lists that are given with the values, columns that make their own values."""
    changes = isinstance(statement, sa.Insert | sa.Update | sa.Delete)
    if not changes and not isinstance(statement, sa.Select):
        return None
    if any(bind.expanding and bind.required for bind in _binds(statement)):
        return None
    compiled: SQLCompiler = statement.compile(dialect=dialect, column_keys=sorted(names) if changes else None)
    if compiled.prefetch or compiled.effective_returning:
        return None
    constants = compiled.construct_params(_check=False)
    expanded = compiled._process_parameters_for_postcompile(constants)
    constants = {**constants, **expanded.additional_parameters}
    processors: dict[str, Any] = {**compiled._bind_processors, **expanded.processors}
    binds = tuple((name, constants.get(name), processors.get(name)) for name in expanded.positiontup or ())
    missing = set(names) - {name for name, _, _ in binds}
    assert not missing, f"{missing} are not in {compiled}"
    columns = compiled._result_columns
    made = [column.type._cached_result_processor(dialect, None) for column in columns]
    effective = made if any(made) else None
    meta = SimpleResultMetaData([column.keyname for column in columns], _processors=effective)
    row: Callable[[Any], Any] = partial(sa.Row, meta, meta._effective_processors, meta._key_to_index)
    table = statement.table if isinstance(statement, sa.Insert) else None
    numbers = isinstance(table, sa.Table) and table.autoincrement_column is not None
    return Plan(expanded.statement, binds, row, numbers)


def _binds(statement: Any) -> Iterator[Any]:
    for element in sa.sql.visitors.iterate(statement):
        if isinstance(element, sa.BindParameter):
            yield element


class SimulatedDatabase(Database):
    """One connection, no threads. `written` is called after each commit. Until a run says otherwise, nothing fails."""

    def __init__(self) -> None:
        super().__init__("sqlite://", inline=True)
        self.weather = Weather()
        self.random = Random(0)  # noqa: S311 - a seed that decides everything is the point
        self.written: Callable[[], None] = lambda: None
        self.capacity_touched = False
        self.faults = 0
        """How many commits have gone wrong."""
        self._connection = self._inline_connection()
        self.driver: Any = self._connection.connection.dbapi_connection

    def read(self, fn: Callable[[Tx], T]) -> T:
        return fn(SimulatedTx(self._connection, self.driver, writable=False))

    def _write_inline(self, fn: Callable[[Tx], T]) -> T:
        if self.random.random() < self.weather.commit_fails:
            self.faults += 1
            raise OperationalError("COMMIT", {}, Exception("the database is away"))
        tx = SimulatedTx(self._connection, self.driver, writable=True)
        self.driver.execute("BEGIN")
        try:
            result = fn(tx)
        except BaseException:
            self.driver.execute("ROLLBACK")
            raise
        self.driver.execute("COMMIT")
        self.written()
        if FOR_THE_API.get() and self.random.random() < self.weather.dies_at_commit:
            raise asyncio.CancelledError("the API was killed before it could tell anybody")
        tx.committed()
        if self.random.random() < self.weather.commit_unknown:
            self.faults += 1
            raise OperationalError("COMMIT", {}, Exception("the connection was lost at commit"))
        return result
