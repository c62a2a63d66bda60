"""The commands of docs/clients.md are run against a cloud."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.test_readme import PROGRAMS

from .conftest import Up

PAGE = (Path(__file__).parents[2] / "docs" / "clients.md").read_text()
BLOCKS = re.findall(r"```(sh|python)\n(.*?)```", PAGE, re.DOTALL)
(ENV, *TRIED) = BLOCKS


def test_the_page_has_blocks_to_try() -> None:
    assert len(TRIED) >= 3
    assert "cumulet env" in ENV[1]


@pytest.mark.parametrize(("language", "text"), TRIED)
def test_it_works_as_it_stands_on_the_page(running: Up, tmp_path: Path, language: str, text: str) -> None:
    script = tmp_path / "block"
    script.write_text(text)
    run = f"{sys.executable} {script}" if language == "python" else f". {script}"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OS_")}
    done = subprocess.run(
        ["sh", "-ec", f"{ENV[1]}\n{run}"],
        env=environment
        | {"OS_CLIENT_CONFIG_FILE": str(running.clouds_file), "PATH": f"{PROGRAMS}:{os.environ['PATH']}"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "create" not in text or "ACTIVE" in done.stdout
