"""Packets that hosts have dropped, by cause: in `/metrics`, for `cumulet status`, and of a server's NICs."""

from __future__ import annotations

from collections.abc import Collection
from unittest import mock

from cumulet.drivers.simulated.network import SimulatedTraffic
from cumulet.host.traffic import PortTraffic, Traffic
from cumulet.testing import Client, TestCloud
from tests.links import silent
from tests.testing.test_reachability import made, port_of


async def counted(self: SimulatedTraffic, port_ids: Collection[str]) -> Traffic:
    """As a host of real guests would answer."""
    of_port = PortTraffic(rx_packets=7, rx_bytes=700, tx_packets=5, tx_bytes=500, rx_drops=1)
    return Traffic(dropped={"spoofed_mac": 3, "denied_in": 0}, ports=dict.fromkeys(port_ids, of_port))


def test_metrics_and_status_tell_them_by_host_and_leave_out_who_is_silent(cloud: TestCloud, admin: Client) -> None:
    with mock.patch.object(SimulatedTraffic, "traffic", counted), silent(cloud, "host2"):
        answer = admin.compute("GET", "/cumulet/dropped-packets")
        lines = [line for line in admin.request("GET", "/metrics").text.splitlines() if "dropped_packets" in line]
    told = {"denied_in": 0, "spoofed_mac": 3}
    assert answer["hosts"] == [{"host": "host1", "dropped": told}, {"host": "host2", "dropped": None}]
    assert [line for line in lines if not line.startswith("#")] == [
        'cumulet_dropped_packets_total{cause="denied_in",host="host1"} 0.0',
        'cumulet_dropped_packets_total{cause="spoofed_mac",host="host1"} 3.0',
    ]


def test_a_servers_diagnostics_have_what_went_through_its_ports(member: Client, admin: Client) -> None:
    network = made(member, "network", name="n")
    made(member, "subnet", network_id=network, cidr="10.8.0.0/24", ip_version=4)
    port = member.request("GET", f"/network/v2.0/ports/{port_of(member, network)}")["port"]
    with mock.patch.object(SimulatedTraffic, "traffic", counted):
        (nic,) = admin.compute("GET", f"/servers/{port['device_id']}/diagnostics")["nic_details"]
    assert nic == {
        "mac_address": port["mac_address"],
        "rx_octets": 700,
        "rx_packets": 7,
        "rx_drop": 1,
        "rx_errors": None,
        "rx_rate": None,
        "tx_octets": 500,
        "tx_packets": 5,
        "tx_drop": None,
        "tx_errors": None,
        "tx_rate": None,
    }
