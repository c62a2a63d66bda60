"""Joins the physical network `public` of one machine's hosts to the machine: by an interface of the machine's own on
it (the leg), so that floating IPs are reached from here, or by an interface that leads to another network.

The leg is the only thing added to the machine's own network, and it is removed with the cloud. Guests cannot begin a
connection to the machine: only answers and pings pass.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable, Sequence
from ipaddress import ip_interface, ip_network
from pathlib import Path
from typing import TYPE_CHECKING

from cumulet import rootless
from cumulet.fleet.local_networks import PUBLIC, LocalNetworks, inside
from cumulet.settings import Settings

if TYPE_CHECKING:
    from pyroute2 import IPRoute

_LEG, _BEYOND = "machine", "beyond"
"""In the wire's namespace, the ports of `public` that lead to the machine, and to the network beyond it."""
_RULES = f"""
add table bridge cumulet_machine
delete table bridge cumulet_machine
table bridge cumulet_machine {{
  chain forward {{
    type filter hook forward priority -200; policy accept;
    meta mark set 0
    oifname "{_LEG}" meta mark set 1
  }}
}}
add table inet cumulet_machine
delete table inet cumulet_machine
table inet cumulet_machine {{
  chain forward {{
    type filter hook forward priority 0; policy accept;
    meta mark != 1 accept
    ct state established,related accept
    meta l4proto {{ icmp, icmpv6 }} accept
    drop
  }}
}}
"""


class NotPublic(Exception):
    """An interface that cannot lead to `public` now; the message says why. It may come later, or be given up."""


def join_machine(local: LocalNetworks, gateways: Iterable[str]) -> str:
    """Give the machine a leg with these addresses (``172.24.4.1/24``). Returns a sentence on what was done."""
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    wanted = [str(ip_interface(gateway)) for gateway in gateways]
    if not wanted:
        return "there is no subnet on `public`, so floating IPs are reached from inside the cloud only"
    name = leg_name(local)
    try:
        with IPRoute() as route:
            for address in wanted:
                taken = _in_use(route, address, but=name)
                if taken is not None:
                    return (
                        f"this machine is not on `public` (so floating IPs are not reached from here): {taken} of its "
                        f"own overlaps with {ip_interface(address).network}"
                    )
            inside(local.wire, _guard)
            if not route.link_lookup(ifname=name):
                peer = {"ifname": _LEG, "net_ns_fd": local.wire}
                route.link("add", ifname=name, kind="veth", peer=peer)
            if not any(":" in address for address in wanted):
                Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6").write_text("1")
            (index,) = route.link_lookup(ifname=name)
            route.link("set", index=index, state="up")
            for address in wanted:
                one, _, length = address.partition("/")
                route.addr("replace", index=index, address=one, prefixlen=int(length))
        inside(local.wire, lambda: _attach(_LEG))
    except (OSError, NetlinkError, subprocess.SubprocessError) as refused:
        return f"this machine is not on `public` (so floating IPs are not reached from here): {refused}"
    return f"this machine is {', '.join(wanted)} on `public` (interface {name}): floating IPs are reached from here"


def join_public(settings: Settings, local: LocalNetworks | None, gateways: Sequence[str]) -> str | None:
    """If the hosts' networks were made here, join `public` to the machine or to the interface in the settings.

    Returns a sentence for people, or None. Raises `NotPublic` for an interface that cannot be used.
    """
    if local is None:
        return None
    if settings.public_interface is not None:
        return join_interface(local, settings.public_interface)
    if not settings.machine_on_public:
        return None
    if rootless.inside() is None:
        return join_machine(local, gateways)
    return f"in the cloud's own network (`cumulet enter COMMAND`) {join_machine(local, gateways)}"


def join_interface(local: LocalNetworks, interface: str) -> str:
    """Join `public` to an interface of the machine. Returns a sentence on what was done. Raises `NotPublic`."""
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    def there() -> bool:
        with IPRoute() as route:
            return bool(route.link_lookup(ifname=_BEYOND))

    known: list[bool] = []
    try:
        inside(local.wire, lambda: known.append(there()))
        with IPRoute() as route:
            found = _free(route, interface)
            if not known[0]:
                route.link("set", index=found, state="up")
                route.link(
                    "add",
                    ifname=_BEYOND,
                    kind="macvlan",
                    link=found,
                    macvlan_mode="passthru",
                    net_ns_fd=local.wire,
                )
        inside(local.wire, lambda: _attach(_BEYOND))
    except (OSError, NetlinkError) as refused:
        raise NotPublic(f"{interface} cannot lead to `public`: {refused}") from refused
    return f"`public` goes on through {interface} of this machine"


def _free(route: IPRoute, interface: str) -> int:
    """The index of an interface that the machine does not use itself. Raises `NotPublic`."""
    found = route.link_lookup(ifname=interface)
    if not found:
        raise NotPublic(f"this machine has no interface {interface}")
    index = int(found[0])
    own = [entry.get("address") for entry in route.get_addr(index=index) if entry["scope"] == 0]
    if own:
        raise NotPublic(
            f"{interface} has addresses of this machine ({', '.join(map(str, own))}), which would lose its "
            "network: name an interface that the machine does not use itself"
        )
    return index


def leg_name(local: LocalNetworks) -> str:
    """The machine's interface on `public`."""
    return "cmp" + local.prefix.rpartition("-")[2]


def _attach(port: str) -> None:
    """Attach a port to `public`. Runs in the wire's namespace."""
    from pyroute2 import IPRoute

    with IPRoute() as route:
        (bridge,), (index,) = route.link_lookup(ifname=PUBLIC), route.link_lookup(ifname=port)
        route.link("set", index=index, master=bridge, state="up")


def _guard() -> None:
    """Set the rules for the leg, before it exists. Runs in the wire's namespace."""
    program = shutil.which("nft") or shutil.which("nft", path="/usr/sbin:/sbin")
    if program is None:
        raise OSError("nft is not installed (Debian package: nftables)")
    done = subprocess.run([program, "-f", "-"], input=_RULES, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode != 0:
        raise OSError(f"nft: {done.stderr.strip()[:500]}")


def _in_use(route: object, address: str, *, but: str) -> str | None:
    """A prefix of the machine's routes, except the default route, that overlaps with `address`; None: there is none."""
    from pyroute2 import IPRoute

    assert isinstance(route, IPRoute)
    wanted = ip_interface(address).network
    own = set(route.link_lookup(ifname=but))
    for entry in route.get_routes(family=2 if wanted.version == 4 else 10, table=254):
        destination = entry.get("dst")
        if destination is None or entry.get("oif") in own:
            continue
        there = ip_network(f"{destination}/{entry['dst_len']}", strict=False)
        if there.version == wanted.version and there.overlaps(wanted):
            return str(there)
    return None
