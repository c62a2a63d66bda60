"""What a request that makes ports or subnets must know of networks: each is looked for once, however many it makes."""

from __future__ import annotations

import msgspec

from cumulet.network import addresses, resource, sharing
from cumulet.network.networks import NETWORKS
from cumulet.network.resource import View
from cumulet.network.store import Network, Subnet
from cumulet.web.operation import Call


class NetworksAtHand(msgspec.Struct, frozen=True):
    """What is known. Nothing of it is changed by making ports or subnets, but for `subnets_of`."""

    call: Call[object, object]
    subnets_seen: set[str] = msgspec.field(default_factory=set)
    """Ids of subnets in sight, as of `groups_seen`: those that new ports have named."""
    groups_seen: set[str] = msgspec.field(default_factory=set)
    _found: dict[str, Network] = msgspec.field(default_factory=dict)
    _shared: dict[str, bool] = msgspec.field(default_factory=dict)
    _subnets: dict[str, list[Subnet]] = msgspec.field(default_factory=dict)

    def in_sight(self, network_id: str) -> Network:
        """404 for one that the caller does not see."""
        if network_id not in self._found:
            self._found[network_id] = resource.find_in_sight(self.call, NETWORKS, network_id)
            self._shared[network_id] = sharing.with_caller(self.call, network_id)
        return self._found[network_id]

    def facts(self, network_id: str) -> View:
        """Policy facts of whatever is made on the network."""
        network = self.in_sight(network_id)
        return {
            "network:project_id": network.project_id,
            "shared": self._shared[network_id],
            "router:external": network.external,
        }

    def subnets_of(self, network_id: str) -> list[Subnet]:
        """All of its subnets, as they were when this was asked first."""
        if network_id not in self._subnets:
            self._subnets[network_id] = addresses.subnets_of(self.call.tx, network_id)
        return self._subnets[network_id]
