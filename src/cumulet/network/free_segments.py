"""Which segment a new network gets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import count

import sqlalchemy as sa

from cumulet.db.engine import Tx
from cumulet.errors import Conflict
from cumulet.network.segment_range_records import SegmentRange, network_segment_ranges
from cumulet.network.store import SEGMENTS, find

Column = sa.ColumnElement[str]
HIGHEST = {"vxlan": 16_777_215, "geneve": 16_777_215, "vlan": 4094}
"""The highest number of a segment, by type of network. The lowest is 1."""


def free_segment(tx: Tx, *, project_id: str, network_type: str, physical_network: str | None) -> int:
    """The number of a new network's segment: from the project's own ranges, else from shared ones, else outside of all.

    As upstream, nobody else gets one of a project's range unless an administrator names it. Outside of all ranges is
    where upstream has a default range. 409 where none is free.
    """
    found = find(tx, SegmentRange, like(network_segment_ranges, network_type, physical_network))
    ranges = sorted(found, key=lambda one: one.minimum)
    own = [(one.minimum, one.maximum) for one in ranges if not one.shared and one.project_id == project_id]
    for_all = [(one.minimum, one.maximum) for one in ranges if one.shared]
    outside = _between([(one.minimum, one.maximum) for one in ranges], HIGHEST[network_type])
    for low, high in (*own, *for_all, *outside):
        number = _free_in(tx, like(SEGMENTS, network_type, physical_network), low, high)
        if number is not None:
            return number
    raise Conflict(
        "Unable to create the network. No tenant network is available for allocation.", reason="NoNetworkAvailable"
    )


def like(
    table: sa.FromClause, network_type: str | Column, physical_network: str | Column | None
) -> sa.ColumnElement[bool]:
    """Segments, or ranges of them, whose numbers are of the same kind; which kind may stand in columns."""
    same_place = table.c.physical_network.is_not_distinct_from(physical_network)
    return sa.and_(table.c.network_type == network_type, same_place)


def _between(taken: Iterable[tuple[int, int]], highest: int) -> Iterator[tuple[int, int]]:
    """What is left of 1 through `highest` outside of ranges that are in order."""
    next_one = 1
    for low, high in taken:
        if next_one < low:
            yield next_one, low - 1
        next_one = high + 1
    if next_one <= highest:
        yield next_one, highest


def _free_in(tx: Tx, of_kind: sa.ColumnElement[bool], low: int, high: int) -> int | None:
    """The number after the highest one in use, for a number that was used lately may still be in use on a host; else
    the lowest free one."""
    number = SEGMENTS.c.segmentation_id
    here = sa.and_(of_kind, number.between(low, high))
    highest = tx.scalar(sa.select(sa.func.max(number)).where(here))
    if highest is None:
        return low
    if int(highest) < high:
        return int(highest) + 1
    used = (row[0] for row in tx.all(sa.select(number).where(here).distinct().order_by(number)))
    return next((wanted for wanted, present in zip(count(low), used, strict=False) if wanted != present), None)
