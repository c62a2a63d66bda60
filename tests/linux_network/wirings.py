"""Wirings for tests, and the packets of their ports."""

from __future__ import annotations

import itertools
import uuid

from cumulet.host import wiring as w
from tests.linux_network import frames as f

NETWORK = str(uuid.UUID(int=7 << 96))
GROUP = str(uuid.UUID(int=9 << 96))
_numbers = itertools.count(1)


def port(address: str, *, network: str = NETWORK, **more: object) -> w.Port:
    number = next(_numbers)
    values: dict[str, object] = {
        "id": str(uuid.UUID(int=number << 80)),
        "network_id": network,
        "mac": f"02:00:00:00:{number >> 8:02x}:{number & 255:02x}",
        "addresses": (address, f"2001:db8::{number:x}"),
        "up": True,
        "active": True,
        "secured": True,
        "pairs": (),
        "groups": (GROUP,),
        "hostname": "",
    }
    return w.Port(**(values | more))  # type: ignore[arg-type]


def network(network_id: str = NETWORK, vni: int | None = 7, **more: object) -> w.Network:
    values: dict[str, object] = {
        "id": network_id,
        "kind": "vxlan",
        "vni": vni,
        "mtu": 1450,
        "dns_domain": "",
        "subnets": (),
        "peers": (),
        "remotes": (),
    }
    return w.Network(**(values | more))  # type: ignore[arg-type]


def rule(direction: str, version: int = 4, **more: object) -> w.Rule:
    values: dict[str, object] = {
        "id": str(uuid.uuid4()),
        "direction": w.Direction(direction),
        "version": version,
        "protocol": None,
        "range_min": None,
        "range_max": None,
        "remote_prefix": None,
        "remote_group": None,
    }
    return w.Rule(**(values | more))  # type: ignore[arg-type]


ALL_OUT = (rule("egress"), rule("egress", 6))
ALL_IN = (rule("ingress"), rule("ingress", 6))


def group(*rules: w.Rule, group_id: str = GROUP, stateful: bool = True, members: tuple[str, ...] = ()) -> w.Group:
    return w.Group(id=group_id, stateful=stateful, rules=rules, members=members)


revisions = itertools.count(1)


def udp(
    sender: w.Port, receiver: w.Port, number: int = 5000, *, source: str | None = None, mac: str | None = None
) -> bytes:
    source = source or sender.addresses[0]
    target = receiver.addresses[1 if ":" in source else 0]
    return f.ip(
        mac or sender.mac,
        receiver.mac,
        source,
        target,
        f.UDP,
        f.transport(f.UDP, source, target, 4000, number, data=b"hello"),
    )


def tcp(sender: w.Port, receiver: w.Port, number: int, *, flags: int = f.SYN, reply: bool = False) -> bytes:
    source, target = sender.addresses[0], receiver.addresses[0]
    first, second = (number, 40_000) if reply else (40_000, number)
    return f.ip(
        sender.mac, receiver.mac, source, target, f.TCP, f.transport(f.TCP, source, target, first, second, flags=flags)
    )
