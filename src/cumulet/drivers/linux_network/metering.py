"""What a router counts by metering label, as nftables reads it: a chain and a counter for each label.

They are asked where packets are forwarded, so addresses are those inside, whatever is translated. A label's counter
stays while its rules change.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from ipaddress import ip_network
from uuid import UUID

from cumulet.drivers.linux_network.names import OUTSIDE, TABLE
from cumulet.drivers.linux_network.nft import Command
from cumulet.drivers.linux_network.ruleset import Json, match
from cumulet.host import wiring as w
from cumulet.host.traffic import Metered

_CHAIN = "metered"
"""The router's own chain, which asks those of labels one after the other."""
_PREFIX = "meter_"


def named(router: w.Router) -> set[str]:
    """The names of a router's chains and counters."""
    return {_name(meter) for meter in router.meters}


def names_in(counters: Collection[str]) -> set[str]:
    """Those of its counters that are of labels."""
    return {name for name in counters if name.startswith(_PREFIX)}


def _name(meter: w.Meter) -> str:
    return _PREFIX + meter.label.replace("-", "")


def read(counted: Mapping[str, tuple[int, int]]) -> dict[str, Metered]:
    """Counters as `nft.counted` reads them, by label."""
    return {
        str(UUID(name.removeprefix(_PREFIX))): Metered(packets=counted[name][0], bytes=counted[name][1])
        for name in names_in(counted)
    }


def total(found: Iterable[Mapping[str, Metered]]) -> dict[str, Metered]:
    """By label, what several routers have counted."""
    packets, octets = defaultdict[str, int](int), defaultdict[str, int](int)
    for of_router in found:
        for label, one in of_router.items():
            packets[label] += one.packets
            octets[label] += one.bytes
    return {label: Metered(packets=packets[label], bytes=octets[label]) for label in sorted(packets)}


def commands(router: w.Router, there: Collection[str]) -> Iterator[Command]:
    """What brings the labels `there` to those of the router, in one transaction with its other rules."""
    table: dict[str, Json] = {"family": "inet", "table": TABLE}
    wanted = {_name(meter): meter for meter in router.meters}
    if not wanted and not there:
        return
    yield {"flush": {"chain": table | {"name": _CHAIN}}}
    for name in sorted(set(there) - wanted.keys()):
        yield {"flush": {"chain": table | {"name": name}}}
        yield {"delete": {"chain": table | {"name": name}}}
        yield {"delete": {"counter": table | {"name": name}}}
    for name, meter in wanted.items():
        if name not in there:
            yield {"add": {"counter": table | {"name": name}}}
        yield {"add": {"chain": table | {"name": name}}}
        yield {"flush": {"chain": table | {"name": name}}}
        for rule in meter.rules:
            yield {"add": {"rule": table | {"chain": name, "expr": _expression(rule, name)}}}
        yield {"add": {"rule": table | {"chain": _CHAIN, "expr": [{"jump": {"target": name}}]}}}


def _expression(rule: w.MeterRule, counter: str) -> list[Json]:
    end = "iifname" if rule.direction is w.Direction.IN else "oifname"
    found: list[Json] = [match({"meta": {"key": end}}, OUTSIDE)]
    for field, text in (("saddr", rule.source), ("daddr", rule.destination)):
        if text is not None:
            found += _of_prefix(field, text)
    if not rule.excluded:
        found.append({"counter": counter})
    return [*found, {"return": None}]


def _of_prefix(field: str, text: str) -> Iterator[Json]:
    prefix = ip_network(text)
    yield match({"meta": {"key": "nfproto"}}, f"ipv{prefix.version}")
    if prefix.prefixlen:
        protocol = "ip" if prefix.version == 4 else "ip6"
        range_: Json = {"prefix": {"addr": str(prefix.network_address), "len": prefix.prefixlen}}
        whole = prefix.num_addresses == 1
        left: Json = {"payload": {"protocol": protocol, "field": field}}
        yield match(left, str(prefix.network_address) if whole else range_)
