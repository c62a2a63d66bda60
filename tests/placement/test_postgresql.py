"""Placement's stories told again over PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cumulet.db.engine import metadata, opened
from tests.identity.test_postgresql import database_url

from . import test_allocations_api, test_api
from .conftest import TABLES, World, make_world

__all__ = ["database_url"]
pytestmark = pytest.mark.postgres

STORIES: tuple[Callable[[World], None], ...] = (
    test_api.test_providers_form_trees,
    test_api.test_providers_are_filtered,
    test_api.test_inventories_carry_the_generation_the_caller_saw,
    test_api.test_what_is_in_use_is_not_removed,
    test_allocations_api.test_a_consumer_takes_shows_changes_and_gives_back,
    test_allocations_api.test_several_consumers_are_changed_all_or_nothing,
    test_allocations_api.test_usage_of_a_project,
    test_allocations_api.test_what_compute_claims_is_what_the_api_shows,
    test_allocations_api.test_candidates_are_ready_to_be_sent_as_allocations,
    test_api.test_traits_come_and_go,
    test_api.test_resource_classes_come_and_go,
    test_api.test_aggregates_of_a_provider,
)


@pytest.fixture
def postgresql_world(database_url: str, tmp_path: Path) -> Iterator[World]:
    with opened(database_url) as db:
        metadata.create_all(db.engine, tables=TABLES)
        yield make_world(db, tmp_path)
        metadata.drop_all(db.engine, tables=TABLES)


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__.removeprefix("test_"))
def test_on_postgresql(story: Callable[[World], None], postgresql_world: World) -> None:
    story(postgresql_world)
