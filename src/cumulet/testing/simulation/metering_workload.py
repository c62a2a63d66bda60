"""Metering labels and their rules in a run: what the routers of a host would count of every packet there may be."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import ip_address, ip_network
from itertools import product
from random import Random
from sqlite3 import Connection
from typing import TYPE_CHECKING

from cumulet.testing.simulation.network_requests import Asked, Requests

if TYPE_CHECKING:
    from cumulet.host.wiring import Meter, Router, Wiring

MOST_LABELS = 3
INSIDE, OUTSIDE = ("10.0.0.9", "10.0.200.9"), ("198.51.100.9", "203.0.113.9")
"""Addresses of the packets that are counted."""
PACKETS = (*product(("egress",), INSIDE, OUTSIDE), *product(("ingress",), OUTSIDE, INSIDE))
"""Direction, source, destination."""
_PREFIXES = {
    "remote_ip_prefix": ("10.0.0.0/16", "10.0.0.0/24", "10.0.200.0/24"),
    "source_ip_prefix": ("10.0.0.0/24", "203.0.113.0/24"),
    "destination_ip_prefix": ("10.0.200.0/24", "198.51.100.0/24", "0.0.0.0/0"),
}
_ROUTER = "SELECT project_id FROM routers WHERE id = ?"
_LABELS = "SELECT id FROM metering_labels WHERE shared OR project_id = ? ORDER BY id"
_RULES = """
SELECT direction, excluded, remote_ip_prefix, source_ip_prefix, destination_ip_prefix FROM metering_label_rules
WHERE metering_label_id = ?
"""


class MeteringWorkload:
    """Requests of a project, and of an administrator, whose labels count what the routers of all projects pass."""

    def __init__(self, requests: Requests) -> None:
        self._requests = requests

    async def first(self, project: str) -> None:
        """Count all that a project sends."""
        await self._requests.asked(project, "POST", "metering/metering-labels", {"metering_label": {"name": "first"}})
        for label_id in self._labels(project):
            rule = {"metering_label_id": label_id, "direction": "egress", "remote_ip_prefix": "10.0.0.0/16"}
            body = {"metering_label_rule": rule}
            await self._requests.asked(project, "POST", "metering/metering-label-rules", body)

    def request(self, random: Random, project: str) -> Asked:
        caller = random.choice((project, project, "admin"))
        labels = self._labels(caller)
        if not labels or (len(labels) < MOST_LABELS and random.random() < 0.15):
            label = {"name": "l", "shared": caller == "admin"}
            request = self._requests.asked(caller, "POST", "metering/metering-labels", {"metering_label": label})
            return f"{caller} makes a metering label", request
        label_id = random.choice(labels)
        if random.random() < 0.1:
            request = self._requests.asked(caller, "DELETE", f"metering/metering-labels/{label_id}")
            return f"{caller} deletes a metering label", request
        rules = self._requests.ids("SELECT id FROM metering_label_rules WHERE metering_label_id = ?", label_id)
        if rules and random.random() < 0.3:
            request = self._requests.asked(caller, "DELETE", f"metering/metering-label-rules/{random.choice(rules)}")
            return f"{caller} takes a rule from a metering label", request
        names = random.choice(
            (("remote_ip_prefix",), ("source_ip_prefix",), ("source_ip_prefix", "destination_ip_prefix"))
        )
        rule = {
            "metering_label_id": label_id,
            "direction": random.choice(("ingress", "egress")),
            "excluded": random.random() < 0.3,
            **{name: random.choice(_PREFIXES[name]) for name in names},
        }
        request = self._requests.asked(caller, "POST", "metering/metering-label-rules", {"metering_label_rule": rule})
        return f"{caller} adds a rule to a metering label", request

    def _labels(self, caller: str) -> list[str]:
        owner = "operators" if caller == "admin" else caller
        return self._requests.ids("SELECT id FROM metering_labels WHERE project_id = ? ORDER BY id", owner)


def not_as_recorded(driver: Connection, told: Sequence[Wiring]) -> Iterator[str]:
    """At rest: of each packet, a router counts for the labels of its project and the shared ones, and for no other."""
    for wiring in told:
        for router in wiring.routers:
            owner = driver.execute(_ROUTER, (router.id,)).fetchone()
            if owner is None:
                yield f"router {router.id[:8]} on {wiring.host} is deleted"
                continue
            for packet in PACKETS:
                counted, wanted = _counted(router, packet), _wanted(driver, owner[0], packet)
                if counted != wanted:
                    names = [sorted(label[:8] for label in labels) for labels in (wanted, counted)]
                    where = f"router {router.id[:8]} on {wiring.host}"
                    yield f"{where} should count {packet} for the labels {names[0]}, and counts it for {names[1]}"


def _counted(router: Router, packet: tuple[str, str, str]) -> set[str]:
    """As a host does it: the first rule of a label that fits decides."""
    return {meter.label for meter in router.meters if _counts(meter, packet)}


def _counts(meter: Meter, packet: tuple[str, str, str]) -> bool:
    direction, source, destination = packet
    for rule in meter.rules:
        if rule.direction == direction and _within(source, rule.source) and _within(destination, rule.destination):
            return not rule.excluded
    return False


def _wanted(driver: Connection, project_id: str, packet: tuple[str, str, str]) -> set[str]:
    """As the tables say it: a label counts what one of its rules is about and no rule excludes."""
    found = set()
    for (label_id,) in driver.execute(_LABELS, (project_id,)).fetchall():
        fitting = [bool(excluded) for *rule, excluded in _rules(driver, label_id) if _fits(rule, packet)]
        if fitting and not any(fitting):
            found.add(label_id)
    return found


def _rules(driver: Connection, label_id: str) -> Iterator[tuple[str, str | None, str | None, bool]]:
    """Direction, prefix of the source, prefix of the destination, whether it excludes."""
    for direction, excluded, remote, source, destination in driver.execute(_RULES, (label_id,)):
        if remote is None:
            yield direction, source, destination, excluded
        else:  # It is about the addresses inside.
            yield direction, *((remote, None) if direction == "egress" else (None, remote)), excluded


def _fits(rule: Sequence[str | None], packet: tuple[str, str, str]) -> bool:
    return rule[0] == packet[0] and _within(packet[1], rule[1]) and _within(packet[2], rule[2])


def _within(address: str, prefix: str | None) -> bool:
    return prefix is None or ip_address(address) in ip_network(prefix)
