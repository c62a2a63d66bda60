"""Links and pages: the two links every resource has, the next page's link, and what of a list a page is."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import urlencode

from cumulet.web.operation import Call
from cumulet.web.schema import plan


class Page(NamedTuple):
    limit: int
    marker: str | None


def known(call: Call[object, object], query: type) -> dict[str, str]:
    """The last value of every parameter that `query` has at this microversion: Nova drops the others unread."""
    names = plan(query, call.version).schema["properties"]
    return {name: value for name, value in call.query.pairs if name in names}


def page(call: Call[object, object], *, since: str = "2.1") -> Page:
    """The page asked for; `limit` is digits, as the query's schema has checked. Before microversion `since` the list
    has no pages in Nova: one is all there is, and nothing leads on."""
    largest = call.cloud.settings.largest_page
    if not call.version.at_least(since):
        return Page(largest, None)
    given = call.query.get("limit")
    return Page(min(int(given), largest) if given is not None else largest, call.query.get("marker"))


def self_link(call: Call[object, object], collection: str, identifier: object) -> dict[str, str]:
    return {"rel": "self", "href": f"{call.service_url}/{collection}/{identifier}"}


def bookmark_root(call: Call[object, object]) -> str:
    """Bookmarks carry no version."""
    return call.service_url.removesuffix("/v2.1")


def bookmark_link(call: Call[object, object], collection: str, identifier: object) -> dict[str, str]:
    return {"rel": "bookmark", "href": f"{bookmark_root(call)}/{collection}/{identifier}"}


def links(call: Call[object, object], collection: str, identifier: object) -> list[dict[str, str]]:
    return [self_link(call, collection, identifier), bookmark_link(call, collection, identifier)]


def next_links(call: Call[object, object], path: str, asked: Page, count: int, last: object) -> list[dict[str, str]]:
    """The next page's link, in a list of its own, or nothing when this page is not full."""
    if not asked.limit or count < asked.limit:
        return []
    query = sorted((name, value) for name, value in call.query.pairs if name != "marker")
    return [{"rel": "next", "href": f"{call.service_url}/{path}?{urlencode([*query, ('marker', str(last))])}"}]
