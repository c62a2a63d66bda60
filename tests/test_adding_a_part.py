"""A service with a saga and a verb comes from its own folder alone; the pages that say how show its code."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs").glob("adding-*.md"))
CODE = [*(ROOT / "tests" / "bells").glob("*.py"), *(ROOT / "src" / "cumulet").rglob("*.py")]
SCREEN_LINES = 50


def test_a_service_with_a_saga_and_a_verb_is_a_folder_of_its_own() -> None:
    """In a process of its own: what it declares is known to nobody else."""
    told = subprocess.run(
        [sys.executable, "-m", "tests.bells.story"], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert (told.stdout, told.returncode) == ("rung\n", 0), told.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_about_adding_fits_one_screen_and_shows_the_code_itself(page: Path) -> None:
    lines = page.read_text().splitlines()
    assert len(lines) <= SCREEN_LINES
    assert max(map(len, lines)) <= 140
    source = "\n".join(path.read_text() for path in CODE)
    excerpts = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    assert excerpts
    assert [excerpt for excerpt in excerpts if excerpt not in source] == []
