"""Pages of lists as Glance has them: a limit, a marker, addresses of further pages; and lists sorted by one key."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from urllib.parse import urlencode

import msgspec
import sqlalchemy as sa

from cumulet.db.engine import Row
from cumulet.errors import BadRequest
from cumulet.web.operation import Query

DEFAULT_LIMIT = 25


def read_limit(text: str | None, largest: int, default: int = DEFAULT_LIMIT) -> int:
    if text is None:
        return min(default, largest)
    if not (text.isascii() and text.removeprefix("-").isdigit()):
        raise BadRequest("limit param must be an integer")
    if text.startswith("-"):
        raise BadRequest("limit param must be positive")
    return min(int(text[:9]), largest)


def require_sort_key(key: str, keys: Collection[str]) -> None:
    if key not in keys:
        raise BadRequest(f"Invalid sort key: {key}. It must be one of the following: {', '.join(keys)}.")


def require_sort_direction(direction: str) -> None:
    if direction not in ("asc", "desc"):
        raise BadRequest(f"Invalid sort direction: {direction}")


def link(path: str, query: Iterable[tuple[str, str]], *, marker: str | None) -> str:
    """The address of the first page or, with a marker, of the page after it."""
    pairs = [pair for pair in query if pair[0] != "marker"]
    if marker is not None:
        pairs.append(("marker", marker))
    return path + (f"?{urlencode(pairs)}" if pairs else "")


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """The page that a request asks for, of a list that is sorted by one key."""

    key: str
    descending: bool
    limit: int
    marker: str | None
    pairs: tuple[tuple[str, str], ...]

    def order(self, columns: Sequence[sa.ColumnElement[object]]) -> list[sa.ColumnElement[object]]:
        return [column.desc() if self.descending else column.asc() for column in columns]

    def beyond(self, columns: Sequence[sa.ColumnElement[object]], marker: Row) -> sa.ColumnElement[bool]:
        """Rows that sort after the one with the columns `marker`; the last column is unique."""
        place, after = sa.tuple_(*columns), sa.tuple_(*marker)
        return place < after if self.descending else place > after

    def reply(self, path: str, name: str, shown: Sequence[object], *, following: str | None) -> dict[str, object]:
        """`path`: of the list. `following`: the marker of the next page; None: there is none."""
        reply: dict[str, object] = {
            name: shown,
            "first": link(path, self.pairs, marker=None),
            "schema": path.replace("/v2/", "/v2/schemas/"),
        }
        return reply if following is None else reply | {"next": link(path, self.pairs, marker=following)}


def sort_key(query: Query, keys: Collection[str]) -> str:
    """The one key that a query asks for; by default `created_at`."""
    key = query.get("sort_key")
    require_sort_key(key := "created_at" if key is None else key, keys)
    return key


def is_descending(query: Query) -> bool:
    direction = query.get("sort_dir")
    require_sort_direction(direction := "desc" if direction is None else direction)
    return direction == "desc"


def read(query: Query, keys: Collection[str], largest: int) -> Page:
    """The page a query asks for; 400 where it cannot be understood."""
    return Page(
        key=sort_key(query, keys),
        descending=is_descending(query),
        limit=read_limit(query.get("limit"), largest),
        marker=query.get("marker"),
        pairs=tuple(query.pairs),
    )
