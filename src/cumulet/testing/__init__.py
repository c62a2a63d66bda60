"""Test your OpenStack tools against real refusals: a whole cloud in this process, in a second, for a test or a suite.

    import cumulet.testing

    with cumulet.testing.cloud(hosts=2) as cloud:
        connection = cloud.connection("demo")            # an openstacksdk Connection
        cloud.faults.fail("live-migration", step="copy_memory")
        cloud.clock.advance(seconds=60)
        cloud.reset()

It is the same program as `cumulet up` with simulated hosts: real identity, real policy, real TLS, random passwords, its
own CA, nothing shared with another one. Installed, it is a pytest plugin too: fixtures `cloud`, `admin`, `manager`,
`member`, `reader`, `other_member`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cumulet.testing.client import Answer, Client
from cumulet.testing.running import Faults, TestCloud, cloud

if TYPE_CHECKING:
    from cumulet.testing.fixtures import NeutronFixture, OpenStackApiException, OSAPIFixture, PolicyFixture

__all__ = [
    "Answer", "Client", "Faults", "NeutronFixture", "OSAPIFixture", "OpenStackApiException", "PolicyFixture",
    "TestCloud", "cloud",
]  # fmt: skip

_FIXTURES = ("NeutronFixture", "OSAPIFixture", "OpenStackApiException", "PolicyFixture")


def __getattr__(name: str) -> Any:
    """The fixtures need the package `fixtures`, which not everybody has (``pip install cumulet[testing]``)."""
    if name in _FIXTURES:
        from cumulet.testing import fixtures

        return getattr(fixtures, name)
    raise AttributeError(name)
