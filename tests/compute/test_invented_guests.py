"""A hostile agent invents guests: they cost few commands and findings in a round, and hold up nothing else."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator

import msgspec
import pytest
import sqlalchemy as sa

import cumulet.testing
from cumulet.compute import corrections, drift, host_watch
from cumulet.compute.believed import LONGEST_ID, MOST_STRANGE, reported
from cumulet.compute.corrections import MOST_SAID
from cumulet.compute.drift import MOST_CORRECTED
from cumulet.compute.host_watch import HostWatch
from cumulet.compute.restored import FINDING, MOST_NOTED
from cumulet.compute.store import hosts
from cumulet.conductor import findings
from cumulet.db.fair_queue import CLOUD, served
from cumulet.host import messages as m
from cumulet.host.driver import GuestReport, GuestState
from cumulet.host.link import Link
from cumulet.testing import TestCloud
from tests.api.test_compute_servers import create
from tests.links import Way, instead

LIAR, OTHER = "host1", "host2"


def guest(server_id: str) -> GuestReport:
    return GuestReport(server_id=server_id, state=GuestState.RUNNING, generation=1)


class Inventor(Way):
    """The agent has these guests, too, until it is told to remove them."""

    def __init__(self, link: Link, count: int) -> None:
        super().__init__(link)
        self.invented = {name: guest(name) for name in (f"invented-{number}" for number in range(count))}
        self.removed: list[str] = []
        self.lanes: set[str] = set()
        self.hangs = False

    async def send(self, message: m.Message[object]) -> object:
        if isinstance(message, m.Destroy) and message.server_id in self.invented:
            if self.hangs:
                await asyncio.Event().wait()
            del self.invented[message.server_id]
            self.removed.append(message.server_id)
            self.lanes.add(served.get())
            return None
        answer = await super().send(message)
        return [*answer, *self.invented.values()] if isinstance(message, m.AskGuests) else answer


def found(cloud: TestCloud, host: str = LIAR) -> Counter[tuple[str, bool]]:
    """Of a host: how many findings of each kind there are, and whether they name a server."""
    rows = cloud.embedded.db.read(findings.newest)
    return Counter((row.finding, bool(row.subject)) for row in rows if row.host == host)


def to_clear(cloud: TestCloud, host: str = LIAR) -> bool:
    row = cloud.embedded.db.read(lambda tx: tx.first(sa.select(hosts).where(hosts.c.name == host)))
    assert row is not None
    return bool(row.to_clear)


def falls_silent(cloud: TestCloud) -> None:
    cloud.embedded.db.write(lambda tx: tx.execute(sa.update(hosts).where(hosts.c.name == LIAR).values(up=False)))


def watch_of(cloud: TestCloud) -> HostWatch:
    return cloud.embedded.conductor.reconciler(HostWatch)


@pytest.fixture
def cloud() -> Iterator[TestCloud]:
    with cumulet.testing.cloud(hosts=2, host_silent_seconds=36_000.0) as cloud:
        yield cloud


def a_round(cloud: TestCloud, host: str = LIAR) -> None:
    cloud.await_(watch_of(cloud).round(host))


def removals(caplog: pytest.LogCaptureFixture) -> int:
    return sum("guest-without-record" in record.getMessage() for record in caplog.records)


def test_so_many_are_removed_in_a_round_and_the_next_one_goes_on(
    cloud: TestCloud, caplog: pytest.LogCaptureFixture
) -> None:
    falls_silent(cloud)
    with instead(cloud, LIAR, lambda link: Inventor(link, 2 * MOST_CORRECTED + 20)) as liar:
        for left in (MOST_CORRECTED + 20, 20, 0):
            caplog.clear()
            a_round(cloud)
            assert len(liar.invented) == left
            assert removals(caplog) == 1
            assert found(cloud) == {("guest-without-record", False): 1}
            assert to_clear(cloud) is bool(left), "it gets no servers before all are gone"
        assert len(liar.removed) == len(set(liar.removed))


def test_of_a_few_each_is_said(cloud: TestCloud, caplog: pytest.LogCaptureFixture) -> None:
    with instead(cloud, LIAR, lambda link: Inventor(link, MOST_SAID)):
        a_round(cloud)
    assert found(cloud) == {("guest-without-record", True): MOST_SAID}
    assert removals(caplog) == MOST_SAID


def test_of_many_that_are_left_alone_there_is_one_finding() -> None:
    with cumulet.testing.cloud(hosts=2, host_silent_seconds=36_000.0, keep_unknown_guests=True) as cloud:
        with instead(cloud, LIAR, lambda link: Inventor(link, MOST_NOTED)):
            a_round(cloud)
            assert found(cloud) == {(FINDING, True): MOST_NOTED}
        with instead(cloud, OTHER, lambda link: Inventor(link, MOST_NOTED + 1)) as other:
            a_round(cloud, OTHER)
            assert found(cloud, OTHER) == {(FINDING, False): 1}
            assert not other.removed


def test_a_start_hears_all_hosts_though_one_does_not_end_its_guests(
    cloud: TestCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_watch, "CORRECTED_AT_START_SECONDS", 0.1)
    watch = watch_of(cloud)
    cloud.await_(watch.stop())
    with instead(cloud, LIAR, lambda link: Inventor(link, 5)) as liar:
        liar.hangs = True
        began = time.monotonic()
        cloud.await_(watch.start())
        assert time.monotonic() - began < 10
        assert LIAR in watch._asking, "it is still at it"
        assert create(cloud.persona("member"), networks="none")["status"] == "ACTIVE"
        cloud.await_(watch.stop())


def test_what_is_corrected_at_a_start_delays_no_lease(cloud: TestCloud) -> None:
    watch = watch_of(cloud)
    cloud.await_(watch.stop())
    with instead(cloud, LIAR, lambda link: Inventor(link, 5)) as liar:
        cloud.await_(watch.start())
        assert len(liar.removed) == 5
        assert liar.lanes == {CLOUD}


def test_a_host_that_takes_long_with_each_is_told_no_more_in_this_round(
    cloud: TestCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(corrections, "ROUND_SECONDS", -1.0)
    falls_silent(cloud)
    with instead(cloud, LIAR, lambda link: Inventor(link, 5)) as liar:
        a_round(cloud)
        assert not liar.removed
        assert to_clear(cloud)
        monkeypatch.undo()
        a_round(cloud)
        assert len(liar.removed) == 5
        assert not to_clear(cloud)


class Flickering(Way):
    """Its guests are in another state each time."""

    state = GuestState.STOPPED

    async def send(self, message: m.Message[object]) -> object:
        answer = await super().send(message)
        if isinstance(message, m.AskGuests):
            return [msgspec.structs.replace(report, state=self.state) for report in answer]
        return answer


def test_of_its_own_servers_so_many_are_corrected_in_a_round(cloud: TestCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drift, "MOST_CORRECTED", 2)
    member = cloud.persona("member")
    made = [create(member, networks="none", name=f"s{number}")["id"] for number in range(6)]
    cloud.idle()
    mine = [one for one in made if cloud.guests(LIAR).get(one) is not None]
    assert len(mine) == 3

    def stopped() -> int:
        return sum(member.server(one)["status"] == "SHUTOFF" for one in mine)

    falls_silent(cloud)
    with instead(cloud, LIAR, Flickering):
        for wanted in (2, 3, 3):
            a_round(cloud)
            assert stopped() == wanted
            assert to_clear(cloud) is (wanted == 2), "the next ones may have guests to remove"


def test_no_more_strange_guests_are_looked_at_than_a_host_can_have() -> None:
    own = [guest(f"own-{number}") for number in range(2 * MOST_STRANGE)]
    ids = {one.server_id for one in own}
    strange = [guest(f"strange-{number}") for number in range(MOST_STRANGE)]
    assert reported([*strange, *own], ids) == ([*strange, *own], False)
    assert reported([*strange, guest("one more"), *own], ids) == ([*strange, *own], True)
    assert reported([*strange, strange[0]], ids) == (strange, False), "a guest that it names twice is one"
    assert reported([guest("x" * LONGEST_ID), guest("x" * (LONGEST_ID + 1))], ids) == ([guest("x" * LONGEST_ID)], False)
    assert reported(None, ids) == (None, False)


def test_a_host_with_more_than_are_looked_at_is_not_done(cloud: TestCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """They may be guests that it lost."""
    monkeypatch.setattr("cumulet.compute.believed.MOST_STRANGE", 3)
    falls_silent(cloud)
    with instead(cloud, LIAR, lambda link: Inventor(link, 5)) as liar:
        a_round(cloud)
        assert len(liar.removed) == 3
        assert to_clear(cloud)
        a_round(cloud)
        assert len(liar.removed) == 5
        assert not to_clear(cloud)
