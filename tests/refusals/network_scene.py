"""What refusals of Network need in their cloud: things by one call, and quotas that are no bound."""

from __future__ import annotations

from typing import Any

from cumulet.testing import JsonObject

from .table import Scene

UNKNOWN = "00000000-0000-4000-8000-000000000000"


def net(scene: Scene, cidr: str = "10.9.0.0/24", *, external: bool = False) -> tuple[str, str]:
    attributes: JsonObject = {"name": "n", "router:external": external}
    network = scene.made("network", **attributes)["id"]
    version = 6 if ":" in cidr else 4
    return network, scene.made("subnet", network_id=network, ip_version=version, cidr=cidr)["id"]


def public(scene: Scene) -> str:
    found: str = scene.network("GET", "/networks?router:external=true")["networks"][0]["id"]
    return found


def router(scene: Scene, **attributes: Any) -> str:
    made: str = scene.made("router", **attributes)["id"]
    return made


def joined(scene: Scene, **attributes: Any) -> tuple[str, str, str]:
    """A router on a subnet: router, network, subnet."""
    made = router(scene, **attributes)
    network, subnet = net(scene)
    assert scene.network("PUT", f"/routers/{made}/add_router_interface", {"subnet_id": subnet}).status == 200
    return made, network, subnet


def without_quotas(scene: Scene) -> None:
    unlimited = dict.fromkeys(("network", "subnet", "port", "router", "floatingip", "security_group"), -1)
    answer = scene.network("PUT", f"/quotas/{scene.admin.project_id}", {"quota": unlimited})
    assert answer.status == 200, answer.text
