"""What a real guest has used: its numbers grow while it works, and nobody has any once it has ended."""

from __future__ import annotations

import asyncio

import pytest

from cumulet.host.driver import DriverError

from .conftest import Rig, runs_on, until


def test_they_grow_while_it_runs_and_writes(rig: Rig) -> None:
    async def story() -> None:
        driver = await rig.resumed()
        await runs_on(driver, rig.id)
        before = await driver.diagnostics(rig.id)
        assert len(before.cpu_times_ns) == rig.guest.vcpus
        assert len(before.disks) == 2, "its own, and the config drive"
        assert before.resident_kib is not None
        assert 0 < before.resident_kib < 1024 * 1024

        async def more() -> bool:
            now = await driver.diagnostics(rig.id)
            first, then = before.disks[0], now.disks[0]
            assert then.errors == first.errors == 0
            assert now.disks[1].write_bytes == 0, "a config drive is read-only"
            worked = now.cpu_times_ns[0] > before.cpu_times_ns[0]
            return worked and then.write_bytes > first.write_bytes and then.write_requests > first.write_requests

        await until(more, "it works and writes")
        await driver.stop(rig.id, grace_seconds=0.0)
        with pytest.raises(DriverError, match="NOT_RUNNING"):
            await driver.diagnostics(rig.id)
        await driver.close()

    asyncio.run(story())
