"""The pytest plugin of the package: one cloud for the session, reset after every test, and its personas."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from cumulet.testing import Client, TestCloud


@pytest.fixture(scope="session")
def session_cloud() -> Iterator[TestCloud]:
    """One cloud with two simulated hosts for the whole session; tests use `cloud`."""
    import cumulet.testing

    with cumulet.testing.cloud(hosts=2) as running:
        running.keep("admin", "manager", "member", "reader", "other_member")
        yield running


@pytest.fixture
def cloud(session_cloud: TestCloud) -> Iterator[TestCloud]:
    """The session's cloud as if just started."""
    yield session_cloud
    session_cloud.reset()


@pytest.fixture
def admin(cloud: TestCloud) -> Client:
    return cloud.persona("admin")


@pytest.fixture
def manager(cloud: TestCloud) -> Client:
    return cloud.persona("manager")


@pytest.fixture
def member(cloud: TestCloud) -> Client:
    return cloud.persona("member")


@pytest.fixture
def reader(cloud: TestCloud) -> Client:
    return cloud.persona("reader")


@pytest.fixture
def other_member(cloud: TestCloud) -> Client:
    return cloud.persona("other_member")
