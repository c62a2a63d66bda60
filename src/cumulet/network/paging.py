"""Pages of lists: their length, and the links to the next and the previous one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from urllib.parse import urlencode

from cumulet.errors import BadRequest, NotFound
from cumulet.network import refusals
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
    call: Call[object, object], path: str, ids: Sequence[str], limit: int, marker: str | None
) -> list[dict[str, str]]:
    """To the pages before and after the page of these ids."""

    def link(rel: str, marker: str, *, reverse: bool) -> dict[str, str]:
        kept = [(name, value) for name, value in call.query.pairs if name not in ("marker", "page_reverse")]
        if not asks_for_pages(call):
            kept = [*((name, value) for name, value in kept if name != "limit"), ("limit", str(limit))]
        kept.append(("marker", marker))
        if reverse:
            kept.append(("page_reverse", "True"))
        return {"rel": rel, "href": f"{call.service_url}/{path}?{urlencode(kept)}"}

    backwards, full = flag(call, "page_reverse"), len(ids) == limit
    found = []
    if ids and (full or backwards):
        found.append(link("next", ids[-1], reverse=False))
    if ids and (full if backwards else marker is not None):
        found.append(link("previous", ids[0], reverse=True))
    return found


Reader = Callable[[str], object]
"""Makes the value of an attribute from a query's text."""


def number(text: str) -> object:
    """A whole number; None for other text."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None


def of_few(
    call: Call[object, object],
    plural: str,
    views: Sequence[dict[str, object]],
    readers: Mapping[str, Reader],
    *,
    path: str | None = None,
) -> dict[str, object]:
    """The answer to a list request for few resources that are in no table: filtered, and one page of them.

    readers: the attributes that can be filtered by, and how their values are read. path: of the list, for links.
    """
    found = list(views)
    marker = call.query.get("marker") if asks_for_pages(call) else None
    backwards = flag(call, "page_reverse") and asks_for_pages(call)
    if marker is not None:
        ids = [view["id"] for view in found]
        if marker not in ids:
            raise NotFound(f"Marker {marker} could not be found.")
        at = ids.index(marker)
        found = found[:at] if backwards else found[at + 1 :]
    for name in call.query.names():
        if name in ("fields", "limit", "marker", "page_reverse", "sort_key", "sort_dir"):
            continue
        if name not in readers:
            raise BadRequest(f"{[name]} is invalid attribute for filtering")
        wanted = [readers[name](value) for value in call.query.getall(name)]
        found = [view for view in found if view[name] in wanted]
    most = limit(call)
    found = found[-most:] if backwards else found[:most]
    answer: dict[str, object] = {plural: found}
    if path is not None and (around := links(call, path, [str(view["id"]) for view in found], most, marker)):
        answer[f"{plural}_links"] = around
    fields = frozenset(call.query.getall("fields"))
    if fields:
        answer[plural] = [{name: value for name, value in view.items() if name in fields} for view in found]
    return answer
