"""What a cloud does for guests follows from what its hosts say they can do, whatever their driver."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest

import cumulet.testing
from cumulet.compute import hosts_in_memory
from cumulet.drivers.simulated.driver import SimulatedDriver
from cumulet.host.driver import HostFacts
from cumulet.host.wiring import NO_PACKETS
from cumulet.testing import Client, TestCloud
from tests.api.test_compute_servers import ask_for

REAL_VCPUS = 63
"""By which hosts of this cloud are told from others."""
VLAN = {"provider:network_type": "vlan", "provider:physical_network": "public", "provider:segmentation_id": 7}


@pytest.fixture(scope="module")
def real() -> Iterator[TestCloud]:
    """Hosts say that they make config drives, and that packets pass."""
    said = SimulatedDriver.facts

    async def facts(driver: SimulatedDriver) -> HostFacts:
        found = await said(driver)
        if found.vcpus != REAL_VCPUS:
            return found  # of another cloud
        features = (*(one for one in found.features if one != NO_PACKETS), "config-drive")
        return msgspec.structs.replace(found, features=features)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(SimulatedDriver, "facts", facts)
        with cumulet.testing.cloud(simulated_vcpus=REAL_VCPUS) as cloud:
            yield cloud


def drive_of_a_new_server(client: Client) -> str:
    made: str = ask_for(client)["server"]["id"]
    client.wait_for_status(made, "ACTIVE")
    return str(client.server(made)["config_drive"])


def test_where_hosts_make_drives_each_guest_has_one(real: TestCloud, member: Client) -> None:
    assert drive_of_a_new_server(real.persona("member")) == "True"
    assert drive_of_a_new_server(member) == ""


def test_where_packets_pass_there_are_networks_of_those_kinds_only_that_hosts_connect(
    real: TestCloud, admin: Client
) -> None:
    refused = real.persona("admin").request("POST", "/network/v2.0/networks", {"network": VLAN})
    assert refused.status == 501
    assert "vxlan and local networks" in refused.text
    assert admin.request("POST", "/network/v2.0/networks", {"network": VLAN}).status == 201


def test_only_hosts_where_packets_pass_are_told_of_their_networks_before_an_operation_needs_it(
    real: TestCloud, cloud: TestCloud
) -> None:
    assert real.embedded.db.read(hosts_in_memory.with_packets) == sorted(real.embedded.hosts.names)
    assert cloud.embedded.db.read(hosts_in_memory.with_packets) == []
