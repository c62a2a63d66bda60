"""The Network service in the registry. The modules of `network` declare their operations on `NETWORK`."""

from __future__ import annotations

from pathlib import Path

from cumulet.network import revisions
from cumulet.network.dialect import NetworkDialect
from cumulet.web.operation import Microversion, Service

NETWORK = Service(
    name="network",
    type="network",
    prefix="/network/v2.0",
    versions=(Microversion(2, 0), Microversion(2, 0)),
    dialect=NetworkDialect(),
    gaps=Path(__file__).with_name("gaps.txt"),
    precondition=revisions.require,
)
