"""A short piece of `make long-test`: all ten hours of virtual time, and none of real time."""

from __future__ import annotations

from pathlib import Path

from tests.testing import long_run


def test_an_outside_project_passes_and_leaves_nothing(tmp_path: Path) -> None:
    project = long_run.copied(tmp_path)
    assert long_run.types_of(project) == ""
    failed, noted = long_run.run(project, tests=66, seconds=0, virtual_seconds=36_000)
    assert failed == ""
    assert long_run.wrong_with(noted, project / "tmp") == []
