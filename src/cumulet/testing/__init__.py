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

from cumulet.testing.client import Answer, Client
from cumulet.testing.running import Faults, TestCloud, cloud

__all__ = ["Answer", "Client", "Faults", "TestCloud", "cloud"]
