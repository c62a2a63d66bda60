"""How long a host takes to change its rules from one wiring to another: as root, in a network namespace of its own.

A host with 1,000 ports, and one with 10,000, all in one group of which one rule changes, then one member.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from collections.abc import Iterator

from msgspec.structs import replace

from benchmarks.report import Measure, Result
from cumulet.drivers.linux_network import namespaces
from cumulet.drivers.linux_network.network import LinuxNetwork
from cumulet.drivers.linux_network.probe import probe
from cumulet.host import wiring as w

RULE = Measure(name="rule_change_1000", title="1,000 ports on a host: a rule changes", unit="ms", goal=100)
MEMBER = Measure(name="member_change_1000", title="1,000 ports on a host: a group gets a member", unit="ms", goal=None)
RULE_10 = Measure(name="rule_change_10000", title="10,000 ports on a host: a rule changes", unit="ms", goal=1000)
TIMES = 9
_NETWORK = "00000000-0000-4000-8000-000000000001"
_GROUP = "00000000-0000-4000-8000-000000000002"


def measure() -> Iterator[Result]:
    """Medians."""
    rule, member = asyncio.run(_measured(1000))
    yield Result(RULE, rule)
    yield Result(MEMBER, member)
    yield Result(RULE_10, asyncio.run(_measured(10_000))[0])


async def _measured(ports: int) -> tuple[float, float]:
    """Of a change of a rule, and of one of the group's members, in ms."""
    tracking = probe().tracking
    assert tracking is not None
    name = f"cumulet-bench-{os.getpid()}"
    namespaces.make(name)
    try:
        network = await LinuxNetwork.open(local_address="127.0.0.1", tracking=tracking, namespace=name)
        try:
            wiring = _wiring(ports)
            await network.apply(wiring)
            rules = [await _took(network, _with(wiring, n, port=1000 + n)) for n in range(1, TIMES + 1)]
            members = [await _took(network, _with(wiring, 100 + n, more=n)) for n in range(1, TIMES + 1)]
        finally:
            await network.remove()
            await network.close()
    finally:
        namespaces.remove(name)
    return statistics.median(rules), statistics.median(members)


async def _took(network: LinuxNetwork, wiring: w.Wiring) -> float:
    begun = time.perf_counter()
    await network.apply(wiring)
    return (time.perf_counter() - begun) * 1000


def _with(wiring: w.Wiring, revision: int, *, port: int = 80, more: int = 0) -> w.Wiring:
    (group,) = wiring.groups
    rules = (replace(group.rules[0], range_min=port, range_max=port), *group.rules[1:])
    members = (*group.members, *(f"10.99.0.{number}" for number in range(more)))
    return replace(wiring, revision=revision, groups=(replace(group, rules=rules, members=members),))


def _wiring(count: int) -> w.Wiring:
    ports = tuple(
        w.Port(
            id=f"{number:08x}-{number:04x}-4000-8000-000000000003",
            network_id=_NETWORK,
            mac=f"02:00:00:00:{number >> 8:02x}:{number & 255:02x}",
            addresses=(f"10.0.{number >> 8}.{number & 255}", f"2001:db8::{number:x}"),
            up=True,
            active=True,
            secured=True,
            pairs=(),
            groups=(_GROUP,),
            hostname="",
        )
        for number in range(1, count + 1)
    )
    rules = (
        _rule("web", w.Direction.IN, protocol=6, port=80),
        _rule("members", w.Direction.IN, group=_GROUP),
        _rule("out", w.Direction.OUT),
    )
    members = tuple(address for port in ports for address in port.addresses)
    return w.Wiring(
        host="bench",
        networks=(
            w.Network(id=_NETWORK, kind="vxlan", vni=1, mtu=1450, dns_domain="", subnets=(), peers=(), remotes=()),
        ),
        ports=ports,
        groups=(w.Group(id=_GROUP, stateful=True, rules=rules, members=members),),
    )


def _rule(
    name: str, direction: w.Direction, *, protocol: int | None = None, port: int | None = None, group: str | None = None
) -> w.Rule:
    return w.Rule(
        id=name,
        direction=direction,
        version=4,
        protocol=protocol,
        range_min=port,
        range_max=port,
        remote_prefix=None,
        remote_group=group,
    )
