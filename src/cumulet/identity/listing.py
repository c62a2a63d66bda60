"""Lists: their filters are declared once, in a query class whose attributes name the columns.

A parameter that is a column's name filters by equality; ``name__contains``, ``__startswith`` and ``__endswith`` filter
by a part; with an ``i`` before the comparison, upper and lower case are the same. As in Keystone, unknown parameters
are ignored, and values that Keystone's schemas refuse are 400.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from operator import eq, ge, gt, le, lt, ne
from typing import Annotated

import msgspec
from sqlalchemy import Boolean, ColumnElement, Table, false, func, literal, tuple_

from cumulet.db.engine import Row, Select
from cumulet.errors import BadRequest, NotFound
from cumulet.identity.api import is_true
from cumulet.web.annotations import declared
from cumulet.web.operation import Call
from cumulet.web.schema import Json

_WORDS = ("True", "TRUE", "true", "False", "FALSE", "false", "", "1", "0", "y", "Y", "n", "N", "on", "ON", "off", "OFF")
Flag = Annotated[str, Json({"enum": [*_WORDS, "yes", "no"]})]
"""A truth value, by one of the words that Keystone takes."""
AskedId = Annotated[str, Json({"minLength": 1, "maxLength": 64, "pattern": "^[a-zA-Z0-9-]+$"})]
AskedName = Annotated[str, Json({"minLength": 1, "maxLength": 255, "pattern": r"[\S]+"})]
ShortName = Annotated[str, Json({"minLength": 1, "maxLength": 64, "pattern": r"[\S]+"})]


MOST_REPEATED = 16
"""Times that parameters are given again, with another value. What is listed has to fit each of them, and each makes the
statement longer."""


class On(msgspec.Struct, frozen=True):
    """The column that an attribute of a query class filters by."""

    column: ColumnElement[object]


class Compared(msgspec.Struct, frozen=True):
    """The column, of microseconds, that an attribute is compared with: ``lt:2016-12-08T22:02:00Z``."""

    column: ColumnElement[int]


class Never(msgspec.Struct, frozen=True):
    """An attribute that nothing here has: a filter by it finds nothing. `check` refuses values that cannot be."""

    check: Callable[[str], None] | None = None


def filtered(call: Call[object, object], statement: Select) -> Select:
    """`statement` narrowed by what the operation's query class declares."""
    filters = _filters(type(call.parameters))
    pairs = list(dict.fromkeys(call.query.pairs))
    if len(pairs) - len(call.query.names()) > MOST_REPEATED:
        raise BadRequest(f"Invalid input: query parameters are repeated more than {MOST_REPEATED} times.")
    for name, value in pairs:
        attribute, _, comparison = name.partition("__")
        found = filters.get(attribute)
        if isinstance(found, Never):
            if not comparison and found.check is not None:
                found.check(value)
            statement = statement.where(false())
        elif isinstance(found, Compared):
            if not comparison:
                statement = statement.where(_compared(found.column, value))
        elif found is not None:
            condition = _inexact(found.column, comparison, value) if comparison else _exact(found.column, value)
            statement = statement if condition is None else statement.where(condition)
    return statement


def _filters(query: type) -> Mapping[str, On | Never | Compared]:
    found: dict[str, On | Never | Compared] = {}
    for field in declared(query):
        for item in getattr(field.type, "__metadata__", ()):
            if isinstance(item, On | Never | Compared):
                found[field.name] = item
    return found


def _exact(column: ColumnElement[object], value: str) -> ColumnElement[bool]:
    return column.is_(is_true(value)) if isinstance(column.type, Boolean) else column == value


def _inexact(column: ColumnElement[object], comparison: str, value: str) -> ColumnElement[bool] | None:
    """A comparison with a part of a text; None for an unknown one. LIKE would differ in case between databases."""
    if comparison.startswith("i"):
        column, comparison, value = func.lower(column), comparison[1:], value.lower()
    if isinstance(column.type, Boolean) or not value:
        return None
    match comparison:
        case "contains":
            return func.replace(column, value, "") != column
        case "startswith":
            return func.substr(column, _place(1), _place(len(value))) == value
        case "endswith":
            return func.substr(column, func.length(column) - _place(len(value) - 1)) == value
        case _:
            return None


def _place(number: int) -> ColumnElement[int]:
    """In a text. It stands in the statement itself, as an INTEGER, which PostgreSQL's `substr` wants."""
    return literal(number, literal_execute=True)


_OPERATORS = {"lt": lt, "lte": le, "gt": gt, "gte": ge, "eq": eq, "neq": ne}


def _compared(column: ColumnElement[int], text: str) -> ColumnElement[bool]:
    """``lt:2016-12-08T22:02:00Z``: an operator and a moment."""
    operator, _, moment = text.partition(":")
    try:
        when = datetime.strptime(moment, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
        found: ColumnElement[bool] = _OPERATORS[operator](column, int(when.timestamp()) * 1_000_000)
    except (ValueError, KeyError):
        raise BadRequest(
            "Invalid input for query parameter password_expires_at: <operator>:<YYYY-MM-DDTHH:mm:ssZ>, where the "
            f"operator is one of {', '.join(_OPERATORS)}."
        ) from None
    return found


def page(
    call: Call[object, object], statement: Select, table: Table, most: int | None = None
) -> tuple[list[Row], str | None]:
    """The rows after `marker`, at most `limit` (and `most`), by name; and the next marker if there are more."""
    name, identifier = table.c.name, table.c.id
    marker = call.query.get("marker")
    if marker is not None:
        last = call.tx.first(statement.where(identifier == marker))
        if last is None:
            raise NotFound(f"Marker {marker} could not be found.")
        statement = statement.where(tuple_(name, identifier) > (last.name, last.id))
    largest = call.cloud.settings.largest_page
    limit = _limit(call.query.get("limit"), largest if most is None else min(most, largest))
    rows = call.tx.all(statement.order_by(name, identifier).limit(limit + 1))
    return rows[:limit], rows[limit - 1].id if len(rows) > limit else None


def _limit(text: str | None, largest: int) -> int:
    if text is None:
        return largest
    if not (text.isascii() and text.isdecimal()) or int(text[:9]) == 0:
        raise BadRequest("Invalid input for query parameter limit: a positive integer is needed.")
    return min(int(text[:9]), largest)
