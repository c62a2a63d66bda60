"""Listing images as Glance does: filters, sorting by several keys and paging, all of it in SQL."""

from __future__ import annotations

import csv
from collections.abc import Callable
from typing import Any

import msgspec
import sqlalchemy as sa

from cumulet.clock import us_of
from cumulet.db.engine import Tx
from cumulet.db.one_of import how_many, one_of
from cumulet.errors import BadRequest
from cumulet.image import paging, store
from cumulet.image.store import HASH_ALGORITHM, Image, image_properties, image_tags, images
from cumulet.web.operation import Caller, Query
from cumulet.web.value_lists import require_few

SORT_KEYS = ("name", "status", "container_format", "disk_format", "size", "id", "created_at", "updated_at")
MEMBER_STATUSES = ("pending", "accepted", "rejected", "all")
_NOT_FILTERS = ("limit", "marker", "member_status", "tag", "sort", "sort_key", "sort_dir")
_INTEGERS = ("size", "virtual_size", "min_disk", "min_ram")

_Condition = sa.ColumnElement[bool]


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """What a list request asks for."""

    conditions: tuple[_Condition, ...]
    sort: tuple[tuple[str, bool], ...]
    """(key, descending), ending in one that is unique."""
    limit: int
    marker: str | None
    member_status: str | None
    pairs: tuple[tuple[str, str], ...]

    def link(self, *, marker: str | None) -> str:
        """The address of the first page or, with a marker, of the page after it."""
        return paging.link("/v2/images", self.pairs, marker=marker)


def read(query: Query, largest: int) -> Page:
    """The page a query asks for; 400 where it cannot be understood."""
    member_status = query.get("member_status", "accepted")
    if member_status not in MEMBER_STATUSES:
        raise BadRequest(f"Invalid status: {member_status}")
    return Page(
        conditions=tuple(_filters(query)),
        sort=_sort(query),
        limit=paging.read_limit(query.get("limit"), largest),
        marker=query.get("marker"),
        member_status=None if member_status == "all" else member_status,
        pairs=tuple(query.pairs),
    )


def find(tx: Tx, caller: Caller, page: Page) -> list[Image]:
    """The images on a page. A marker the caller cannot see is a 400."""
    conditions = [store.visible_to(caller, member_status=page.member_status), *page.conditions]
    if not any(name == "visibility" for name, _ in page.pairs):
        # Community images of others show only to those who ask for them.
        mine = images.c.visibility != "community"
        conditions.append(mine if caller.project_id is None else sa.or_(mine, images.c.owner == caller.project_id))
    if page.marker is not None:
        marker = store.find_visible(tx, caller, page.marker)
        if marker is None:
            raise BadRequest(f"No image found with ID {page.marker}")
        conditions.append(_after(page.sort, marker))
    order = [_column(key).desc() if descending else _column(key).asc() for key, descending in page.sort]
    return store.load(tx, *conditions, order=order, limit=page.limit)


def _column(key: str) -> sa.ColumnElement[Any]:
    """A column to sort by; null sorts before everything, alike on all databases."""
    if key in ("created_at", "updated_at"):
        column: sa.ColumnElement[Any] = images.c[f"{key}_us"]
    elif key == "size":
        column = sa.func.coalesce(images.c.size, -1)
    elif key in ("name", "container_format", "disk_format"):
        column = sa.func.coalesce(images.c[key], "")
    else:
        column = images.c[key]
    return column


def _value(key: str, image: Image) -> Any:
    if key in ("created_at", "updated_at"):
        return getattr(image, f"{key}_us")
    value = getattr(image, key)
    return value if value is not None else -1 if key == "size" else ""


def _after(sort: tuple[tuple[str, bool], ...], marker: Image) -> _Condition:
    """Rows that sort after `marker`: equal in the first keys and beyond it in the next, for each prefix."""
    alternatives: list[_Condition] = []
    equal: list[_Condition] = []
    for key, descending in sort:
        column, value = _column(key), _value(key, marker)
        alternatives.append(sa.and_(*equal, column < value if descending else column > value))
        equal.append(column == value)
    return sa.or_(*alternatives)


def _sort(query: Query) -> tuple[tuple[str, bool], ...]:
    classic_keys = [key.strip() for key in query.getall("sort_key")]
    classic_directions = [direction.strip() for direction in query.getall("sort_dir")]
    if (text := query.get("sort")) is not None:
        if classic_keys or classic_directions:
            raise BadRequest("Old and new sorting syntax cannot be combined")
        parts = [part.partition(":") for part in text.strip().split(",")]
        keys = [key.strip() for key, _, _ in parts]
        directions = [direction.strip() or "desc" for _, _, direction in parts]
    else:
        keys, directions = classic_keys, classic_directions
        if len(directions) > 1 and len(directions) != len(keys):
            raise BadRequest("Number of sort dirs does not match the number of sort keys")
    for key in keys:
        paging.require_sort_key(key, SORT_KEYS)
    for direction in directions:
        paging.require_sort_direction(direction)
    keys = keys or ["created_at"]
    directions = directions or ["desc"]
    default = directions[0]
    if len(directions) == 1:
        directions = directions * len(keys)
    wanted = dict(zip(keys, directions, strict=False))
    for key in ("created_at", "id"):
        wanted.setdefault(key, default)
    return tuple((key, direction == "desc") for key, direction in wanted.items())


def _filters(query: Query) -> list[_Condition]:
    conditions = []
    if tags := {tag.strip() for tag in query.getall("tag")}:
        conditions.append(how_many(image_tags.c.value, sorted(tags), image_tags.c.image_id == images.c.id) >= len(tags))
    properties: dict[str, str] = {}
    hidden = False
    for name in query.names():
        value = query.get(name)
        if name in _NOT_FILTERS or value is None:
            continue
        if name == "changes-since":
            raise BadRequest('The "changes-since" filter is no longer available on v2.')
        if name == "os_hidden":
            # Only this one is taken in any case; openstacksdk writes True.
            hidden = _boolean(name, value.lower())
        elif name == "visibility":
            if value not in ("community", "public", "private", "shared", "all"):
                raise BadRequest(f"Invalid visibility value: {value}")
            if value != "all":
                conditions.append(images.c.visibility == value)
        elif (condition := _filter(name, value)) is not None:
            conditions.append(condition)
        else:
            properties[name] = value
    if properties:
        conditions.append(_has_properties(properties))
    conditions.append(images.c.os_hidden == hidden)
    return conditions


def _filter(name: str, value: str) -> _Condition | None:
    """None: it is one of the properties that images may have."""
    if name == "protected":
        return images.c.protected == _boolean(name, value)
    if name in ("name", "id", "status", "container_format", "disk_format"):
        return _in_or_equal(name, value)
    if name in ("created_at", "updated_at"):
        return _time(images.c[f"{name}_us"], name, value)
    if name in ("owner", "checksum", "os_hash_value"):
        return images.c[name] == value
    if name == "os_hash_algo":
        return images.c.os_hash_value.is_not(None) if value == HASH_ALGORITHM else sa.false()
    if name in _INTEGERS:
        return images.c[name] == _integer(value)
    stem, _, bound = name.rpartition("_")
    if bound in ("min", "max") and stem in _INTEGERS:
        column = images.c[stem]
        return column >= _integer(value) if bound == "min" else column <= _integer(value)
    return None


def _has_properties(wanted: dict[str, str]) -> _Condition:
    """The condition for images with all these properties. With the name's length before it, a name and a value are one
    text that no other name and value are."""
    p = image_properties.c
    both = sa.cast(sa.func.length(p.name), sa.Text).concat(":").concat(p.name).concat(p.value)
    pairs = [f"{len(name)}:{name}{value}" for name, value in wanted.items()]
    return how_many(both, pairs, p.image_id == images.c.id) >= len(pairs)


def _boolean(name: str, value: str) -> bool:
    if value not in ("true", "false"):
        raise BadRequest(f"Invalid value '{value}' for '{name}' filter. Valid values are 'true' or 'false'.")
    return value == "true"


def _integer(value: str) -> int:
    if not (value.isascii() and value.removeprefix("-").isdigit() and len(value) <= 18):
        raise BadRequest("Unable to filter on a range with a non-numeric value.")
    return int(value)


def _in_or_equal(name: str, value: str) -> _Condition:
    column = images.c[name]
    operator, colon, operand = value.partition(":")
    if not colon:
        return column == value
    if operator == "eq":
        return column == operand
    if operator == "in":
        return one_of(column, _quoted_list(operand, name))
    raise BadRequest(f"Unable to filter by unknown operator '{operator}'.")


def _quoted_list(text: str, name: str) -> list[str]:
    """``a,"b,c"`` is a and b,c."""
    try:
        rows = list(csv.reader([text], strict=True))
    except csv.Error:
        raise BadRequest(f"Invalid filter value {text}. The quote is not closed.") from None
    values = rows[0] if rows else []
    require_few(values, name)
    return values


_SECOND = 1_000_000
# Clients see whole seconds, so whole seconds are compared.
_COMPARISONS: dict[str, Callable[[sa.ColumnElement[int], int], _Condition]] = {
    "eq": lambda column, second: sa.and_(column >= second, column < second + _SECOND),
    "neq": lambda column, second: sa.or_(column < second, column >= second + _SECOND),
    "gt": lambda column, second: column >= second + _SECOND,
    "gte": lambda column, second: column >= second,
    "lt": lambda column, second: column < second,
    "lte": lambda column, second: column < second + _SECOND,
}


def _time(column: sa.ColumnElement[int], name: str, value: str) -> _Condition:
    operator, colon, text = value.partition(":")
    if not colon or operator not in _COMPARISONS:
        if colon and operator.isalpha():
            raise BadRequest(f"Unable to filter by unknown operator '{operator}'.")
        operator, text = "eq", value
    try:
        # A '+' that the client did not escape arrives as a space.
        moment_us = us_of(text.replace(" ", "+"))
    except ValueError:
        message = f'Bad "{name}" query filter format. Use ISO 8601 DateTime notation.'
        raise BadRequest(message) from None
    return _COMPARISONS[operator](column, moment_us // _SECOND * _SECOND)
