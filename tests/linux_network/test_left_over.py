"""Namespaces that a killed test run has left are removed; those of running test runs stay."""

from __future__ import annotations

import os
import subprocess

from cumulet.drivers.linux_network import namespaces
from tests.left_over import remove_left_over
from tests.linux_network.lab import needs_packets

pytestmark = needs_packets


def test_namespaces_of_processes_that_have_ended_are_removed_and_no_others() -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    gone, kept = (f"cumulet-test-{number}-9-left" for number in (ended.pid, os.getpid()))
    try:
        for name in (gone, kept):
            namespaces.make(name)
        remove_left_over.cache_clear()
        remove_left_over()
        assert namespaces.named("cumulet-test-") & {gone, kept} == {kept}
    finally:
        for name in (gone, kept):
            namespaces.remove(name)
