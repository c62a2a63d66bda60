"""Lists of Network that are in no table have pages with links as the others, forwards and backwards."""

from __future__ import annotations

import pytest

from cumulet.testing import Client


@pytest.mark.parametrize("place", ["agents", "default-security-group-rules"])
def test_all_are_found_by_following_links_either_way(admin: Client, place: str) -> None:
    plural = place.replace("-", "_")
    every = [one["id"] for one in admin.request("GET", f"/network/v2.0/{place}")[plural]]
    assert len(every) >= 4

    def walk(query: str, rel: str) -> list[list[str]]:
        path, pages = f"/network/v2.0/{place}?{query}", []
        while True:
            answer = admin.request("GET", path)
            pages.append([one["id"] for one in answer[plural]])
            links = [link["href"] for link in answer.json.get(f"{plural}_links", []) if link["rel"] == rel]
            if not links:
                return pages
            path = "/" + links[0].partition("//")[2].partition("/")[2]

    forwards = [page for page in walk("limit=3", "next") if page]
    assert [one for page in forwards for one in page] == every
    backwards = [page for page in walk("limit=3&page_reverse=True", "previous") if page]
    assert [one for page in reversed(backwards) for one in page] == every
    assert all(len(page) == 3 for page in forwards[:-1] + backwards[:-1])
