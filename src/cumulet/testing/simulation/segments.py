"""Segments of networks: no two networks share one, and each is of a range that its project may use."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

OPERATORS = "operators"
"""The project of administrators."""
_KIND = "r.network_type = NEW.network_type AND r.physical_network IS NEW.physical_network"
_HAS = "NEW.segmentation_id BETWEEN r.minimum AND r.maximum"
_ROOM = """r.maximum - r.minimum + 1 > (SELECT count(*) FROM networks n WHERE n.id != NEW.id
AND n.network_type = r.network_type AND n.physical_network IS r.physical_network
AND n.segmentation_id BETWEEN r.minimum AND r.maximum)"""
_OWN = "NOT r.shared AND r.project_id = NEW.project_id"


def _there_is(where: str) -> str:
    return f"(SELECT count(*) FROM network_segment_ranges r WHERE {_KIND} AND {where})"  # noqa: S608 - constants


_NEW_NETWORK = f"""
CREATE TRIGGER simulation_segment AFTER INSERT ON networks WHEN NEW.network_type != 'local' BEGIN SELECT segment_taken(
  NEW.id, NEW.project_id,
  (SELECT count(*) FROM networks r WHERE r.id != NEW.id AND {_KIND} AND r.segmentation_id IS NEW.segmentation_id),
  {_there_is(f"NOT r.shared AND r.project_id != NEW.project_id AND {_HAS}")},
  {_there_is(f"{_OWN} AND {_HAS}")}, {_there_is(f"{_OWN} AND {_ROOM}")},
  {_there_is(f"r.shared AND {_HAS}")}, {_there_is(f"r.shared AND {_ROOM}")});
END
"""  # noqa: S608 - constants
_OVERLAPPING = """
SELECT a.minimum, a.maximum, b.minimum, b.maximum FROM network_segment_ranges a JOIN network_segment_ranges b
ON a.id < b.id AND a.network_type = b.network_type AND a.physical_network IS b.physical_network
AND a.minimum <= b.maximum AND b.minimum <= a.maximum
"""


class Segments:
    """Judges each new network: at its creation, for ranges change later, and networks keep their segments."""

    def __init__(self) -> None:
        self._made: list[tuple[str, str, int, int, int, int, int, int]] = []

    def watch(self, driver: sqlite3.Connection) -> None:
        """Make the trigger that reports new networks."""
        driver.create_function("segment_taken", 8, lambda *made: self._made.append(made))
        driver.execute(_NEW_NETWORK)

    def forget(self) -> None:
        """Begin the next run."""
        self._made.clear()

    def broken(self) -> Iterator[tuple[str, str]]:
        """The kind and the story of each invariant that does not hold."""
        while self._made:
            network_id, project, twice, of_others, of_own, room_in_own, of_all, room_in_all = self._made.pop()
            if twice:
                yield "segment twice", f"network {network_id[:8]} has a segment that another has"
            if project == OPERATORS:  # An administrator may name any.
                continue
            name = f"network {network_id[:8]} of {project}"
            if of_others:
                yield "segment of others", f"{name} has a segment of another project's range"
            if not of_own and room_in_own:
                yield "segment of others", f"{name} has no segment of its project's range, which has room"
            if not of_own and not of_all and room_in_all:
                yield "segment of others", f"{name} has no segment of a shared range, and one has room"


def overlapping(driver: sqlite3.Connection) -> Iterator[str]:
    """At rest: ranges of one kind have no segment in common."""
    for first, last, other_first, other_last in driver.execute(_OVERLAPPING):
        yield f"ranges of segments overlap: {first} to {last}, {other_first} to {other_last}"
