"""Frequent statements, compiled once and run on SQLite's own connection.

SQLAlchemy writes the SQL, its types convert values, and the results are its rows. What it repeats at each execution is
left out: that costs five times what SQLite needs for a lookup by key. Statements with defaults made by Python take
SQLAlchemy's way. One with lists of values is compiled for each power of two: a shorter list is filled up with one of
its own values.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from sqlalchemy import Executable, Row
from sqlalchemy.engine import Dialect, ExceptionContext
from sqlalchemy.engine.result import SimpleResultMetaData
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql.compiler import SQLCompiler

MOST_STATEMENTS = 2000
"""Statements are module constants, a few hundred. If code builds them as it runs, memory stays bounded."""
MOST_CHARACTERS = 1 << 20
"""Of their SQL, together. What is kept of a statement takes some 35 bytes for each character."""
LONGEST_TOLD = 2000
"""Characters of a failed statement that its error tells, and so the log."""


def shortened(statement: str) -> str:
    """As an error tells it."""
    left_out = len(statement) - LONGEST_TOLD
    return statement if left_out <= 0 else f"{statement[:LONGEST_TOLD]}... ({left_out} more characters)"


def as_sqlalchemys(error: Exception, statement: str, bound: Any, driver: Any, dialect: Dialect) -> BaseException:
    """The driver's error as SQLAlchemy would raise it: callers catch SQLAlchemy's errors."""
    told = shortened(statement)
    return DBAPIError.instance(told, bound, error, driver.Error, hide_parameters=True, dialect=dialect)


def tell_little(context: ExceptionContext) -> None:
    """Shortens the statement of an error that SQLAlchemy raises: a listener for its event ``handle_error``."""
    error = context.sqlalchemy_exception
    if error is not None and error.statement is not None:
        error.statement = shortened(error.statement)


class Prepared:
    """One statement with the names of its values."""

    __slots__ = ("_constants", "_dialect", "_lists", "_parent", "_plan", "_processors", "_sql", "length")

    def __init__(self, compiled: SQLCompiler, dialect: Dialect, given: Mapping[str, Any]) -> None:
        expanded = compiled.construct_expanded_state(dict(given))  # IN with constants becomes a place for each
        ins: dict[str, Any] = {**compiled._bind_processors, **expanded.processors}
        self._sql = expanded.statement
        self.length = len(self._sql)
        self._dialect = dialect
        self._plan = tuple((name, ins.get(name)) for name in expanded.positiontup or ())
        constants = {**compiled.params, **expanded.additional_parameters}
        self._lists = {name: tuple(made) for name, made in expanded.parameter_expansion.items() if name in given}
        varying = {*given, *itertools.chain.from_iterable(self._lists.values())}
        self._constants = {name: value for name, value in constants.items() if name not in varying}
        columns = compiled._result_columns
        outs = [column.type._cached_result_processor(dialect, None) for column in columns]
        self._processors = outs if any(outs) else None
        self._parent = SimpleResultMetaData([column.keyname for column in columns])

    def _run(self, driver: Any, values: Mapping[str, Any]) -> Any:
        merged = {**self._constants, **values}
        for name, places in self._lists.items():
            merged.update(zip(places, _filled(values[name], len(places)), strict=True))
        bound = [merged[name] if process is None else process(merged[name]) for name, process in self._plan]
        try:
            return driver.execute(self._sql, bound)
        except driver.Error as error:
            raise as_sqlalchemys(error, self._sql, bound, driver, self._dialect) from error

    def rows(
        self, driver: Any, values: Mapping[str, Any], pieces: Callable[[Iterable[Any]], Iterable[Any]]
    ) -> list[Row[*tuple[object, ...]]]:
        """All rows. `pieces`: the same rows, with pauses."""
        parent, processors, index = self._parent, self._processors, self._parent._key_to_index
        return [Row(parent, processors, index, data) for data in pieces(self._run(driver, values))]

    def first(self, driver: Any, values: Mapping[str, Any]) -> Row[*tuple[object, ...]] | None:
        cursor = self._run(driver, values)
        data = cursor.fetchone()
        cursor.close()
        return None if data is None else Row(self._parent, self._processors, self._parent._key_to_index, data)

    def changed(self, driver: Any, values: Mapping[str, Any]) -> int:
        """How many rows an INSERT, UPDATE or DELETE matched."""
        count: int = self._run(driver, values).rowcount
        return count


def _filled(given: Collection[object], size: int) -> list[object]:
    known = list(given)
    return known + known[-1:] * (size - len(known))


def _size(number: int) -> int:
    """The next power of two; 0 stays 0, because SQL for an empty list is another one."""
    return 1 << (number - 1).bit_length() if number else 0


MOST_IN_A_LIST = 1024
"""Longer lists take SQLAlchemy's way."""


class WithLists:
    """One statement that takes lists of values: for each length, a prepared one."""

    __slots__ = ("_compiled", "_dialect", "_lists", "_made", "_note", "length")

    def __init__(
        self, compiled: SQLCompiler, dialect: Dialect, lists: tuple[str, ...], note: Callable[[int], None]
    ) -> None:
        """`note`: told how long each prepared one is."""
        self._compiled = compiled
        self._dialect = dialect
        self._lists = lists
        self._note = note
        self.length = len(compiled.string)
        self._made: dict[tuple[int, ...], Prepared] = {}

    def of(self, values: Mapping[str, Any]) -> Prepared | None:
        sizes = tuple([_size(len(values[name])) for name in self._lists])
        if max(sizes) > MOST_IN_A_LIST:
            return None
        found = self._made.get(sizes)
        if found is None:
            filled = {name: _filled(values[name], size) for name, size in zip(self._lists, sizes, strict=True)}
            found = self._made[sizes] = Prepared(self._compiled, self._dialect, {**values, **filled})
            self._note(found.length)
        return found


class Statements:
    """What is prepared, for all connections of one database. If two threads prepare the same one, one of them stays."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._known: dict[tuple[Executable, tuple[str, ...]], Prepared | WithLists | None] = {}
        self._characters = 0

    def prepared(self, statement: Executable, values: Mapping[str, object]) -> Prepared | None:
        """The statement, ready to be run with values of these names; None where it must take SQLAlchemy's way."""
        key = (statement, tuple(values))
        try:
            found = self._known[key]
        except KeyError:
            found = _prepare(statement, self._dialect, values, self._note)
            self._note(0 if found is None else found.length)
            self._known[key] = found
        return found.of(values) if isinstance(found, WithLists) else found

    def _note(self, length: int) -> None:
        """So many further characters are prepared. If that is too much all go, and are prepared again when needed."""
        self._characters += length
        if self._characters > MOST_CHARACTERS or len(self._known) >= MOST_STATEMENTS:
            self._known.clear()
            self._characters = length


def _prepare(
    statement: Any, dialect: Dialect, values: Mapping[str, Any], note: Callable[[int], None]
) -> Prepared | WithLists | None:
    compiled = statement.compile(dialect=dialect, column_keys=sorted(values))
    if not isinstance(compiled, SQLCompiler) or compiled.insert_prefetch or compiled.update_prefetch:
        return None
    lists = [bind for bind in compiled.post_compile_params if bind.key in values]
    if any(not bind.expanding or bind.type._is_tuple_type for bind in lists):
        return None
    names = [column.keyname for column in compiled._result_columns]
    if len(set(names)) < len(names):
        return None
    if lists:
        return WithLists(compiled, dialect, tuple(sorted({bind.key for bind in lists})), note)
    return Prepared(compiled, dialect, values)
