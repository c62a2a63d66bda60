"""One cloud for each module of refusals."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import cumulet.testing

from .table import Scene


@pytest.fixture(scope="module")
def scene(request: pytest.FixtureRequest) -> Iterator[Scene]:
    """A new cloud. If the module has a function `prepare`, it makes what its refusals need."""
    with cumulet.testing.cloud(hosts=2) as cloud:
        made = Scene(cloud)
        getattr(request.module, "prepare", lambda _: None)(made)
        yield made
