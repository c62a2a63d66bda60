"""Run as a plain user by `test_confinement.py`: a guest comes up and is destroyed."""

from __future__ import annotations

import asyncio
import sys
import uuid
from pathlib import Path

from cumulet.drivers.qemu.driver import QemuDriver
from cumulet.host.driver import Guest, GuestState
from cumulet.testing.image_files import ImageFiles


async def main(state: Path) -> None:
    driver = await QemuDriver.open(name="plain", state=state, images=ImageFiles())
    guest = await driver.create(
        Guest(server_id=str(uuid.uuid4()), name="plain", vcpus=1, memory_mib=64, disk_gib=1, image=None)
    )
    try:
        assert await driver.observe(guest.server_id) is GuestState.RUNNING
        process = next((state / "guests").glob("*/process.json")).read_text()
        pid = int(process.split('"pid": ')[1].split(",")[0])
        status = Path(f"/proc/{pid}/status").read_text()
        assert "NoNewPrivs:\t1" in status
        assert "Seccomp:\t2" in status
        uid = status.split("Uid:\t")[1].split()[0]
        print(f"uid {uid} running")
    finally:
        await driver.destroy(guest.server_id)
        await driver.close()


asyncio.run(main(Path(sys.argv[1])))
