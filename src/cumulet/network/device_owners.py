"""The values of a port's `device_owner` that Network writes itself, and the prefixes that say whose device it is."""

from __future__ import annotations

OF_NETWORK, OF_COMPUTE = "network:", "compute:"
"""Prefixes: devices of Network itself, and servers."""
PREFIXES = (OF_NETWORK, OF_COMPUTE, "baremetal:", "manila:", "neutron:", "trunk:")
"""All that there are upstream."""
ROUTER_INTERFACE, ROUTER_GATEWAY = "network:router_interface", "network:router_gateway"
FLOATING_IP = "network:floatingip"
OF_TRUNKS = "trunk:subport"
OF_ROUTERS = (ROUTER_INTERFACE, ROUTER_GATEWAY)
ON_EXTERNAL = (ROUTER_GATEWAY, FLOATING_IP)
"""The ports that are on a network because it is an external one."""
