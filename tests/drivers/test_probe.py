"""What is started to find out what QEMU can do ends with whoever wanted to know."""

from __future__ import annotations

import asyncio
import os
import select
import subprocess
import sys
from pathlib import Path

from cumulet.drivers.qemu.process import identify, wait_for_end

ASKS = """
import asyncio, sys
from cumulet.drivers.qemu import facts
told = sys.argv[1]
asyncio.run(facts._run(["sh", "-c", f"echo $$ > {told}; exec sleep 600"], b"", timeout_s=500))
"""
PATIENCE_SECONDS = 60.0


def test_a_question_ends_with_the_process_that_asked(tmp_path: Path) -> None:
    """An agent was killed while it asked, and a QEMU that nobody knew stayed for ever."""
    told = tmp_path / "told"
    os.mkfifo(told)
    with open(told, "r+b", buffering=0) as asked_tells:  # To read and write: it does not wait for the other end.
        asking = subprocess.Popen([sys.executable, "-c", ASKS, str(told)])
        try:
            ready, _, _ = select.select([asked_tells], [], [], PATIENCE_SECONDS)
            assert ready, "nothing was asked"
            asked = identify(int(asked_tells.read(100)))
            assert asked is not None
        finally:
            asking.kill()
            asking.wait()
    assert asyncio.run(wait_for_end(asked, PATIENCE_SECONDS)), "it lives on"
