"""The probe of a machine, and the numbers of ports and networks."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from cumulet.drivers.linux_network import names
from cumulet.drivers.linux_network.nft import Nft
from cumulet.drivers.linux_network.probe import probe
from cumulet.drivers.linux_network.ruleset import LAST_NUMBER, Numbers, NumbersExhausted, numbered, ruleset
from cumulet.drivers.linux_network.skeleton import Tracking
from cumulet.host import wiring as w
from tests.linux_network.lab import needs_packets
from tests.linux_network.wirings import ALL_OUT, group, network, port


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


def test_a_change_is_as_large_as_what_changes_not_as_what_is_there() -> None:
    ports = tuple(port(f"10.0.{number >> 8}.{number & 255}") for number in range(500))
    wiring = w.Wiring(host="host1", networks=(network(),), ports=ports, groups=(group(*ALL_OUT),))
    numbers = Numbers(ports=numbered({}, [names.tap(one.id) for one in ports]), zones={names.bridge(network().id): 1})
    tables = Nft(Tracking.BR_NETFILTER)
    tables._there = ruleset(wiring, numbers)
    assert list(tables._difference(ruleset(wiring, numbers))) == []
    fewer = ruleset(replace(wiring, ports=ports[1:]), numbers)
    commands = list(tables._difference(fewer))
    # Its number, its MAC and IP addresses, what it may say it is, and its two chains.
    assert {name for command in commands for name in command} == {"delete"}
    assert sum(len(command["delete"]["element"]["elem"]) for command in commands) == 1 + 1 + 1 + 2 + 2 + 2
