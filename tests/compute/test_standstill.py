"""While a guest stands still in its move, other work makes way: for a while, and for a part of the time only."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cumulet.standstill import LONGEST_SECONDS, PART, Standstill
from cumulet.testing import Client, TestCloud
from tests.api.servers import create_pair, host_of, other


class Time:
    at = 1000.0

    def now(self) -> float:
        return self.at


@pytest.fixture
def told() -> list[float]:
    return []


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def still(time: Time, told: list[float]) -> Standstill:
    made = Standstill(time.now)
    made.told = told.append
    return made


def test_others_make_way_until_the_last_one_runs(still: Standstill, time: Time, told: list[float]) -> None:
    still.begin("one")
    time.at += 0.1
    still.begin("two")
    still.end("one")
    still.end("one")
    still.end("another")
    assert told == [LONGEST_SECONDS]
    time.at += 0.1
    still.end("two")
    still.end("two")
    assert told == [LONGEST_SECONDS, 0.0]


def test_one_that_does_not_end_is_not_waited_for(still: Standstill, time: Time, told: list[float]) -> None:
    still.begin("one")
    time.at += LONGEST_SECONDS
    still.end("one")
    assert told == [LONGEST_SECONDS]


@pytest.mark.parametrize("lasts", [0.01, 0.1, 1.0])
def test_however_many_move_others_make_way_for_a_part_of_the_time(
    still: Standstill, time: Time, told: list[float], lasts: float
) -> None:
    begun, made_way = time.at, 0.0
    for number in range(1000):
        before = len(told)
        still.begin(str(number))
        time.at += lasts
        still.end(str(number))
        if len(told) > before:
            made_way += min(lasts, LONGEST_SECONDS)
    share = made_way / (time.at - begun)
    assert 0.5 / PART < share < 1.05 / PART


@pytest.fixture
def of_the_cloud(cloud: TestCloud, told: list[float]) -> Iterator[list[float]]:
    still = cloud.embedded.hosts.standstill
    before, still.told = still.told, told.append
    yield told
    still.told = before


def test_a_live_migration_s_requests_make_way_from_the_switchover_until_the_guest_runs(
    cloud: TestCloud, admin: Client, member: Client, of_the_cloud: list[float]
) -> None:
    (server, _) = create_pair(member)
    to = other(host_of(admin, server))
    assert admin.action(server, {"os-migrateLive": {"host": to, "block_migration": "auto"}}).status == 202
    cloud.idle()
    assert host_of(admin, server) == to
    assert of_the_cloud == [LONGEST_SECONDS, 0.0]
    assert admin.action(server, {"migrate": None}, version="2.55").status == 202
    cloud.idle()
    assert of_the_cloud == [LONGEST_SECONDS, 0.0], "a guest that is stopped stands still anyway"
