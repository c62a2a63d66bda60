"""Connections that the kernel has to forget when rules or ports have changed.

A packet of a tracked connection passes because the first packet of the connection passed. So when rules or ports
change, each connection of the changed ports is judged again by its first packet. A connection that would not pass now
is forgotten, and its next packet is judged by the rules. Connections of a port that has left are forgotten too: the
port may come back. Guests decide how many connections there are, so they are judged in pieces: other work of the
thread comes between two of them.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property

from msgspec.structs import replace

from cumulet.drivers.linux_network import connections, names, nfnetlink
from cumulet.drivers.linux_network.connections import Connection
from cumulet.host.prefixes import Holders, Prefixes
from cumulet.host.verdict import Packet, Rules
from cumulet.host.wiring import Group, Port, Wiring, own_pairs

AT_ONCE_SECONDS = 2.0
"""So long a change of the wiring waits for connections to be judged: a tenth of what a wiring may take. It is enough
for about 100,000."""
PIECE_SECONDS = 0.25
"""So long other work of the thread waits for one piece of the rest."""


class Forgetting:
    """Used by the network's thread only, in its namespace."""

    def __init__(self) -> None:
        self._judge: _Judge | None = None
        """By the wiring that is in force."""
        self._listed: Iterator[Connection] | None = None
        """The connections of this pass that are not judged yet."""
        self._ends = _Ends()
        """Whose connections this pass is about."""
        self._again = _Ends()
        """What has changed since it began. For that, what this pass has judged already is judged in another one."""

    @property
    def under_way(self) -> bool:
        """Whether there are connections that are not judged yet."""
        return self._listed is not None or bool(self._again)

    def change(
        self, before: Wiring | None, wiring: Wiring, former_zones: Mapping[str, int], zones: Mapping[str, int]
    ) -> None:
        """Judge the connections of what has changed, or begin to. `zones` and `former_zones`: by bridge, after and
        before the change. OSError: all are judged at the next change.

        Whether a port is active decides nothing here, so the end of a move asks nothing of the kernel.
        """
        changed = _changed(before, wiring, former_zones, zones)
        if changed:
            self._judge = _Judge(wiring, zones)
            self._ends |= changed
            self._again |= changed
        if self.under_way:
            self.go_on(AT_ONCE_SECONDS)

    def go_on(self, seconds: float = PIECE_SECONDS) -> bool:
        """Judge for so long, at least one connection; whether there are more. OSError as in `change`."""
        until = time.monotonic() + seconds
        judge = self._judge
        if judge is None or not self.under_way:
            return False
        try:
            with nfnetlink.opened() as asked:
                if self._listed is None:
                    self._listed = connections.tracked(asked)
                    self._ends, self._again = self._again, _Ends()
                for connection in self._listed:
                    if connection.zone in self._ends.zones and not judge.passes(connection, self._ends):
                        connections.end(asked, connection)
                    if time.monotonic() >= until:
                        return True
        except OSError:
            self._listed, self._again = None, _Ends(self._ends.zones | self._again.zones, everybody=True)
            raise
        self._listed, self._ends = None, _Ends()
        return self.under_way

    def reset(self) -> None:
        """Nothing is there any more that could be judged."""
        self._listed, self._ends, self._again = None, _Ends(), _Ends()


class _Ends:
    """Ends of connections that have to be judged again."""

    def __init__(
        self, zones: Iterable[int] = (), held: Iterable[tuple[int, str]] = (), *, everybody: bool = False
    ) -> None:
        """`zones`: those of guests. `held`: addresses and prefixes, with their zones. `everybody`: has to be."""
        self.zones = frozenset(zones)
        self._held = frozenset(held)
        self._everybody = everybody

    def __bool__(self) -> bool:
        return bool(self.zones) and (self._everybody or bool(self._held))

    def __or__(self, other: _Ends) -> _Ends:
        everybody = self._everybody or other._everybody
        return _Ends(self.zones | other.zones, self._held | other._held, everybody=everybody)

    @cached_property
    def _by_zone(self) -> dict[int, Prefixes]:
        held: dict[int, list[str]] = {}
        for zone, prefix in self._held:
            held.setdefault(zone, []).append(prefix)
        return {zone: Prefixes(prefixes) for zone, prefixes in held.items()}

    def has(self, connection: Connection) -> bool:
        if self._everybody:
            return True
        held = self._by_zone.get(connection.zone)
        return held is not None and (held.hold(connection.source) or held.hold(connection.destination))


def _changed(before: Wiring | None, wiring: Wiring, former_zones: Mapping[str, int], zones: Mapping[str, int]) -> _Ends:
    """The addresses, before and after, of the ports of which other connections pass now."""
    ours = {*former_zones.values(), *zones.values()}
    if before is None:
        return _Ends(ours, everybody=True)
    groups = _changed_groups(before.groups, wiring.groups)
    former, present = ({port.id: _judged_by(port) for port in one.ports} for one in (before, wiring))
    # After a change that failed halfway, the zones of networks that it took away are gone, and were judged by it.
    held = [
        (zone, pair.prefix)
        for ports, others, numbers in ((former, present, former_zones), (present, former, zones))
        for port in ports.values()
        if others.get(port.id) != port or not groups.isdisjoint(port.groups)
        if (zone := numbers.get(names.bridge(port.network_id))) is not None
        for pair in own_pairs(port)
    ]
    return _Ends(ours, held)


def _changed_groups(before: tuple[Group, ...], after: tuple[Group, ...]) -> set[str]:
    """Those that let other packets pass than before, because of their rules or of the members of what these name."""
    former, present = ({group.id: group for group in groups} for groups in (before, after))
    changed = {name for name in former.keys() | present.keys() if former.get(name) != present.get(name)}
    naming = {group.id for group in (*before, *after) if any(rule.remote_group in changed for rule in group.rules)}
    return changed | naming


def _judged_by(port: Port) -> Port:
    return replace(
        port, active=True, hostname="", dhcp_options=(), egress_limit=None, ingress_limit=None, dscp_mark=None
    )


class _Judge:
    """Whether the first packet of a connection would pass now."""

    def __init__(self, wiring: Wiring, zones: Mapping[str, int]) -> None:
        self._wiring = wiring
        self._zones = zones

    @cached_property
    def _rules(self) -> Rules:
        return Rules(self._wiring)

    @cached_property
    def _ports(self) -> dict[int, Holders[Port]]:
        """Ports by zone. Made for the first connection."""
        held: dict[int, list[tuple[str, Port]]] = {}
        for port in self._wiring.ports:
            of_zone = held.setdefault(self._zones[names.bridge(port.network_id)], [])
            of_zone += [(pair.prefix, port) for pair in own_pairs(port)]
        return {zone: Holders(of_zone) for zone, of_zone in held.items()}

    def passes(self, connection: Connection, changed: _Ends) -> bool:
        """Those of `changed` alone are judged by rules: the others passed, and nothing has changed for them."""
        ports = self._ports.get(connection.zone)
        if ports is None:
            return False
        sender, receiver = ports.of(connection.source), ports.of(connection.destination)
        if sender is None and receiver is None:
            return False
        if not changed.has(connection):
            return True
        packet = Packet(
            mac=sender.mac if sender is not None else "",
            source=connection.source,
            destination=connection.destination,
            protocol=connection.protocol,
            source_port=connection.source_port,
            destination_port=connection.destination_port,
        )
        return self._rules.decide_by_groups(
            packet,
            sender=None if sender is None else sender.id,
            receiver=None if receiver is None else receiver.id,
        ).passes
