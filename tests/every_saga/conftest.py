"""What the tests of sagas share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .stage import Stage


@pytest.fixture(scope="module")
def stages() -> Iterator[list[Stage]]:
    """The clouds that a module's tests have started, to be used by the next case; all end with the module."""
    made: list[Stage] = []
    yield made
    for stage in made:
        stage.end()
