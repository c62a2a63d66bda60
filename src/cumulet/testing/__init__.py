"""Test your OpenStack tools against real refusals: a whole cloud in this process, in a second, for a test or a suite.

    import cumulet.testing

    with cumulet.testing.cloud(hosts=2) as cloud:
        connection = cloud.connection("demo")            # an openstacksdk Connection
        cloud.faults.fail("live-migration", step="copy_memory")
        cloud.clock.advance(seconds=60)
        assert cloud.network.reachable(one, two, "tcp", 22)   # ids of ports; false says why, and where
        cloud.reset()

It is the same program as `cumulet up` with simulated hosts: real identity, real policy, real TLS, random passwords, its
own CA, nothing shared with another one. Installed, it is a pytest plugin too: fixtures `cloud`, `admin`, `manager`,
`member`, `reader`, `other_member`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cumulet.testing.client import Answer, Client, JsonObject
    from cumulet.testing.clock import AdvanceableClock
    from cumulet.testing.faults import Faults
    from cumulet.testing.fixtures import NeutronFixture, OpenStackApiException, OSAPIFixture, PolicyFixture
    from cumulet.testing.running import TestCloud, cloud

__all__ = [
    "AdvanceableClock",
    "Answer",
    "Client",
    "Faults",
    "JsonObject",
    "NeutronFixture",
    "OSAPIFixture",
    "OpenStackApiException",
    "PolicyFixture",
    "TestCloud",
    "cloud",
]

_MODULES = {
    "AdvanceableClock": "clock",
    "Answer": "client",
    "Client": "client",
    "Faults": "faults",
    "JsonObject": "client",
    "NeutronFixture": "fixtures",
    "OSAPIFixture": "fixtures",
    "OpenStackApiException": "fixtures",
    "PolicyFixture": "fixtures",
    "TestCloud": "running",
    "cloud": "running",
}


def __getattr__(name: str) -> Any:
    """Import at the first use: pytest loads this package in every run, and few runs use a cloud.

    The fixtures need the package `fixtures`, which is optional (``pip install cumulet[testing]``).
    """
    module = _MODULES.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{module}"), name)
