"""The real hosts of this machine: their networks, and what their agents are started with."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path

from cumulet.ca import CertificateAuthority
from cumulet.fleet.local_agents import AgentPlace
from cumulet.fleet.local_networks import PUBLIC_DEVICE, LocalNetworks, NoNamespaces
from cumulet.host.limits import limits_of
from cumulet.settings import HostNetwork, Settings

log = logging.getLogger(__name__)


def image_socket(settings: Settings) -> Path:
    """The socket where the hosts of this machine fetch images."""
    return settings.state_dir / "hosts" / "images.sock"


def networks_of(settings: Settings) -> tuple[LocalNetworks | None, Mapping[str, HostNetwork]]:
    """The networks of the settings. If there are none, root makes a namespace for each host, to wire guests in."""
    if settings.host_networks or not settings.host_names or os.geteuid() != 0:
        return None, settings.host_networks
    local = LocalNetworks(settings.state_dir, settings.host_names)
    try:
        made = local.make()
    except NoNamespaces as problem:
        log.warning("hosts have no networks for guests: %s", problem)
        return None, settings.host_networks
    return local, made


def undo_if_failed(local: LocalNetworks, failed: type[BaseException] | None, *_: object) -> None:
    """If the start fails, remove the namespaces. A cloud that has started removes them itself at its end."""
    if failed is not None:
        local.undo()


def place_of(
    settings: Settings, authority: CertificateAuthority, name: str, networks: Mapping[str, HostNetwork]
) -> AgentPlace:
    folder = settings.state_dir / "hosts" / name
    network = networks.get(name, HostNetwork())
    made_here = network.namespace is not None and name not in settings.host_networks
    return AgentPlace(
        name=name,
        state=folder,
        tls=authority.issue_host(name),
        socket=folder / "agent.sock",
        images=image_socket(settings),
        address=network.address,
        guest_uids=settings.guest_uids,
        limits=limits_of(settings),
        network_namespace=network.namespace,
        public_device=PUBLIC_DEVICE if made_here else settings.public_interface,
        lease_seconds=settings.host_lease_seconds if settings.fence_silent_hosts else None,
        sharing=len(settings.host_names),
    )
