"""Compute's stories with SQL of their own, told again by a cloud over PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import cumulet.testing
from cumulet.testing import TestCloud
from tests.api.test_compute_actions import server_id, test_what_was_asked_is_on_record
from tests.api.test_compute_flavors import (
    test_a_private_flavor_is_seen_by_projects_that_were_given_it,
    test_lists_are_filtered_sorted_and_paged,
)
from tests.api.test_compute_operators import (
    test_a_projects_quota_is_set_and_reset,
    test_an_aggregate_makes_a_zone,
    test_hypervisors_count_their_servers,
    test_limits_say_what_is_used,
    test_use_is_counted_by_the_hour,
)
from tests.api.test_compute_servers import (
    test_a_pin_to_a_zone_is_set_to_where_the_server_is_and_taken_away,
    test_a_server_on_a_network_has_its_address_and_security_group,
    test_deleted_servers_are_listed_to_who_asks_for_changes,
    test_lists_are_filtered_by_what_was_asked,
    test_metadata_and_tags_are_changed_piece_by_piece,
    test_pages_lead_through_all_servers_once,
    test_servers_of_an_anti_affine_group_do_not_share_a_host,
)
from tests.api.test_live_metadata import (
    test_a_clock_that_was_set_back_keeps_nothing_from_being_told,
    test_a_password_that_the_guest_posts_is_shown_until_it_is_cleared,
    test_name_host_name_and_items_are_told_while_the_guest_runs_and_the_drive_stays,
)
from tests.api.test_places import test_a_resize_under_way_or_unconfirmed_counts_with_the_larger_of_its_flavors
from tests.api.test_promises import (
    promising,
    test_aggregates_choose_the_host,
    test_custom_resources_are_claimed,
    test_traits_choose_the_host_in_boots_and_moves,
)
from tests.identity.test_postgresql import database_url

__all__ = [
    "database_url",
    "promising",
    "server_id",
    "test_a_clock_that_was_set_back_keeps_nothing_from_being_told",
    "test_a_password_that_the_guest_posts_is_shown_until_it_is_cleared",
    "test_a_pin_to_a_zone_is_set_to_where_the_server_is_and_taken_away",
    "test_a_private_flavor_is_seen_by_projects_that_were_given_it",
    "test_a_projects_quota_is_set_and_reset",
    "test_a_resize_under_way_or_unconfirmed_counts_with_the_larger_of_its_flavors",
    "test_a_server_on_a_network_has_its_address_and_security_group",
    "test_aggregates_choose_the_host",
    "test_an_aggregate_makes_a_zone",
    "test_custom_resources_are_claimed",
    "test_deleted_servers_are_listed_to_who_asks_for_changes",
    "test_hypervisors_count_their_servers",
    "test_limits_say_what_is_used",
    "test_lists_are_filtered_by_what_was_asked",
    "test_lists_are_filtered_sorted_and_paged",
    "test_metadata_and_tags_are_changed_piece_by_piece",
    "test_name_host_name_and_items_are_told_while_the_guest_runs_and_the_drive_stays",
    "test_pages_lead_through_all_servers_once",
    "test_servers_of_an_anti_affine_group_do_not_share_a_host",
    "test_traits_choose_the_host_in_boots_and_moves",
    "test_use_is_counted_by_the_hour",
    "test_what_was_asked_is_on_record",
]
pytestmark = pytest.mark.postgres


@pytest.fixture(scope="module")
def session_cloud(database_url: str) -> Iterator[TestCloud]:
    """In the place of the session's cloud: one over PostgreSQL."""
    with cumulet.testing.cloud(hosts=2, database_url=database_url) as running:
        running.keep("admin", "manager", "member", "reader", "other_member")
        yield running
