"""A cloud leaves nothing behind in the process that ran it."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

import cumulet.testing
from cumulet.settings import Settings
from cumulet.testing import running

SUITE = """
import cumulet.testing

def test_a_cloud_of_ones_own():
    with cumulet.testing.cloud(hosts=1) as cloud:
        assert cloud.persona("member").compute("GET", "/servers").status == 200

def test_the_shared_one(cloud, member):
    assert member.compute("GET", "/servers").status == 200
"""


def _open_below(folder: Path) -> list[str]:
    """What this process has open there; a socket has no name."""
    found = []
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            target = str(descriptor.readlink())
        except FileNotFoundError:  # the descriptor of this very listing
            continue
        if target.startswith((str(folder), "socket:", "anon_inode:")):
            found.append(target)
    return sorted(found)


def _one_cloud() -> Path:
    with cumulet.testing.cloud(hosts=3) as cloud:
        assert cloud.persona("member").compute("GET", "/servers").status == 200
        folder = cloud.embedded.settings.state_dir
        assert _open_below(folder)
    return folder


def test_no_descriptor_thread_or_file_is_left() -> None:
    _one_cloud()  # What a process keeps for all its clouds, it has from here on.
    before, threads = _open_below(Path("/nowhere")), set(threading.enumerate())
    folder = _one_cloud()
    assert _open_below(folder) == before
    assert [thread.name for thread in set(threading.enumerate()) - threads] == []
    assert not folder.exists()


def test_a_suite_where_warnings_are_errors_passes(tmp_path: Path) -> None:
    (tmp_path / "test_suite.py").write_text(SUITE)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_disks_of_real_guests_fill_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places: dict[str, Path] = {}

    async def start(given: Settings, **_: object) -> None:
        places[given.driver] = given.state_dir.parent
        raise InterruptedError

    monkeypatch.setattr(running, "in_memory", lambda: tmp_path)
    monkeypatch.setattr(running, "start_cloud", start)
    for driver in ("simulated", "qemu"):
        with pytest.raises(InterruptedError), cumulet.testing.cloud(driver=driver):
            pass
    assert places == {"simulated": tmp_path, "qemu": Path(tempfile.gettempdir())}
