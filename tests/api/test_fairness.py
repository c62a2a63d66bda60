"""One caller does not stop the others: whose work the database's threads do, and in which order."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from types import FrameType
from typing import NamedTuple

import pytest

from cumulet.compute.heard import RECORD_SECONDS
from cumulet.compute.server_shapes import ServerRow
from cumulet.db.engine import Tx
from cumulet.db.fair_queue import CLOUD, LEASES, FairQueue, Job
from cumulet.testing import Client, TestCloud
from tests.api.test_compute_servers import ask_for


class Asked(NamedTuple):
    """A job for the database's threads."""

    writes: bool
    lane: str
    by: frozenset[str]
    """The functions that wait for it."""


@pytest.fixture
def asked(cloud: TestCloud, monkeypatch: pytest.MonkeyPatch) -> list[Asked]:
    """Whatever asks the database from now on."""
    seen: list[Asked] = []

    def put(queue: FairQueue, job: Job) -> None:
        seen.append(Asked(queue is cloud.embedded.db._writes, job.lane, _waiting(inspect.currentframe())))
        original(queue, job)

    original = FairQueue.put
    monkeypatch.setattr(FairQueue, "put", put)
    return seen


def _waiting(frame: FrameType | None) -> frozenset[str]:
    found = set()
    while frame is not None:
        found.add(frame.f_code.co_qualname)
        frame = frame.f_back
    return frozenset(found)


def test_what_a_project_asks_is_served_as_its_own_and_what_follows_as_the_clouds(
    cloud: TestCloud, member: Client, asked: list[Asked]
) -> None:
    ask_for(member)
    cloud.idle()
    writes = [one.lane for one in asked if one.writes]
    assert writes.count(f"project {member.project_id}") == 1
    assert set(writes) - {LEASES} == {f"project {member.project_id}", CLOUD}  # the conductor boots it


@pytest.mark.parametrize("who", ["Runner.sweep", "Heard.record"])
def test_what_keeps_leases_comes_before_what_the_cloud_works_at(cloud: TestCloud, asked: list[Asked], who: str) -> None:
    """Else many boots at once would make a conductor that leads late for its lease, and hosts late for theirs."""
    cloud.clock.advance(RECORD_SECONDS)
    cloud.persona("admin").wait(f"{who} to ask", lambda: any(who in one.by for one in asked))
    assert {one.lane for one in asked if who in one.by} == {LEASES}


def test_who_has_no_token_is_served_by_address(cloud: TestCloud, asked: list[Asked]) -> None:
    with pytest.raises(PermissionError):
        cloud.login("nobody", "wrong", project={"name": "demo", "domain": {"id": "default"}})
    on_timers = "Periodic._watch"
    assert {(one.writes, one.lane) for one in asked if on_timers not in one.by} == {(False, "address 127.0.0.1")}


def test_what_the_databases_threads_compute_is_charged_to_the_turns_of_who_asked(cloud: TestCloud) -> None:
    assert cloud.embedded.db.computed == cloud.embedded.server._inner.turns.note


@pytest.fixture
def pieces(monkeypatch: pytest.MonkeyPatch) -> list[type]:
    """What is worked on in pieces from now on: the class of each."""
    seen: list[type] = []

    def in_pieces(tx: Tx, rows: Iterable[object]) -> Iterable[object]:
        for row in original(tx, rows):
            seen.append(type(row))
            yield row

    original = Tx.in_pieces
    monkeypatch.setattr(Tx, "in_pieces", in_pieces)
    return seen


def test_threads_that_read_wait_for_turns_on_the_event_loop(cloud: TestCloud) -> None:
    assert cloud.embedded.db.busy == cloud.embedded.server._inner.turns.busy


def test_a_list_of_servers_is_shown_in_pieces_so_that_others_are_served_in_between(
    member: Client, pieces: list[type]
) -> None:
    ask_for(member)
    pieces.clear()
    assert len(member.compute("GET", "/servers/detail")["servers"]) == 1
    assert pieces.count(ServerRow) == 1


def test_a_long_answer_is_encoded_in_pieces(
    member: Client, pieces: list[type], monkeypatch: pytest.MonkeyPatch
) -> None:
    short = member.compute("GET", "/flavors")
    assert dict not in pieces
    monkeypatch.setattr("cumulet.web.perform.ROWS_AT_ONCE", 1)
    long = member.compute("GET", "/flavors")
    assert pieces.count(dict) == len(long["flavors"]) > 1
    assert long.text == short.text
