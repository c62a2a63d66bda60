"""What hosts have dropped of guests' packets, by cause, and what their routers have passed, by metering label: for
`/metrics` and `cumulet status`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from cumulet.compute import hosts as host_records
from cumulet.compute.operations_status import LIST
from cumulet.compute.service import COMPUTE
from cumulet.host.messages import HostError
from cumulet.host.traffic import AskTraffic, Traffic
from cumulet.web.context import Cloud
from cumulet.web.metrics import Counts
from cumulet.web.operation import Call, Rule

SECONDS = 2.0
"""How long one host is waited for."""
MOST_AT_ONCE = 50
"""Hosts that are asked at the same time."""


async def traffic(cloud: Cloud) -> Mapping[str, Traffic | None]:
    """Of each host that wires guests and is up, what it has counted; None where it does not answer."""
    names = await cloud.db.read_async(lambda tx: host_records.offering(tx, "networks"))
    turns = asyncio.Semaphore(MOST_AT_ONCE)

    async def ask(name: str) -> Traffic | None:
        async with turns:
            try:
                return await cloud.hosts.send(name, AskTraffic(), seconds=SECONDS)
            except HostError:
                return None

    return dict(zip(names, await asyncio.gather(*map(ask, names)), strict=True))


async def counts(cloud: Cloud) -> Sequence[Counts]:
    """For `/metrics`: a line for each host and cause, and for each host and metering label."""
    found = {host: counted for host, counted in (await traffic(cloud)).items() if counted is not None}
    metered = {(host, label): one for host, counted in found.items() for label, one in counted.metered.items()}
    return (
        Counts(
            name="cumulet_dropped_packets",
            words="Packets of guests that rules have dropped, by cause, since their host was set up.",
            labels=("host", "cause"),
            values={
                (host, cause): number for host, counted in found.items() for cause, number in counted.dropped.items()
            },
        ),
        Counts(
            name="cumulet_metered_packets",
            words="Packets that routers on a host have passed, by metering label.",
            labels=("host", "label"),
            values={place: one.packets for place, one in metered.items()},
        ),
        Counts(
            name="cumulet_metered_bytes",
            words="Bytes that routers on a host have passed, by metering label.",
            labels=("host", "label"),
            values={place: one.bytes for place, one in metered.items()},
        ),
    )


COMPUTE.counts.append(counts)


@COMPUTE.operation("GET", "/cumulet/dropped-packets", rules=(Rule(LIST),))
async def list_dropped_packets(call: Call[None, None]) -> dict[str, object]:
    """List the packets that rules of each host have dropped, by cause; `dropped` is null where it does not answer."""
    found = await traffic(call.cloud)
    return {
        "hosts": [
            {"host": host, "dropped": None if counted is None else counted.dropped} for host, counted in found.items()
        ]
    }
