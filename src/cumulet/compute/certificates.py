"""How many days the cloud's certificates have left, for `/metrics`."""

from __future__ import annotations

from collections.abc import Sequence

from cumulet.compute.service import COMPUTE
from cumulet.web.context import Cloud
from cumulet.web.metrics import Counts


async def counts(cloud: Cloud) -> Sequence[Counts]:
    """A line for each."""
    return (
        Counts(
            name="cumulet_certificate_days_left",
            words="Whole days until a certificate of the cloud ends.",
            labels=("certificate",),
            values={(one.name,): one.days_left for one in cloud.certificates()},
            falls=True,
        ),
    )


COMPUTE.counts.append(counts)
