"""What an administrator may allow on a machine, for post-copy: unprivileged processes that use userfaultfd(2)."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

SETTING = Path("/proc/sys/vm/unprivileged_userfaultfd")


@contextmanager
def allowed(*, alone: bool = False) -> Iterator[None]:
    """The setting is 1, and as it was before afterwards. It is the whole machine's, and tests run side by side:

    whoever has changed it puts it back once nobody else needs it. `alone`: nobody else does, so that it may be changed.
    """
    with open(SETTING) as setting:
        fcntl.flock(setting, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        before = SETTING.read_text()
        if before.strip() != "1" and os.geteuid() != 0:
            pytest.skip("vm.unprivileged_userfaultfd is 0, and only root could change it")
        if before.strip() != "1":
            SETTING.write_text("1")
        try:
            yield
        finally:
            if before.strip() != "1":
                fcntl.flock(setting, fcntl.LOCK_EX)
                SETTING.write_text(before)
