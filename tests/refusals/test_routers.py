"""What Network refuses of routers, and floating IPs, and no story comes upon."""

from __future__ import annotations

import pytest

from cumulet.testing import Answer

from .network_scene import joined, net, public, router, without_quotas
from .table import Refusal, Scene, table

REFUSALS, refused = table()
prepare = without_quotas


@refused(409, "FloatingIPPortAlreadyAssociated")
def a_second_floating_ip_for_an_address(scene: Scene) -> Answer:
    _, network, _ = joined(scene, external_gateway_info={"network_id": public(scene)})
    wanted = {"floating_network_id": public(scene), "port_id": scene.made("port", network_id=network)["id"]}
    scene.made("floatingip", **wanted)
    return scene.network("POST", "/floatingips", {"floatingip": wanted})


@refused(400, "owned by a different project")
def a_floating_ip_for_another_projects_port_on_ones_own_network(scene: Scene) -> Answer:
    network = scene.made("network", project_id=scene.member.project_id)["id"]
    port = scene.made("port", network_id=network, project_id=scene.cloud.persona("other_member").project_id)["id"]
    wanted = {"floating_network_id": public(scene), "port_id": port}
    return scene.network("POST", "/floatingips", {"floatingip": wanted}, who=scene.member)


@refused(409, "RouterExternalGatewayInUseByFloatingIp")
def the_end_of_a_gateway_that_a_floating_ip_needs(scene: Scene) -> Answer:
    made, network, _ = joined(scene, external_gateway_info={"network_id": public(scene)})
    port = scene.made("port", network_id=network)["id"]
    scene.made("floatingip", floating_network_id=public(scene), port_id=port)
    return scene.network("PUT", f"/routers/{made}", {"router": {"external_gateway_info": None}})


@refused(409, "ServicePortInUse")
def a_routers_interface_that_would_be_another_devices(scene: Scene) -> Answer:
    made, *_ = joined(scene)
    (port,) = scene.network("GET", f"/ports?device_id={made}")["ports"]
    return scene.network("PUT", f"/ports/{port['id']}", {"port": {"device_owner": "", "device_id": ""}})


@refused(404, "AvailabilityZoneNotFound")
def a_router_in_a_zone_that_is_not(scene: Scene) -> Answer:
    return scene.network("POST", "/routers", {"router": {"availability_zone_hints": ["mars"]}})


@refused(400, "network_id is required")
def a_gateway_to_nowhere(scene: Scene) -> Answer:
    return scene.network("POST", "/routers", {"router": {"external_gateway_info": {"enable_snat": True}}})


@refused(400, "not connected with router")
def a_route_by_somebody_far_away(scene: Scene) -> Answer:
    made, *_ = joined(scene)
    routes = [{"destination": "10.8.0.0/24", "nexthop": "10.7.0.9"}]
    return scene.network("PUT", f"/routers/{made}", {"router": {"routes": routes}})


@refused(400, "is used by router")
def a_route_by_the_router_itself(scene: Scene) -> Answer:
    made, *_ = joined(scene)
    routes = [{"destination": "10.8.0.0/24", "nexthop": "10.9.0.1"}]
    return scene.network("PUT", f"/routers/{made}", {"router": {"routes": routes}})


@refused(400, "Duplicate route")
def a_route_twice(scene: Scene) -> Answer:
    made, *_ = joined(scene)
    routes = [{"destination": "10.8.0.0/24", "nexthop": "10.9.0.9"}] * 2
    return scene.network("PUT", f"/routers/{made}", {"router": {"routes": routes}})


@refused(400, "exceeds the maximum")
def more_routes_than_a_router_may_have(scene: Scene) -> Answer:
    made, *_ = joined(scene)

    def more(first: int) -> Answer:
        some = [{"destination": f"10.8.{n}.0/24", "nexthop": "10.9.0.9"} for n in range(first, first + 20)]
        return scene.network("PUT", f"/routers/{made}/add_extraroutes", {"router": {"routes": some}})

    return next(answer for answer in map(more, range(0, 400, 20)) if answer.status != 200)


@refused(409, "RouterInterfaceInUseByRoute")
def the_end_of_an_interface_that_a_route_needs(scene: Scene) -> Answer:
    made, _, subnet = joined(scene)
    routes = [{"destination": "10.8.0.0/24", "nexthop": "10.9.0.9"}]
    assert scene.network("PUT", f"/routers/{made}", {"router": {"routes": routes}}).status == 200
    return scene.network("PUT", f"/routers/{made}/remove_router_interface", {"subnet_id": subnet})


@refused(400, "SubnetMismatchForPort")
def an_interface_named_by_its_port_and_another_subnet(scene: Scene) -> Answer:
    made, *_ = joined(scene)
    port = scene.network("GET", f"/ports?device_id={made}")["ports"][0]["id"]
    body = {"port_id": port, "subnet_id": net(scene)[1]}
    return scene.network("PUT", f"/routers/{made}/remove_router_interface", body)


@refused(404, "RouterInterfaceNotFound")
def an_interface_that_is_another_port(scene: Scene) -> Answer:
    made, network, _ = joined(scene)
    port = scene.made("port", network_id=network)["id"]
    return scene.network("PUT", f"/routers/{made}/remove_router_interface", {"port_id": port})


@refused(404, "RouterInterfaceNotFoundForSubnet")
def an_interface_on_a_subnet_without_one(scene: Scene) -> Answer:
    made, *_ = joined(scene)
    body = {"subnet_id": net(scene, "10.6.0.0/24")[1]}
    return scene.network("PUT", f"/routers/{made}/remove_router_interface", body)


@refused(501, "distributed or flavored routers")
def a_distributed_router(scene: Scene) -> Answer:
    return scene.network("POST", "/routers", {"router": {"distributed": True}})


@refused(409, "PortInUse")
def an_interface_by_a_port_of_something_else(scene: Scene) -> Answer:
    port = scene.made("port", network_id=net(scene)[0], device_id="something")["id"]
    return scene.network("PUT", f"/routers/{router(scene)}/add_router_interface", {"port_id": port})


@refused(409, "GatewayIpInUse")
def another_gateway_where_a_router_is_it(scene: Scene) -> Answer:
    *_, subnet = joined(scene)
    return scene.network("PUT", f"/subnets/{subnet}", {"subnet": {"gateway_ip": "10.9.0.77"}})


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.name)
def test_it_is_refused(scene: Scene, refusal: Refusal) -> None:
    refusal.check(scene)
