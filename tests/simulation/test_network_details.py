"""What a host was told before it hears that a thing is deleted is a problem of that moment, and ends no run."""

from __future__ import annotations

from cumulet.host.wiring import Network, Router, Wiring
from cumulet.testing.simulation import metering_workload, names_workload, qos_workload
from cumulet.testing.simulation.foundation import foundation

GONE = "00000000-0000-4000-8000-000000000000"


def test_a_router_that_is_deleted_and_still_on_a_host_is_said() -> None:
    driver, told = foundation().db.driver, [Wiring(host="host1", routers=(Router(id=GONE, interfaces=()),))]
    assert list(metering_workload.not_as_recorded(driver, told)) == ["router 00000000 on host1 is deleted"]
    assert list(qos_workload.not_as_recorded(driver, told)) == []


def test_a_network_that_is_deleted_and_still_on_a_host_is_said() -> None:
    network = Network(id=GONE, kind="vxlan", vni=7, mtu=1450, dns_domain="", subnets=(), peers=(), remotes=())
    told = [Wiring(host="host1", networks=(network,))]
    problems = list(names_workload.not_as_recorded(foundation().db.driver, told))
    assert problems == ["host1: network 00000000 is deleted"]
