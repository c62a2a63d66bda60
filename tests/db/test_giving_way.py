"""How often, and for how long, a thread that reads gives way to others. Work and sleep are counted, not timed."""

from __future__ import annotations

import pytest

from cumulet.db.giving_way import MOST_PAUSES, WORK_SECONDS, GivingWay


class Thread:
    """A thread, in place of the module `time`: what it works is said, and it counts its pauses."""

    def __init__(self, *, busy_for: int) -> None:
        """`busy_for`: pauses after which others have no work any more."""
        self.worked = 0.0
        self.pauses = 0
        self.busy_for = busy_for

    def thread_time(self) -> float:
        return self.worked

    def sleep(self, _seconds: float) -> None:
        self.pauses += 1

    def others(self) -> bool:
        return self.pauses < self.busy_for


def thread(monkeypatch: pytest.MonkeyPatch, *, busy_for: int = 0) -> tuple[Thread, GivingWay]:
    made = Thread(busy_for=busy_for)
    monkeypatch.setattr("cumulet.db.giving_way.time", made)
    return made, GivingWay(made.others)


def test_it_pauses_once_after_so_much_work_where_others_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    one, give_way = thread(monkeypatch)
    for _ in range(40):
        one.worked += WORK_SECONDS / 4
        give_way()
    assert one.pauses == 10


@pytest.mark.parametrize(("busy_for", "pauses"), [(3, 3), (MOST_PAUSES, MOST_PAUSES), (10**9, MOST_PAUSES)])
def test_it_pauses_for_as_long_as_others_work_but_not_for_ever(
    monkeypatch: pytest.MonkeyPatch, busy_for: int, pauses: int
) -> None:
    one, give_way = thread(monkeypatch, busy_for=busy_for)
    one.worked = WORK_SECONDS
    give_way()
    assert one.pauses == pauses
    give_way()
    assert one.pauses == pauses
