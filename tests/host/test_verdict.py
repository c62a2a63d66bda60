"""Which packets pass, as a table: packets that differ in one thing from what a rule is about, on either side of it."""

from __future__ import annotations

import pytest

from cumulet.host.verdict import ICMP, ICMP6, TCP, UDP, Packet, Verdict, decide, is_service
from cumulet.host.wiring import Direction, Group, Pair, Port, Rule, Wiring, link_local

MAC, OTHER_MAC = "fa:16:3e:12:34:56", "fa:16:3e:00:00:01"
HERE, HERE_6, LINK_LOCAL = "10.0.0.5", "2001:db8::5", "fe80::f816:3eff:fe12:3456"
THERE, THERE_6 = "10.0.0.9", "2001:db8::9"


def rule(name: str, **said: object) -> Rule:
    whole: dict[str, object] = {
        "id": name,
        "direction": Direction.IN,
        "version": 4,
        "protocol": None,
        "range_min": None,
        "range_max": None,
        "remote_prefix": None,
        "remote_group": None,
    }
    return Rule(**{**whole, **said})  # type: ignore[arg-type]


RULES = (
    rule("all out", direction=Direction.OUT),
    rule("all out 6", direction=Direction.OUT, version=6),
    rule("web", protocol=TCP, range_min=80, range_max=90),
    rule("one", protocol=UDP, range_min=53),
    rule("ping", protocol=ICMP, range_min=8, range_max=0),
    rule("unreachable", protocol=ICMP, range_min=3),
    rule("members", protocol=TCP, range_min=22, range_max=22, remote_group="members"),
    rule("prefix", protocol=TCP, range_min=443, range_max=443, remote_prefix="10.0.0.8/30"),
    rule("any", protocol=0, remote_prefix="10.1.0.0/16"),
    rule("ping 6", version=6, protocol=ICMP6, range_min=128),
)


def port(**said: object) -> Port:
    whole: dict[str, object] = {
        "id": "p",
        "network_id": "n",
        "mac": MAC,
        "addresses": (HERE, HERE_6),
        "up": True,
        "active": True,
        "secured": True,
        "pairs": (Pair(mac=OTHER_MAC, prefix="10.9.0.0/24"),),
        "groups": ("g",),
        "hostname": "",
    }
    return Port(**{**whole, **said})  # type: ignore[arg-type]


def verdict(packet: Packet, *, out: bool, **said: object) -> Verdict:
    groups = (
        Group(id="g", stateful=True, rules=RULES, members=()),
        Group(id="members", stateful=True, rules=(), members=(THERE, "10.2.0.0/16")),
    )
    wiring = Wiring(host="h", ports=(port(**said),), groups=groups)
    return decide(wiring, packet, sender="p" if out else None, receiver=None if out else "p")


def sent(
    source: str, protocol: int = TCP, ports: tuple[int, int] | None = (1000, 80), mac: str = MAC, to: str | None = None
) -> Packet:
    first, second = ports or (None, None)
    return Packet(
        mac=mac,
        source=source,
        destination=to or (THERE_6 if ":" in source else THERE),
        protocol=protocol,
        source_port=first,
        destination_port=second,
    )


def test_a_link_local_address_follows_from_all_of_a_mac_address() -> None:
    """As RFC 4291, appendix A: its second bit from the right is turned, and ff:fe stands in the middle."""
    assert link_local(MAC) == LINK_LOCAL
    assert link_local("02:00:00:00:00:01") == "fe80::ff:fe00:1"
    assert link_local("34:56:78:9a:bc:de") == "fe80::3656:78ff:fe9a:bcde"


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (sent(HERE), "rule"),
        (sent(HERE_6), "rule"),
        (sent(LINK_LOCAL), "rule"),
        (sent("10.9.0.7", mac=OTHER_MAC), "rule"),
        (sent(HERE, mac="fa:16:3e:00:00:02"), "spoofed-mac"),
        (sent("10.9.0.7"), "spoofed-address"),
        (sent(HERE, mac=OTHER_MAC), "spoofed-address"),
        (sent("10.0.0.6"), "spoofed-address"),
        (sent("2001:db8::6"), "spoofed-address"),
        # DHCP servers, and what only looks like one.
        (sent(HERE, UDP, (67, 68)), "dhcp-server"),
        (sent(HERE_6, UDP, (547, 546)), "dhcp-server"),
        (sent(HERE, TCP, (67, 68)), "rule"),
        (sent(HERE, UDP, (547, 546)), "rule"),
        (sent(HERE, UDP, (66, 68)), "rule"),
        (sent(HERE, UDP, (68, 66)), "rule"),
        (sent(HERE_6, UDP, (67, 68)), "rule"),
        (sent(HERE_6, UDP, (546, 548)), "rule"),
        (sent(HERE_6, UDP, (548, 546)), "rule"),
        # Who has no address yet asks for one, and for nothing else.
        (sent("0.0.0.0", UDP, (68, 67)), "needed-by-every-port"),
        (sent("0.0.0.0", UDP, (68, 69)), "spoofed-address"),
        (sent("0.0.0.0", TCP, (68, 67)), "spoofed-address"),
        (sent(HERE, UDP, (68, 67)), "needed-by-every-port"),
        (sent(LINK_LOCAL, UDP, (546, 547)), "needed-by-every-port"),
        (sent("::", UDP, (546, 547)), "spoofed-address"),
        *((sent("::", ICMP6, (kind, 0)), "needed-by-every-port") for kind in (131, 132, 133, 135, 143)),
        *((sent("::", ICMP6, (kind, 0)), "spoofed-address") for kind in (128, 130, 136)),
        (sent("::", UDP, (135, 0)), "spoofed-address"),
        # Routers' own words.
        (sent(LINK_LOCAL, ICMP6, (134, 0)), "router-advertisement"),
        (sent(LINK_LOCAL, ICMP6, (137, 0)), "router-advertisement"),
        (sent(LINK_LOCAL, TCP, (134, 0)), "rule"),
        (sent(LINK_LOCAL, UDP, (137, 0)), "rule"),
        (sent(HERE, ICMP6, (134, 0)), "rule"),
        *((sent(LINK_LOCAL, ICMP6, (kind, 0)), "needed-by-every-port") for kind in (130, 131, 132, 133, 135, 136, 143)),
        (sent(LINK_LOCAL, ICMP6, (138, 0)), "rule"),
    ],
)
def test_what_a_port_may_send(packet: Packet, reason: str) -> None:
    found = verdict(packet, out=True)
    assert (found.reason, found.passes) == (reason, reason in ("rule", "needed-by-every-port"))


@pytest.mark.parametrize(
    ("packet", "name"),
    [
        (sent(THERE, TCP, (1, 80)), "web"),
        (sent(THERE, TCP, (1, 90)), "web"),
        (sent(THERE, TCP, (1, 79)), None),
        (sent(THERE, TCP, (1, 91)), None),
        (sent(THERE, UDP, (1, 80)), None),
        (sent(THERE_6, TCP, (1, 80)), None),
        (sent(THERE, UDP, (1, 53)), "one"),
        (sent(THERE, UDP, (1, 52)), None),
        (sent(THERE, UDP, (1, 54)), None),
        (sent(THERE, UDP, None), None),
        (sent(THERE, ICMP, (8, 0)), "ping"),
        (sent(THERE, ICMP, (8, 1)), None),
        (sent(THERE, ICMP, (7, 0)), None),
        (sent(THERE, ICMP, (9, 0)), None),
        (sent(THERE, ICMP, (3, 4)), "unreachable"),
        (sent(THERE_6, ICMP6, (128, 0)), "ping 6"),
        (sent(THERE_6, ICMP6, (129, 0)), None),
        (sent(THERE, TCP, (1, 22)), "members"),
        (sent("10.2.3.4", TCP, (1, 22)), "members"),
        (sent("10.0.0.10", TCP, (1, 22)), None),
        (sent("10.0.0.8", TCP, (1, 443)), "prefix"),
        (sent("10.0.0.11", TCP, (1, 443)), "prefix"),
        (sent("10.0.0.7", TCP, (1, 443)), None),
        (sent("10.0.0.12", TCP, (1, 443)), None),
        (sent("10.1.0.1", 132, None), "any"),
        (sent("10.3.0.1", 132, None), None),
    ],
)
def test_what_a_port_is_sent_passes_by_one_rule_or_not_at_all(packet: Packet, name: str | None) -> None:
    found = verdict(packet, out=False)
    assert (found.passes, found.rule) == (name is not None, name)
    assert found.reason == ("rule" if name is not None else "no-rule-ingress")


@pytest.mark.parametrize("kind", [130, 131, 132, 134, 135, 136, 143])
def test_what_every_port_needs_to_hear_comes_in(kind: int) -> None:
    assert verdict(sent("fe80::1", ICMP6, (kind, 0)), out=False).reason == "needed-by-every-port"


@pytest.mark.parametrize("out", [True, False])
def test_a_port_that_is_down_passes_nothing_and_one_without_security_all(out: bool) -> None:
    packet = sent("192.0.2.1", 132, None, mac="fa:16:3e:00:00:02", to="192.0.2.2")
    assert verdict(packet, out=out, up=False) == Verdict(passes=False, reason="port-down")
    assert verdict(packet, out=out, secured=False) == Verdict(passes=True, reason="no-port-security")


@pytest.mark.parametrize(
    ("packet", "for_a_host"),
    [
        (sent(HERE, to="169.254.169.254"), True),
        (sent(LINK_LOCAL, to="fe80::a9fe:a9fe"), True),
        (sent(HERE, to="169.254.169.253"), False),
        (sent("0.0.0.0", UDP, (68, 67)), True),
        (sent(LINK_LOCAL, UDP, (546, 547)), True),
        (sent(HERE, UDP, (68, 68)), False),
        (sent(LINK_LOCAL, ICMP6, (133, 0)), True),
        (sent(LINK_LOCAL, ICMP6, (135, 0)), False),
    ],
)
def test_what_is_for_a_host_stays_there(packet: Packet, for_a_host: bool) -> None:
    assert is_service(packet) is for_a_host
    found = verdict(packet, out=False, secured=False)
    assert found.reason == ("host-services-stay-on-their-host" if for_a_host else "no-port-security")
