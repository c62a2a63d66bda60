"""Filters of lists. They compare values, not spellings: a query's text is read as its column's type."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from cumulet.db.one_of import how_many, one_of
from cumulet.errors import BadRequest
from cumulet.network import bodies, refusals
from cumulet.network.store import network_tags
from cumulet.web.schema import loose_bool
from cumulet.web.value_lists import values_in

Condition = sa.ColumnElement[bool]
Column = sa.ColumnElement[Any]
"""A column of any type: SQLAlchemy's type parameter is invariant."""
Filter = Callable[[Sequence[str]], Condition]
Reader = Callable[[str], str]
"""Makes the spelling that is stored from another one."""

TAGS = ("tags", "tags-any", "not-tags", "not-tags-any")


def by_column(column: Column, name: str, read: Reader | None = None) -> Filter:
    """Matches any of the values, read as the column's type. `read`: for texts with several spellings."""

    def condition(values: Sequence[str]) -> Condition:
        if isinstance(column.type, sa.Boolean):
            return sa.or_(*(column.is_(value) for value in {truth(value) for value in values}))
        if isinstance(column.type, sa.Integer):
            return one_of(column, [_number(name, value) for value in values])
        found = one_of(column, [value if read is None else read(value) for value in values])
        return sa.or_(found, column.is_(None)) if "" in values and not isinstance(column, sa.Column) else found

    return condition


def by_columns(columns: Mapping[str, Column]) -> dict[str, Filter]:
    """A filter on each column, by the name of its attribute."""
    return {name: by_column(column, name) for name, column in columns.items()}


def constant(shown: str | bool | None) -> Filter:
    """For an attribute with the same value everywhere. A query for None is the empty text."""

    def condition(values: Sequence[str]) -> Condition:
        asked = [truth(value) for value in values] if isinstance(shown, bool) else values
        return sa.true() if (shown if shown is not None else "") in asked else sa.false()

    return condition


def address(text: str) -> str:
    """An IP address in canonical spelling. Other text stays as it is, and matches no address."""
    try:
        return bodies.plain_address(text)
    except ValueError:
        return text


def mac(text: str) -> str:
    """A MAC address in canonical spelling. Other text stays as it is, and matches no address."""
    try:
        return bodies.plain_mac(text)
    except ValueError:
        return text


def prefix(text: str) -> str:
    """A range in canonical spelling; the empty text stays empty. 400 for other text."""
    return cidr(text) if text else text


def cidr(text: str) -> str:
    """A range in canonical spelling. 400 for other text."""
    try:
        return bodies.plain_subnet(text)
    except ValueError:
        raise refusals.invalid(f"{text} is not in a CIDR format.") from None


def truth(value: object) -> bool:
    """Neutron's spellings of true and false."""
    try:
        return loose_bool(value)
    except ValueError:
        raise refusals.invalid(f"'{value}' cannot be converted to boolean.") from None


def _number(name: str, value: str) -> int:
    if not (value.removeprefix("-").isascii() and value.removeprefix("-").isdigit() and len(value) < 19):
        raise BadRequest(f"Invalid input for {name}. Reason: '{value}' is not an integer.", reason="InvalidInput")
    return int(value)


def by_tags(table: sa.FromClause, name: str, values: Sequence[str]) -> Condition:
    wanted = sorted(set(values_in(",".join(values), name)))
    held = how_many(network_tags.c.tag, wanted, network_tags.c.resource_id == table.c.id)
    enough = 1 if name.endswith("-any") else len(wanted)
    return held < enough if name.startswith("not-") else held >= enough
