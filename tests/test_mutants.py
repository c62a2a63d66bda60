"""`make mutants` finds what its table names."""

from __future__ import annotations

import importlib.util
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_every_module_and_every_test_of_the_table_is_there() -> None:
    found = importlib.util.spec_from_file_location("mutants", ROOT / "scripts" / "mutants.py")
    assert found is not None
    assert found.loader is not None
    mutants = importlib.util.module_from_spec(found)
    found.loader.exec_module(mutants)
    for name, part in mutants.PARTS.items():
        wanted = [*(ROOT / "src" / "cumulet" / module for module in part.modules), *(ROOT / one for one in part.tests)]
        assert [path for path in wanted if not path.exists()] == [], name
