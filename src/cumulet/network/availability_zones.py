"""Where networks and routers are served: ``/availability_zones``; and who provides further services: nobody."""

from __future__ import annotations

from cumulet.errors import NotFound
from cumulet.network.bodies import either
from cumulet.network.resource import View
from cumulet.network.service import NETWORK
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import rule
from cumulet.web.schema import Unset

ZONE = "nova"
"""Every network reaches every host, and all hosts' default zone is this one."""

LIST = rule("get_availability_zone", "role:reader", description="List availability zones")
LIST_PROVIDERS = rule("get_service_provider", "role:reader", description="List service providers")


def wanted(hints: list[str] | Unset) -> list[str]:
    """The `availability_zone_hints` of a new resource. 404 for a zone that is not there."""
    given: list[str] = either(hints, [])
    for hint in given:
        if hint != ZONE:
            raise NotFound(f"AvailabilityZone {hint} could not be found.", reason="AvailabilityZoneNotFound")
    return given


@NETWORK.operation("GET", "/availability_zones", rules=(Rule(LIST),))
def list_availability_zones(call: Call[None, None]) -> View:
    """List the zones that networks and routers are served in."""
    return {
        "availability_zones": [
            {"name": ZONE, "resource": resource, "state": "available"} for resource in ("network", "router")
        ]
    }


@NETWORK.operation("GET", "/service-providers", rules=(Rule(LIST_PROVIDERS),))
def list_service_providers(call: Call[None, None]) -> View:
    """List providers of advanced services. There are none."""
    return {"service_providers": []}
