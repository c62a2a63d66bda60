"""Cumulet answers the recorded requests as real Nova did: status, headers, keys and types, the fate of the server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import cumulet.testing
from tests.conformance.deviations import DEVIATIONS
from tests.conformance.replay import Outcome, golden, replayed, report
from tests.conformance.requests import CASES
from tests.conformance.target import from_clouds_file


@pytest.fixture(scope="module")
def outcome() -> Iterator[Outcome]:
    with cumulet.testing.cloud(hosts=3) as cloud:
        yield replayed(from_clouds_file(cloud.clouds_yaml), CASES, golden())


def test_every_case_has_a_recorded_answer() -> None:
    assert {case.id for case in CASES} == set(golden())


def test_answers_agree_with_nova(outcome: Outcome) -> None:
    unexplained = [difference for difference in outcome.differences if difference.deviation is None]
    assert not unexplained, "\n" + report(unexplained, outcome.total)


def test_every_deviation_is_still_needed(outcome: Outcome) -> None:
    used = {difference.deviation for difference in outcome.differences}
    assert [deviation.reason for deviation in DEVIATIONS if deviation not in used] == []
