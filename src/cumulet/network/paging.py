"""Pages of lists: their length, and the links to the next and the previous one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from urllib.parse import urlencode

from cumulet.errors import BadRequest, NotFound
from cumulet.network import refusals
from cumulet.network.resource_columns import Resource
from cumulet.web.operation import Call


def limit(call: Call[object, object]) -> int:
    """The length of a page. Without a limit, or with 0, it is the largest one (Neutron's `pagination_max_limit`)."""
    largest = call.cloud.settings.largest_page
    text = call.query.get("limit")
    if text is None:
        return largest
    if not (text.isascii() and text.isdigit()) or len(text) > 18:
        raise refusals.bad("limit", f"Limit must be an integer 0 or greater and not '{text}'.")
    return min(int(text) or largest, largest)


def asks_for_pages(call: Call[object, object]) -> bool:
    """Whether the query has a limit. Without one, Neutron ignores a marker."""
    return (call.query.get("limit") or "0").strip("0") != ""


def flag(call: Call[object, object], name: str) -> bool:
    text = call.query.get(name)
    return text is not None and text.lower() in ("1", "true")


def links(
    call: Call[object, object], path: str, records: Sequence[Resource], limit: int, marker: str | None
) -> list[dict[str, str]]:
    def link(rel: str, record: Resource, *, reverse: bool) -> dict[str, str]:
        kept = [(name, value) for name, value in call.query.pairs if name not in ("marker", "page_reverse")]
        if not asks_for_pages(call):
            kept = [*((name, value) for name, value in kept if name != "limit"), ("limit", str(limit))]
        kept.append(("marker", record.id))
        if reverse:
            kept.append(("page_reverse", "True"))
        return {"rel": rel, "href": f"{call.service_url}/{path}?{urlencode(kept)}"}

    found = []
    if records and (len(records) == limit or flag(call, "page_reverse")):
        found.append(link("next", records[-1], reverse=False))
    if records and marker is not None:
        found.append(link("previous", records[0], reverse=True))
    return found


Reader = Callable[[str], object]
"""Makes the value of an attribute from a query's text."""


def number(text: str) -> object:
    """A whole number; None for other text."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


def of_few(
    call: Call[object, object], plural: str, views: Sequence[dict[str, object]], readers: Mapping[str, Reader]
) -> dict[str, object]:
    """The answer to a list request for few resources that are in no table: filtered, and one page of them.

    readers: the attributes that can be filtered by, and how their values are read.
    """
    found = list(views)
    marker = call.query.get("marker") if asks_for_pages(call) else None
    if marker is not None:
        ids = [view["id"] for view in found]
        if marker not in ids:
            raise NotFound(f"Marker {marker} could not be found.")
        found = found[ids.index(marker) + 1 :]
    for name in call.query.names():
        if name in ("fields", "limit", "marker", "page_reverse", "sort_key", "sort_dir"):
            continue
        if name not in readers:
            raise BadRequest(f"{[name]} is invalid attribute for filtering")
        wanted = [readers[name](value) for value in call.query.getall(name)]
        found = [view for view in found if view[name] in wanted]
    fields = frozenset(call.query.getall("fields"))
    if fields:
        found = [{name: value for name, value in view.items() if name in fields} for view in found]
    return {plural: found[: limit(call)]}
