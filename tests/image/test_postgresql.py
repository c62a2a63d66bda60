"""The stories whose SQL is more than a look-up, told again over PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from cumulet.db.engine import metadata, opened
from cumulet.settings import Settings
from tests.identity.test_postgresql import database_url

from . import test_builtin, test_images, test_left_data, test_listing, test_members, test_metadefs, test_upload
from .conftest import TABLES, World, make_world

__all__ = ["database_url"]
pytestmark = pytest.mark.postgres

STORIES: tuple[Callable[[World], None], ...] = (
    test_images.test_a_new_image_has_glances_shape,
    test_images.test_an_id_is_given_out_once_for_ever,
    test_images.test_attributes_and_properties_are_changed,
    test_listing.test_images_are_filtered,
    test_listing.test_images_are_sorted_and_paged,
    test_listing.test_community_images_of_others_show_only_when_asked_for,
    test_images.test_tags_one_by_one,
    test_images.test_compute_boots_what_the_caller_sees_and_what_is_active,
    test_members.test_an_image_is_shared_and_accepted,
    test_members.test_a_member_sees_only_itself_among_the_members,
    test_upload.test_an_uploaded_image_becomes_active_with_size_and_hashes,
    test_upload.test_a_second_upload_at_the_same_time_is_refused,
    test_left_data.test_the_upload_of_a_process_that_was_killed_ends_and_its_image_takes_data_again,
    test_metadefs.test_a_namespace_is_made_with_all_it_holds_and_shown_so,
    test_metadefs.test_what_a_namespace_holds_is_changed_in_place_and_deleted,
    test_metadefs.test_tags_take_the_place_of_those_there_are_or_stand_beside_them,
    test_metadefs.test_namespaces_are_listed_in_pages_sorted_and_by_type,
    test_metadefs.test_names_that_are_taken_are_not_given_again,
    test_metadefs.test_namespaces_are_listed_in_pages_by_every_key,
    test_builtin.test_a_placeholder_stands_in_where_there_is_no_file,
)


@pytest.fixture
def postgresql_world(database_url: str, settings: Settings) -> Iterator[World]:
    with opened(database_url) as db:
        metadata.create_all(db.engine, tables=TABLES)
        yield make_world(db, settings)
        metadata.drop_all(db.engine, tables=TABLES)


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.__name__.removeprefix("test_"))
def test_on_postgresql(story: Callable[[World], None], postgresql_world: World) -> None:
    story(postgresql_world)
