"""The content of nftables' sets, maps and chains that a wiring says. Pure data, so that two can be compared."""

from __future__ import annotations

import functools
import hashlib
import json
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import collapse_addresses, ip_network
from typing import TypeAlias

from cumulet.drivers.linux_network import names
from cumulet.drivers.linux_network.limits import NamedLimit, named_limit
from cumulet.drivers.linux_network.skeleton import dscp_chain
from cumulet.host import wiring as w
from cumulet.host.verdict import ICMP, ICMP6

Json: TypeAlias = "str | int | bool | list[Json] | dict[str, Json] | None"
Element: TypeAlias = str
"""An element of a set, or a pair of a map, as JSON text."""


@dataclass(frozen=True, slots=True)
class Ruleset:
    """Sets and maps by name: those of the skeleton in `spoofing` and `state`, and in `members` one for each group that
    a rule names. A chain belongs to a combination of groups, so that a rule that changes changes no port."""

    spoofing: Mapping[str, frozenset[Element]] = field(default_factory=dict)
    state: Mapping[str, frozenset[Element]] = field(default_factory=dict)
    members: Mapping[str, frozenset[Element]] = field(default_factory=dict)
    """The name of each ends with the version of IP: ``_4`` or ``_6``."""
    chains: Mapping[str, tuple[Element, ...]] = field(default_factory=dict)
    limits: Mapping[str, NamedLimit] = field(default_factory=dict)
    """Limits of bandwidth, by name."""


MAPS = frozenset(("ports", "zones", "from", "to", "egress", "ingress", "marks"))
"""The names in `Ruleset.spoofing` and `state` that are maps. The others are sets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbers:
    """The numbers of ports and networks in a host's rules, 16 bits each. A number stays as long as what has it."""

    ports: Mapping[str, int]
    """By tap."""
    zones: Mapping[str, int]
    """By bridge."""


FIRST_NUMBER, LAST_NUMBER = 1, 0xFFFF


class NumbersExhausted(Exception):
    """A host has more ports, or networks, than there are numbers."""


def numbered(before: Mapping[str, int], wanted: Iterable[str]) -> dict[str, int]:
    """Numbers for `wanted`: the present ones, and for new names the lowest free ones."""
    wanted = list(wanted)
    kept = {name: before[name] for name in wanted if name in before}
    used = set(kept.values())
    free = (number for number in range(FIRST_NUMBER, LAST_NUMBER + 1) if number not in used)
    for name in wanted:
        if name not in kept:
            number = next(free, None)
            if number is None:
                raise NumbersExhausted(f"a host has at most {LAST_NUMBER} ports and as many networks")
            kept[name] = number
    return kept


def ruleset(wiring: w.Wiring, numbers: Numbers) -> Ruleset:
    """The content of the skeleton's tables for this wiring. A port that is not up is left out: nothing passes it."""
    groups = {group.id: group for group in wiring.groups}
    spoofing: dict[str, set[Element]] = {
        name: set()
        for name in ("ports", "open", "trunks", "macs", "ipv4", "ipv6", "targets", "egress", "ingress", "marks")
    }
    state: dict[str, set[Element]] = {"zones": set(), "from": set(), "to": set()}
    chains: dict[str, tuple[Element, ...]] = {}
    limits: dict[str, NamedLimit] = {}
    named: dict[tuple[tuple[str, ...], w.Direction], str] = {}
    """The chain of each combination of groups."""
    for bridge, zone in numbers.zones.items():
        state["zones"].add(_text([bridge, zone]))
    for port in wiring.ports:
        if port.carried is not None:
            spoofing["trunks"].add(_text(names.tap(port.carried.parent)))
        if not port.up:
            continue
        tap = names.tap(port.id)
        number = numbers.ports[tap]
        spoofing["ports"].add(f'["{tap}", {number}]')
        for way, limit in (("egress", port.egress_limit), ("ingress", port.ingress_limit)):
            if limit is not None and (made := named_limit(way, tap, limit)) is not None:
                limits[made.name] = made
                spoofing[way].add(_text([tap, made.name]))
        if port.dscp_mark is not None:
            spoofing["marks"].add(_text([tap, {"jump": {"target": dscp_chain(port.dscp_mark)}}]))
        if not port.secured:
            spoofing["open"].add(_text(tap))
            continue
        for set_name, element in _addresses(port):
            spoofing[set_name].add(element)
        for direction, verdicts in ((w.Direction.OUT, "from"), (w.Direction.IN, "to")):
            name = named.get((port.groups, direction))
            if name is None:
                name = f"p_{hashlib.sha256(' '.join((direction, *port.groups)).encode()).hexdigest()[:24]}"
                chains[name] = _chain([groups[group] for group in port.groups], direction)
                named[port.groups, direction] = name
            # The same text as `_text` would write, made faster: with a thousand ports it is most of the work.
            state[verdicts].add(f'[{number}, {{"jump": {{"target": "{name}"}}}}]')
    return Ruleset(
        spoofing={name: frozenset(content) for name, content in spoofing.items()},
        state={name: frozenset(content) for name, content in state.items()},
        members=_members(wiring.groups),
        chains=chains,
        limits=limits,
    )


@functools.lru_cache(maxsize=2 * LAST_NUMBER)
def _addresses(port: w.Port) -> tuple[tuple[str, Element], ...]:
    """The addresses a port may send from, as set and element. Cached: most ports are the same the next time."""
    tap = names.tap(port.id)
    pairs = w.own_pairs(port)
    found = []
    for pair in _without_covered(pairs):
        found.append(("macs", _text({"concat": [tap, pair.mac]})))
        name = "ipv6" if ":" in pair.prefix else "ipv4"
        found.append((name, _text({"concat": [tap, pair.mac, _prefix(pair.prefix)]})))
    # The addresses that a port may claim in neighbour advertisements (RFC 4861), under any of its MAC addresses.
    one_mac = tuple(w.Pair(mac=port.mac, prefix=pair.prefix) for pair in pairs if ":" in pair.prefix)
    for pair in _without_covered(one_mac):
        found.append(("targets", _text({"concat": [tap, _number_range(pair.prefix)]})))
    return tuple(found)


def _without_covered(pairs: Iterable[w.Pair]) -> list[w.Pair]:
    """The pairs without prefixes that lie in another one: a set of intervals accepts no overlap."""
    by_mac: dict[tuple[str, int], list[str]] = {}
    for pair in pairs:
        by_mac.setdefault((pair.mac, 6 if ":" in pair.prefix else 4), []).append(pair.prefix)
    found = []
    for (mac, _), prefixes in sorted(by_mac.items()):
        # All are of one version of IP, which the types cannot express.
        for prefix in collapse_addresses(map(ip_network, prefixes)):  # type: ignore[type-var]
            alone = prefix.num_addresses == 1
            found.append(w.Pair(mac=mac, prefix=str(prefix.network_address if alone else prefix)))
    return found


def _members(groups: Iterable[w.Group]) -> dict[str, frozenset[Element]]:
    """A set for each version of IP and each group that a rule names, also for a group without members."""
    by_id = {group.id: group for group in groups}
    named = {rule.remote_group for group in by_id.values() for rule in group.rules if rule.remote_group is not None}
    found: dict[str, frozenset[Element]] = {}
    for group_id in sorted(named):
        for version, content in zip((4, 6), _of_versions(by_id[group_id].members), strict=True):
            found[_members_name(group_id, version)] = content
    return found


@functools.lru_cache(maxsize=1024)
def _of_versions(members: tuple[str, ...]) -> tuple[frozenset[Element], frozenset[Element]]:
    """The members' IPv4 and IPv6 addresses. Cached: a group's rules change more often than its members."""
    four, six = (
        frozenset(_text(_prefix(prefix)) for prefix in collapsed(one for one in members if (":" in one) == of_six))
        for of_six in (False, True)
    )
    return four, six


def collapsed(members: Iterable[str]) -> list[str]:
    """The fewest addresses and prefixes that are the same as these, all of one version of IP, in their order.

    As `ipaddress.collapse_addresses`, which takes ten to twenty times as long: too long for the ports of many hosts.
    """
    bits, ranges = 0, []
    for member in members:
        address, slash, length = member.partition("/")
        packed = socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)
        bits = 8 * len(packed)
        first = int.from_bytes(packed, "big")
        ranges.append((first, first + (1 << (bits - int(length))) - 1 if slash else first))
    found: list[str] = []
    start = end = -1
    for first, last in sorted(ranges):
        if first > end + 1 or start < 0:
            found += _prefixes(start, end, bits)
            start = first
        end = max(end, last)
    return found + _prefixes(start, end, bits)


def _prefixes(first: int, last: int, bits: int) -> list[str]:
    """The prefixes that are the addresses of a range."""
    found = []
    while 0 <= first <= last:
        size = min(bits if first == 0 else (first & -first).bit_length() - 1, (last - first + 1).bit_length() - 1)
        packed = first.to_bytes(bits // 8, "big")
        address = socket.inet_ntop(socket.AF_INET if bits == 32 else socket.AF_INET6, packed)
        found.append(f"{address}/{bits - size}" if size else address)
        first += 1 << size
    return found


def _members_name(group_id: str, version: int) -> str:
    return f"members_{group_id.replace('-', '')}_{version}"


# -- a port's chain in one direction


def _chain(groups: list[w.Group], direction: w.Direction) -> tuple[Element, ...]:
    """The rules of a port's groups in one direction. What they let pass returns; the rest is counted and dropped."""
    let: list[list[Json]] = []
    if any(group.stateful for group in groups):
        let.append([match({"ct": {"key": "state"}}, {"set": ["established", "related"]})])
    seen = dict.fromkeys(
        _text(_conditions(rule)) for group in groups for rule in group.rules if rule.direction is direction
    )
    rules = [_text([*conditions, {"return": None}]) for conditions in let]
    rules += [f'{conditions[:-1]}, {{"return": null}}]' for conditions in seen]
    counter = "denied_in" if direction is w.Direction.IN else "denied_out"
    return (*rules, _text([{"counter": counter}, {"drop": None}]))


def _conditions(rule: w.Rule) -> list[Json]:
    ip = "ip" if rule.version == 4 else "ip6"
    found = [match({"meta": {"key": "protocol"}}, ip)]
    side = "saddr" if rule.direction is w.Direction.IN else "daddr"
    remote: Json = {"payload": {"protocol": ip, "field": side}}
    if rule.remote_prefix is not None:
        found.append(match(remote, _prefix(rule.remote_prefix)))
    if rule.remote_group is not None:
        found.append(match(remote, f"@{_members_name(rule.remote_group, rule.version)}"))
    if rule.protocol:
        found.append(match({"meta": {"key": "l4proto"}}, rule.protocol))
    if rule.range_min is not None:
        found += _range(rule, rule.range_min)
    return found


def _range(rule: w.Rule, first: int) -> list[Json]:
    if rule.protocol in (ICMP, ICMP6):
        kind = "icmp" if rule.protocol == ICMP else "icmpv6"
        found = [match({"payload": {"protocol": kind, "field": "type"}}, first)]
        if rule.range_max is not None:
            found.append(match({"payload": {"protocol": kind, "field": "code"}}, rule.range_max))
        return found
    last = first if rule.range_max is None else rule.range_max
    port: Json = {"payload": {"protocol": "th", "field": "dport"}}
    return [match(port, first if first == last else {"range": [first, last]})]


def match(left: Json, right: Json) -> Json:
    """The expression of a rule that a packet meets where the two are equal, or the left is in the right."""
    return {"match": {"op": "==", "left": left, "right": right}}


def _prefix(text: str) -> Json:
    address, slash, length = text.partition("/")
    return {"prefix": {"addr": address, "len": int(length)}} if slash else address


def _number_range(text: str) -> Json:
    """An IPv6 prefix as a number or a range of numbers: nftables has no type for the field it is compared with."""
    prefix = ip_network(text)
    first, last = int(prefix.network_address), int(prefix.broadcast_address)
    return hex(first) if first == last else {"range": [hex(first), hex(last)]}


def _text(value: Json) -> Element:
    return json.dumps(value)
