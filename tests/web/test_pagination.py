"""Pages as Nova makes them (each case was asked of real Nova)."""

from __future__ import annotations

from typing import Any

import pytest

from cumulet.errors import BadRequest
from cumulet.web.context import Cloud
from cumulet.web.operation import Call, Caller, Microversion, Query
from cumulet.web.pagination import next_links, page


def query(**values: str) -> Query:
    return Query(list(values.items()))


def test_limits_are_capped_and_zero_means_all_there_may_be() -> None:
    assert page(query()).limit == 1000
    assert page(query(limit="5")).limit == 5
    assert page(query(limit="5000")).limit == 1000
    assert page(query(limit="0")).limit == 1000
    assert page(query(limit="3", marker="m"), largest=2) == page(query(limit="2", marker="m"))


@pytest.mark.parametrize("limit", ["x", "-1", "", "1.5", "٣", "9" * 30])
def test_other_limits_are_refused(limit: str) -> None:
    with pytest.raises(BadRequest):
        page(query(limit=limit))


def test_the_next_link_keeps_the_filters_and_moves_the_marker(cloud: Cloud) -> None:
    asked = Query([("is_public", "None"), ("limit", "1"), ("marker", "1")])
    call: Call[Any, Any] = Call(
        caller=Caller(user_id="u", user_name="n", user_domain_id="d", roles=frozenset()),
        version=Microversion(2, 1),
        path={},
        query=asked,
        body=None,
        target=None,
        cloud=cloud,
        request_id="req-1",
        base_url="https://c",
        service_url="https://c/compute/v2.1",
        now_us=0,
        authorise=lambda rule, facts: False,
    )
    links = next_links(call, "/flavors", page(asked), "2", full=True)
    assert links == [{"rel": "next", "href": "https://c/compute/v2.1/flavors?is_public=None&limit=1&marker=2"}]
    assert next_links(call, "/flavors", page(asked), "2", full=False) == []
    assert next_links(call, "/flavors", page(asked), None, full=True) == []
