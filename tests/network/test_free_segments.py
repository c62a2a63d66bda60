"""Which segment a new network gets, whatever networks and ranges there are."""

from __future__ import annotations

from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cumulet.clock import SystemClock
from cumulet.db import schema
from cumulet.db.engine import Database, Tx
from cumulet.errors import Conflict
from cumulet.network import free_segments, topology
from cumulet.network.segment_range_records import SegmentRange
from cumulet.network.store import Network, delete, find, insert

CLOCK = SystemClock()
HIGHEST = 12
RANGES: dict[str, list[int]] = {"a": [3, 4], "b": [6, 7, 8], "": [10, 11]}
"""By project; the shared one is nobody's."""


def make_ranges(tx: Tx) -> None:
    for project_id, inside in RANGES.items():
        values: dict[str, object] = {"name": "", "network_type": "vxlan", "physical_network": None}
        limits = {"minimum": inside[0], "maximum": inside[-1]}
        insert(tx, SegmentRange, CLOCK, project_id=project_id, shared=not project_id, **values, **limits)


def add(tx: Tx, project_id: str, number: int | None = None) -> Network:
    return topology.add_network(tx, CLOCK, project_id=project_id, name="n", wire_mtu=1500, segmentation_id=number)


def allowed(project_id: str, free: set[int]) -> set[int]:
    """The numbers from which a new network of this project may get one."""
    outside = set(range(1, HIGHEST + 1)).difference(*RANGES.values())
    choices = (set(RANGES.get(project_id, [])) & free, set(RANGES[""]) & free, outside & free)
    return next((numbers for numbers in choices if numbers), set())


STEPS = st.one_of(st.sampled_from(["a", "b", "c"]), st.integers(1, HIGHEST), st.integers(-HIGHEST, -1))


@settings(max_examples=100, deadline=None)
@given(steps=st.lists(STEPS, max_size=30))
def test_it_is_a_free_one_of_the_projects_range_else_of_a_shared_one_else_outside(steps: list[str | int]) -> None:
    """A step: a network of a project; one with a number that an administrator names; or, below 0, one less."""
    database = Database("sqlite://", inline=True)
    schema.prepare(database)
    with mock.patch.dict(free_segments.HIGHEST, vxlan=HIGHEST):
        try:
            database.write(make_ranges)
            for step in steps:
                present = {one.segmentation_id: one for one in database.read(lambda tx: find(tx, Network))}
                free = set(range(1, HIGHEST + 1)) - present.keys()
                if isinstance(step, int):
                    if step < 0 and -step in present:
                        gone = present[-step].id
                        database.write(lambda tx, gone=gone: delete(tx, Network, gone))  # type: ignore[misc]
                    elif step in free:
                        database.write(lambda tx, step=step: add(tx, "c", step))  # type: ignore[misc]
                elif expected := allowed(step, free):
                    made = database.write(lambda tx, step=step: add(tx, step))  # type: ignore[misc]
                    assert made.segmentation_id in expected
                else:
                    with pytest.raises(Conflict, match="No tenant network is available"):
                        database.write(lambda tx, step=step: add(tx, step))  # type: ignore[misc]
        finally:
            database.close()


def test_a_number_that_was_used_lately_is_not_the_next_one_while_there_are_others() -> None:
    database = Database("sqlite://", inline=True)
    schema.prepare(database)
    try:
        first, second = (database.write(lambda tx: add(tx, "a")) for _ in range(2))
        database.write(lambda tx: delete(tx, Network, first.id))
        third = database.write(lambda tx: add(tx, "a"))
        assert [one.segmentation_id for one in (first, second, third)] == [1, 2, 3]
    finally:
        database.close()


def test_where_all_are_in_use_there_is_none() -> None:
    database = Database("sqlite://", inline=True)
    schema.prepare(database)
    with mock.patch.dict(free_segments.HIGHEST, vxlan=2):
        for _ in range(2):
            database.write(lambda tx: add(tx, "c"))
        with pytest.raises(Conflict, match="No tenant network is available"):
            database.write(lambda tx: add(tx, "c"))
    database.close()
