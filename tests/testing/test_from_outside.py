"""The package as other projects meet it: its types, and what it costs those who use no cloud."""

from __future__ import annotations

import subprocess
import sys
from importlib.resources import files
from pathlib import Path

OUTSIDE = """
from cumulet.testing import Answer, Client, Faults, TestCloud
import cumulet.testing

def test_theirs(cloud: TestCloud, member: Client) -> None:
    answer: Answer = member.compute("GET", "/servers")
    reveal_type(answer.status)
    reveal_type(cloud.persona("admin").token)
    reveal_type(cloud.hosts)
    with cumulet.testing.cloud(hosts=2) as own:
        reveal_type(own)
        faults: Faults = own.faults
        faults.fail("boot", step="create_guest")
        own.clock.advance(seconds=1.5)
"""
WRONG = """
import cumulet.testing

with cumulet.testing.cloud(hosts="2") as cloud:
    cloud.clock.advance("60")
"""
LOADED = """
import sys, pytest
before = set(sys.modules)
import cumulet.testing.pytest_plugin
print(*set(sys.modules) - before)
"""


def _mypy(folder: Path, text: str) -> str:
    """As mypy sees an installed package: not through the paths of this project's own configuration."""
    (folder / "theirs.py").write_text(text)
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--config-file=",
        "--cache-dir",
        str(folder / "cache"),
        "theirs.py",
    ]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder).stdout


def test_the_types_are_found_from_outside(tmp_path: Path) -> None:
    assert (files("cumulet") / "py.typed").is_file()
    said = _mypy(tmp_path, OUTSIDE)
    assert "error" not in said, said
    for revealed in ('"int"', '"str | None"', '"tuple[str, ...]"', '"cumulet.testing.running.TestCloud"'):
        assert revealed in said.replace("builtins.", "").replace("Union[str, None]", "str | None"), said
    wrong = _mypy(tmp_path, WRONG)
    assert wrong.count("[arg-type]") == 2, wrong


def test_the_plugin_loads_nothing_but_itself() -> None:
    done = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == {"cumulet", "cumulet.testing", "cumulet.testing.pytest_plugin"}
