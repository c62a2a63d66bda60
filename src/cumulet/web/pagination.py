"""Pages of a list as Nova makes them: `limit`, `marker`, and a link to the next page."""

from __future__ import annotations

from urllib.parse import urlencode

import msgspec

from cumulet.errors import BadRequest
from cumulet.web.operation import Call, Query

LARGEST_PAGE = 1000


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """`limit`: rows to return at most (never more than 1,000); `marker`: the id after which the page begins."""

    limit: int
    marker: str | None


def page(query: Query, *, largest: int = LARGEST_PAGE) -> Page:
    """What the query asks for; a limit of 0 means none in Nova, and the largest page is what is given."""
    text = query.get("limit")
    limit = largest
    if text is not None:
        if not text.isascii() or not text.isdigit() or len(text) > 20:
            raise BadRequest("limit must be an integer" if not text.startswith("-") else "limit must be >= 0")
        limit = min(int(text) or largest, largest)
    marker = query.get("marker")
    return Page(limit=limit, marker=marker or None)


def next_links(
    call: Call[object, object], path: str, page: Page, last_id: str | None, *, full: bool
) -> list[dict[str, str]]:
    """The value of ``{collection}_links``: empty unless the page is full, else where the next one is.

    path: below the service's prefix, e.g. ``/servers/detail``; last_id: id of the page's last row.
    """
    if not full or last_id is None:
        return []
    pairs = [(name, value) for name, value in call.query.pairs if name not in ("marker", "limit")]
    given = call.query.get("limit")
    if given is not None:
        pairs.append(("limit", given))
    pairs.append(("marker", last_id))
    return [{"rel": "next", "href": f"{call.service_url}{path}?{urlencode(pairs)}"}]
