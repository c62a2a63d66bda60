"""What a machine can do is found out by doing it; and numbers that ports and networks are called by stay theirs."""

from __future__ import annotations

import pytest

from cumulet.drivers.linux_network.probe import probe
from cumulet.drivers.linux_network.ruleset import LAST_NUMBER, NumbersExhausted, numbered
from tests.linux_network.lab import needs_packets


@needs_packets
def test_a_machine_that_drops_what_no_rule_lets_pass_can_wire_guests() -> None:
    answer = probe()
    assert answer.problem == ""
    assert answer.tracking is not None


def test_without_root_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    answer = probe()
    assert answer.tracking is None
    assert "root" in answer.problem


def test_numbers_are_kept_and_the_lowest_free_ones_given() -> None:
    assert numbered({"a": 1, "b": 2, "c": 3}, ["c", "d", "a"]) == {"c": 3, "d": 2, "a": 1}
    with pytest.raises(NumbersExhausted):
        numbered({}, (str(number) for number in range(LAST_NUMBER + 1)))
