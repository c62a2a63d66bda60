"""Availability zones: where hosts stand. A host's zone comes from its aggregates."""

from __future__ import annotations

from cumulet.clock import iso_us
from cumulet.compute.flavors import ShowQuery
from cumulet.compute.rules import ADMIN, ANYONE
from cumulet.compute.service import COMPUTE
from cumulet.compute.services import INTERNAL_ZONE, ServiceView, services
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import rule

LIST = rule("os_compute_api:os-availability-zone:list", ANYONE)
DETAIL = rule("os_compute_api:os-availability-zone:detail", ADMIN)


@COMPUTE.operation("GET", "/os-availability-zone", rules=(Rule(LIST),), query=ShowQuery)
def list_zones(call: Call[None, None]) -> dict[str, object]:
    """List zones that servers can be created in."""
    return _listed(call, detailed=False)


@COMPUTE.operation("GET", "/os-availability-zone/detail", rules=(Rule(DETAIL),), query=ShowQuery)
def list_zones_in_detail(call: Call[None, None]) -> dict[str, object]:
    """List zones with their hosts and services, the control plane's too."""
    return _listed(call, detailed=True)


def _listed(call: Call[None, None], *, detailed: bool) -> dict[str, object]:
    found = services(call.tx, call.now_us)
    available: dict[str, list[ServiceView]] = {}
    unavailable: dict[str, list[ServiceView]] = {}
    for view in found:
        (unavailable if view.disabled else available).setdefault(view.zone, []).append(view)
    zones = [(zone, True, views) for zone, views in sorted(available.items())]
    zones += [(zone, False, views) for zone, views in sorted(unavailable.items()) if zone not in available]
    return {
        "availabilityZoneInfo": [
            {
                "zoneName": zone,
                "zoneState": {"available": is_available},
                "hosts": _hosts(views) if detailed and is_available else None,
            }
            for zone, is_available, views in zones
            if detailed or zone != INTERNAL_ZONE
        ]
    }


def _hosts(views: list[ServiceView]) -> dict[str, dict[str, dict[str, object]]]:
    by_host: dict[str, dict[str, dict[str, object]]] = {}
    for view in views:
        by_host.setdefault(view.host, {})[view.binary] = {
            "active": True,
            "available": view.up,
            "updated_at": iso_us(view.updated_at_us),
        }
    return by_host
