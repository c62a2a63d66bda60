"""Lists: filters in SQL, pages by marker, in the order people read them."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Row, Select, Table, tuple_

from cumulet.errors import BadRequest, NotFound
from cumulet.identity.api import is_true
from cumulet.web.operation import Call

LARGEST_PAGE = 10_000


def filtered(
    call: Call[Any, Any], statement: Select[Any], *columns: ColumnElement[Any], enabled: Any = None
) -> Select[Any]:
    """`statement` narrowed by the query parameters named as `columns` are, and by `enabled` where it is a column."""
    for column in columns:
        asked = call.query.get(str(column.key))
        if asked is not None:
            statement = statement.where(column == asked)
    if enabled is not None and "enabled" in call.query:
        statement = statement.where(enabled.is_(is_true(call.query.get("enabled"))))
    return statement


def page(call: Call[Any, Any], statement: Select[Any], table: Table) -> tuple[list[Row[Any]], str | None]:
    """The rows after `marker`, at most `limit`, by name; and the next marker if there are more."""
    name, identifier = table.c.name, table.c.id
    marker = call.query.get("marker")
    if marker is not None:
        last = call.tx.first(statement.where(identifier == marker))
        if last is None:
            raise NotFound(f"Marker {marker} could not be found.")
        statement = statement.where(tuple_(name, identifier) > (last.name, last.id))
    limit = _limit(call.query.get("limit"))
    rows = call.tx.all(statement.order_by(name, identifier).limit(limit + 1))
    return rows[:limit], rows[limit - 1].id if len(rows) > limit else None


def _limit(text: str | None) -> int:
    if text is None:
        return LARGEST_PAGE
    if not (text.isascii() and text.isdecimal()) or int(text[:9]) == 0:
        raise BadRequest("Invalid input for query parameter limit: a positive integer is needed.")
    return min(int(text[:9]), LARGEST_PAGE)
