"""What Network brings to a process."""

from __future__ import annotations

from cumulet.network import bootstrap
from cumulet.network.service import NETWORK
from cumulet.part import CatalogEntry, FirstStart, Part, declare_all

declare_all("cumulet.network")


def _seed(start: FirstStart) -> None:
    """The external network `public`; in project demo the network `private` with a router."""
    bootstrap.seed(
        start.db,
        start.clock,
        admin_project_id=start.projects["admin"],
        demo_project_id=start.projects["demo"],
        wire_mtu=start.settings.global_physnet_mtu,
    )


NETWORK_PART = Part(service=NETWORK, catalog=CatalogEntry(name="neutron", path="/network"), seed=_seed)
