"""Planted mistakes in what a network has beside its ports: QoS policies, metering, names, segments."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from unittest import mock

from cumulet.db.engine import Tx
from cumulet.db.parts import OfMany
from cumulet.host.wiring import Meter
from cumulet.network import (
    free_segments,
    port_wiring,
    qos,
    router_wiring,
    segment_ranges,
    sharing_use,
    topology,
    wiring,
)
from cumulet.network.metering_records import MeteringLabel
from cumulet.network.port_wiring import Plain
from cumulet.network.store import Port, find, ports


def a_networks_policy_before_its_ports() -> AbstractContextManager[object]:
    """A port has its network's QoS policy even if it has its own."""

    def policies(tx: Tx, plugged: Sequence[Plain]) -> dict[str, str]:
        of_networks = qos.of_networks(tx, plugged)
        found = {port.id: of_networks.get(port.network_id) or port.qos_policy_id for port in plugged}
        return {port_id: policy_id for port_id, policy_id in found.items() if policy_id is not None}

    return mock.patch.object(port_wiring, "_policies", policies)


def sharing_no_more_what_is_used() -> AbstractContextManager[object]:
    """A shared QoS policy becomes its project's own while others have it."""
    return mock.patch.object(sharing_use, "losing", return_value=set())


def a_policy_of_others() -> AbstractContextManager[object]:
    """A QoS policy that is not shared may be given to ports of other projects."""
    return mock.patch.object(qos, "_usable", return_value=True)


def metering_for_everybody() -> AbstractContextManager[object]:
    """A metering label counts what the routers of all projects pass, whether it is shared or not."""
    real = router_wiring._meters

    def meters(tx: Tx, projects: set[str]) -> dict[str, tuple[Meter, ...]]:
        owners = {label.project_id for label in find(tx, MeteringLabel)}
        all_of_them = {meter.label: meter for of_one in real(tx, projects | owners).values() for meter in of_one}
        return {project: tuple(all_of_them[label] for label in sorted(all_of_them)) for project in projects}

    return mock.patch.object(router_wiring, "_meters", meters)


def naming_only_what_has_a_server() -> AbstractContextManager[object]:
    """Hosts know only the names of ports that servers have."""
    shown = wiring._NAMES
    real = shown.rows

    def rows(tx: Tx, network_ids: Sequence[str]) -> Iterator[object]:
        plugged = {port.id for port in find(tx, Port, ports.c.server_id.is_not(None))}
        return (row for row in real(tx, network_ids) if row.id in plugged)

    return mock.patch.object(wiring, "_NAMES", mock.Mock(spec=OfMany, rows=rows))


def segments_out_of_any_range() -> AbstractContextManager[object]:
    """A project whose ranges are full gets a segment of anybody's range."""

    def between(taken: object, highest: int) -> Iterator[tuple[int, int]]:
        yield 100, highest

    return mock.patch.object(free_segments, "_between", between)


def naming_a_segment_that_is_taken() -> AbstractContextManager[object]:
    """An administrator may give two networks the same segment."""
    return mock.patch.object(topology, "_refuse_taken_segment", return_value=None)


def ranges_that_overlap() -> AbstractContextManager[object]:
    """A range of segments may have some of another's."""
    return mock.patch.object(segment_ranges, "_check", return_value=None)


PLANTS = (
    a_networks_policy_before_its_ports,
    sharing_no_more_what_is_used,
    a_policy_of_others,
    metering_for_everybody,
    naming_only_what_has_a_server,
    segments_out_of_any_range,
    naming_a_segment_that_is_taken,
    ranges_that_overlap,
)
