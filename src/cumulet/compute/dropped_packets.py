"""What hosts have dropped of guests' packets, by cause, for `/metrics` and `cumulet status`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from cumulet.compute import hosts as host_records
from cumulet.compute.operations_status import LIST
from cumulet.compute.service import COMPUTE
from cumulet.host.messages import HostError
from cumulet.host.traffic import AskTraffic
from cumulet.web.context import Cloud
from cumulet.web.metrics import Counts
from cumulet.web.operation import Call, Rule

SECONDS = 2.0
"""How long one host is waited for."""
MOST_AT_ONCE = 50
"""Hosts that are asked at the same time."""


async def dropped(cloud: Cloud) -> Mapping[str, Mapping[str, int] | None]:
    """Of each host that wires guests and is up, packets by cause; None where it does not answer."""
    names = await cloud.db.read_async(lambda tx: host_records.offering(tx, "networks"))
    turns = asyncio.Semaphore(MOST_AT_ONCE)

    async def ask(name: str) -> Mapping[str, int] | None:
        async with turns:
            try:
                return (await cloud.hosts.send(name, AskTraffic(), seconds=SECONDS)).dropped
            except HostError:
                return None

    return dict(zip(names, await asyncio.gather(*map(ask, names)), strict=True))


async def counts(cloud: Cloud) -> Counts:
    """For `/metrics`: a line for each host and cause."""
    found = await dropped(cloud)
    return Counts(
        name="cumulet_dropped_packets",
        words="Packets of guests that rules have dropped, by cause, since their host was set up.",
        labels=("host", "cause"),
        values={
            (host, cause): number
            for host, causes in found.items()
            if causes is not None
            for cause, number in causes.items()
        },
    )


COMPUTE.counts.append(counts)


@COMPUTE.operation("GET", "/cumulet/dropped-packets", rules=(Rule(LIST),))
async def list_dropped_packets(call: Call[None, None]) -> dict[str, object]:
    """List the packets that rules of each host have dropped, by cause; `dropped` is null where it does not answer."""
    found = await dropped(call.cloud)
    return {"hosts": [{"host": host, "dropped": causes} for host, causes in found.items()]}
