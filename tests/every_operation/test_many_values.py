"""Generated from the registry: a list's parameter may have thousands of values, and its statement is no longer."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from urllib.parse import quote

import pytest

from cumulet.network import paging, resource
from cumulet.network.filtering import TAGS, Condition
from cumulet.network.resource import Kind
from cumulet.network.resource_columns import Resource
from cumulet.web import dispatch
from cumulet.web.operation import Call
from cumulet.web.value_lists import MOST_VALUES
from tests import sql_plans

from .asking import Case, Stage
from .test_numbers_and_names import READS, Watched, parameters

LISTS = [case for case in READS if not case.operation.path.endswith("}")]
LONGEST_STATEMENT = 10_000
"""Characters. The longest of a list without filters has half of them."""
MOST_PLACES = 100
"""Places for values in a statement. Those of a list with all its filters have a third of them."""
MOST_PARAMETERS = 190
"""A query has 200 at most, and some examples have a few."""
LOOKS_AT_ALL = {
    "image GET /images": ("name", "id", "status", "container_format", "owner", "tag", "size_min", "sort", "os_distro"),
    "placement GET /allocation_candidates": ("resources", "required", "member_of", "same_subtree", "root_required"),
}
"""What is asked of operations that look at whatever they are sent, and have no table of it."""


def thousands(name: str) -> str:
    return f"{name}={quote(','.join(f'CUSTOM_{n}|CUSTOM_{n + 1}' for n in range(0, 3000, 2)))}"


def as_many_as_there_may_be(name: str) -> str:
    return f"{name}=in:{','.join(f'CUSTOM_{n}' for n in range(MOST_VALUES))}"


def repeated_texts(name: str) -> str:
    return "&".join(f"{name}=CUSTOM_{n}" for n in range(MOST_PARAMETERS))


def repeated_numbers(name: str) -> str:
    return "&".join(f"{name}={n}" for n in range(MOST_PARAMETERS))


def note_filters(patch: pytest.MonkeyPatch) -> None:
    """Network looks at all names that it is sent, and knows its filters by tables: they are asked for, too."""
    patch.setattr(dispatch, "Query", Watched)
    patch.setattr(Watched, "seen", set())
    conditions, of_few = resource._conditions, paging.of_few

    def noted(call: Call[object, object], kind: Kind[Resource]) -> list[Condition]:
        Watched.seen |= {*kind.filters, *TAGS} if "tags" in kind.hidden else set(kind.filters)
        return conditions(call, kind)

    def noted_of_few(
        call: Call[object, object],
        plural: str,
        views: Sequence[dict[str, object]],
        readers: Mapping[str, paging.Reader],
        *,
        path: str | None = None,
    ) -> dict[str, object]:
        Watched.seen |= set(readers)
        return of_few(call, plural, views, readers, path=path)

    patch.setattr(resource, "_conditions", noted)
    patch.setattr(paging, "of_few", noted_of_few)


def asked_for(case: Case) -> list[str]:
    """The parameters that the operation takes, once it has been asked."""
    if case.operation.query is not None:
        return list(parameters(case.operation))
    return sorted({*(name for name in Watched.seen if name is not None), *LOOKS_AT_ALL.get(str(case), ())})


@pytest.mark.parametrize("case", LISTS, ids=str)
def test_many_values_are_no_error_of_ours_and_no_long_statement(
    stage: Stage, case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    note_filters(monkeypatch)
    sent = stage.request(case)
    joint = "&" if "?" in sent.path else "?"
    stage.ask(case, sent, "admin")
    with sql_plans.statements(monkeypatch) as seen:
        for parameter in asked_for(case):
            for query in (thousands, as_many_as_there_may_be, repeated_texts, repeated_numbers):
                path = f"{sent.path}{joint}{query(quote(parameter))}"
                answer = stage.ask(case, dataclasses.replace(sent, path=path), "admin")
                assert answer.status < 500 or answer.status == 501, f"{parameter}, {query}: {answer.text[:500]}"
                long = [sql[:500] for sql in seen if len(sql) > LONGEST_STATEMENT or sql.count("?") > MOST_PLACES]
                assert not long, f"{parameter}, {query}: {long}"
                if query is repeated_texts and answer.status < 400:
                    break
