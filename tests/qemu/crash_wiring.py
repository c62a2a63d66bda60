"""The network of a crash cloud's servers, and what of it hosts have and should not, or lack."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from cumulet.drivers.linux_network import names, namespaces
from cumulet.testing import JsonObject

from .crash_cloud import GATEWAY, CrashCloud

NETWORK = "/network/v2.0"


def make_network(cloud: CrashCloud) -> None:
    """One with a router, for the servers made from now on. The router that every cloud begins with goes: no host leads
    to its external network here."""
    for router in cloud.admin.get(f"{NETWORK}/routers")["routers"]:
        path = f"{NETWORK}/routers/{router['id']}"
        inside = f"device_id={router['id']}&device_owner=network:router_interface"
        for port in cloud.admin.get(f"{NETWORK}/ports?{inside}")["ports"]:
            cloud.admin.must("PUT", f"{path}/remove_router_interface", {"port_id": port["id"]})
        cloud.admin.must("DELETE", path)

    def made(kind: str, values: dict[str, object]) -> str:
        return str(cloud.admin.must("POST", f"{NETWORK}/{kind}s", {kind: values})[kind]["id"])

    network = made("network", {"name": "crash"})
    subnet = {"network_id": network, "ip_version": 4, "cidr": "10.77.0.0/24", "gateway_ip": f"10.77.0.{GATEWAY}"}
    router = made("router", {"name": "crash"})
    interface = {"subnet_id": made("subnet", subnet)}
    cloud.admin.must("PUT", f"{NETWORK}/routers/{router}/add_router_interface", interface)
    cloud.network = network


def port_of(cloud: CrashCloud, server_id: str) -> JsonObject:
    """The one of a server."""
    (port,) = cloud.admin.get(f"{NETWORK}/ports?device_id={server_id}")["ports"]
    found: dict[str, object] = port
    return found


def network_problems(cloud: CrashCloud, networks: Mapping[str, str]) -> list[str]:
    """`networks`: the namespace of each host. Empty when every host has what it must have, and nothing else."""
    ports = cloud.admin.get(f"{NETWORK}/ports")["ports"]
    routers = cloud.admin.get(f"{NETWORK}/routers")["routers"]
    running = {
        server["id"]: server["OS-EXT-SRV-ATTR:host"]
        for server in cloud.admin.get("/compute/v2.1/servers/detail")["servers"]
        if server["status"] == "ACTIVE"
    }
    found: list[str] = []
    places: dict[str, list[str]] = {}
    """Of each router, the hosts that have it."""
    for host, namespace in networks.items():
        here = {link["ifname"] for link in _json("ip", "-n", namespace, "-j", "link")}
        plugged = {port["id"] for port in ports if running.get(port["device_id"]) == host}
        wired = {port["id"]: port for port in ports if port["binding:host_id"] == host and _of_server(port)}
        found += _differ(f"taps of {host}", _named(here, names.TAP), map(names.tap, plugged))
        rules = _listed(namespace, "bridge", "ports")
        found += _differ(f"ports with rules on {host}", rules, map(names.tap, wired))
        held = {name.rpartition("-")[2] for name in namespaces.named(names.namespaces_of(_inode(namespace)))}
        its_routers = [router["id"] for router in routers if _short(router["id"]) in held]
        for router in its_routers:
            places.setdefault(router, []).append(host)
        found += _differ(f"routers' namespaces of {host}", held, map(_short, its_routers))
        of_routers = [port for port in ports if port["device_id"] in its_routers]
        ends = {names.router_port(port["id"]) for port in of_routers}
        found += _differ(f"cables of routers on {host}", _named(here, names.ROUTER), ends)
        bridged = {port["network_id"] for port in (*wired.values(), *of_routers)}
        found += _differ(f"bridges of {host}", _named(here, names.BRIDGE), map(names.bridge, bridged))
        zones = _listed(namespace, "inet", "zones")
        found += _differ(f"zones of {host}", zones, map(names.bridge, bridged))
    for router in routers:
        if len(places.get(router["id"], [])) != 1:
            found.append(f"router {router['id']} is on {places.get(router['id'])}")
    return found


def _of_server(port: Mapping[str, object]) -> bool:
    return str(port["device_owner"]).startswith("compute:")


def _differ(what: str, there: Iterable[str], wanted: Iterable[str]) -> Iterator[str]:
    there, wanted = set(there), set(wanted)
    if there - wanted:
        yield f"{what}, left over: {sorted(there - wanted)}"
    if wanted - there:
        yield f"{what}, missing: {sorted(wanted - there)}"


def _named(there: Iterable[str], beginning: str) -> set[str]:
    return {name for name in there if name.startswith(beginning)}


def _short(record_id: str) -> str:
    return names.namespace(0, record_id).rpartition("-")[2]


def _inode(namespace: str) -> int:
    return (namespaces.FOLDER / namespace).stat().st_ino


def _listed(namespace: str, family: str, name: str) -> set[str]:
    """The keys of a map of rules."""
    listed = _json("ip", "netns", "exec", namespace, "nft", "-j", "list", "map", family, names.TABLE, name)
    return {key for entry in listed["nftables"] if "map" in entry for key, _ in entry["map"].get("elem", ())}


def _json(*command: str) -> Any:
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
