"""Identity's lists: filters by a whole value or a part of it. Wrong values are refused, unknown filters are ignored."""

from __future__ import annotations

import pytest

from cumulet.identity.api import IDENTITY
from cumulet.testing import Client

LISTS = ("users", "projects", "domains", "roles", "services", "endpoints", "regions", "role_assignments")


def names(admin: Client, query: str, collection: str) -> set[str]:
    answer = admin.request("GET", f"/identity/v3/{collection}?{query}")
    assert answer.status == 200, answer.text
    return {one["name"] for one in answer[collection] if one["name"].startswith("Filter")}


@pytest.fixture(params=["users", "projects", "domains", "roles", "services"])
def collection(admin: Client, request: pytest.FixtureRequest) -> str:
    """A list with Filter-abc, Filter-ABD and Filter-xyz in it."""
    kind = request.param.removesuffix("s")
    for name in ("Filter-abc", "Filter-ABD", "Filter-xyz"):
        more = {"type": "test"} if kind == "service" else {}
        made = admin.request("POST", f"/identity/v3/{request.param}", {kind: {"name": name, **more}})
        assert made.status == 201, made.text
    found: str = request.param
    return found


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("name=Filter-abc", "abc"),
        ("name=filter-abc", ""),
        ("name=Filter-abc&name=Filter-xyz", ""),
        ("name__contains=r-ab", "abc"),
        ("name__icontains=R-AB", "abc ABD"),
        ("name__startswith=Filter-A", "ABD"),
        ("name__istartswith=filter-a", "abc ABD"),
        ("name__endswith=yz", "xyz"),
        ("name__iendswith=YZ", "xyz"),
        ("name__endswith=a name that is longer than any of these", ""),
        ("name__contains=%25", ""),
        ("name__contains=_", ""),
        ("name__contains=", "abc ABD xyz"),
        ("name__sounds_like=abc", "abc ABD xyz"),
        ("nothing=1", "abc ABD xyz"),
        ("nothing__contains=1", "abc ABD xyz"),
    ],
)
def test_a_list_is_narrowed_by_a_name_or_a_part_of_it(admin: Client, collection: str, query: str, found: str) -> None:
    assert names(admin, query, collection) == {f"Filter-{name}" for name in found.split()}


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("users?name=", 400),
        ("users?domain_id=a_b", 400),
        ("users?enabled=maybe", 400),
        ("users?enabled", 200),
        ("users?sort_dir=up", 400),
        ("users?limit=x", 400),
        ("users?password_expires_at=soon", 400),
        ("users?password_expires_at=lt:2016-12-08T22:02:00Z", 200),
        ("projects?name=", 400),
        ("projects?enabled=2", 400),
        ("projects?is_domain=perhaps", 400),
        ("domains?enabled=2", 400),
        ("roles?domain_id=a%20b", 400),
        ("endpoints?interface=secret", 400),
        ("regions?parent_region_id=", 400),
        ("regions?nothing=1", 400),
        ("endpoints?nothing=1", 200),
        ("services?nothing=1", 200),
        ("role_assignments?role.id=a_b", 400),
        ("role_assignments?nothing=1", 200),
    ],
)
def test_what_keystones_schemas_refuse_is_refused(admin: Client, query: str, status: int) -> None:
    assert admin.request("GET", f"/identity/v3/{query}").status == status


def test_filters_that_fit_no_user_find_none(admin: Client) -> None:
    for query in ("idp_id=x", "unique_id=x", "password_expires_at=lt:2099-01-01T00:00:00Z"):
        assert admin.request("GET", f"/identity/v3/users?{query}")["users"] == []


def test_every_list_declares_its_filters() -> None:
    lists = [o for o in IDENTITY.operations if o.method == "GET" and o.path.strip("/") in LISTS]
    assert {operation.path.strip("/") for operation in lists if operation.query is not None} == set(LISTS)
