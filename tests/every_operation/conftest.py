"""One cloud for all operations. Their targets are made once, and every request is rolled back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .asking import Stage, staged


@pytest.fixture(scope="package")
def stage() -> Iterator[Stage]:
    with staged() as made:
        yield made
