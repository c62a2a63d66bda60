"""When a host and the records agree, so that neither is looked at again before one of them says something else."""

from __future__ import annotations

import pytest

from cumulet.compute.agreed import agreed, still_agreed
from cumulet.compute.drift import Before
from cumulet.host.driver import GuestReport, GuestState
from cumulet.network.port_status import BoundPort

OURS = GuestReport(server_id="ours", generation=2, state=GuestState.RUNNING)
ASKED = Before({"ours": 3}, frozenset(), frozenset())


def before(
    *, revision: int = 3, ports: frozenset[BoundPort] = frozenset(), busy: frozenset[str] = frozenset()
) -> Before:
    return Before({"ours": revision}, ports, busy)


def test_what_both_say_again_is_not_compared_again() -> None:
    known = agreed([OURS], None, ASKED, ASKED)
    assert known is not None
    assert still_agreed(known, [OURS], None, before())


@pytest.mark.parametrize("now", [before(revision=4), before(busy=frozenset({"ours"}))])
def test_what_the_records_say_otherwise_is_compared(now: Before) -> None:
    known = agreed([OURS], None, ASKED, ASKED)
    assert not still_agreed(known, [OURS], None, now)


def test_what_has_changed_since_the_host_was_asked_is_compared_again() -> None:
    """It was left alone, because the host's answer may be older."""
    assert agreed([OURS], None, ASKED, before(revision=4)) is None


def test_a_guest_of_another_s_server_is_looked_at_until_it_is_gone() -> None:
    theirs = GuestReport(server_id="theirs", generation=2, state=GuestState.STOPPED)
    assert agreed([OURS, theirs], None, ASKED, ASKED) is None
    gone = GuestReport(server_id="theirs", generation=2, state=GuestState.ABSENT)
    assert agreed([OURS, gone], None, ASKED, ASKED) is not None


def test_a_host_that_says_something_else_is_heeded() -> None:
    known = agreed([OURS], {"a port"}, ASKED, ASKED)
    stopped = GuestReport(server_id="ours", generation=2, state=GuestState.STOPPED)
    assert not still_agreed(known, [stopped], {"a port"}, ASKED)
    assert not still_agreed(known, [OURS], set(), ASKED)
    assert not still_agreed(known, [OURS], None, ASKED)
    assert still_agreed(None, [], None, Before({}, frozenset(), frozenset())), "there is nothing to compare"
