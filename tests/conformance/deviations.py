"""Where Cumulet answers otherwise than Nova and means to. An entry that explains nothing fails the test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Deviation:
    """`cases`: ids, with wildcards. `status`: what Cumulet answers instead; None where the status is Nova's and only
    the differences that contain `line` are meant."""

    cases: str
    reason: str
    status: int | None = None
    line: str | None = None

    def covers(self, status: int, lines: tuple[str, ...]) -> bool:
        if self.status is not None:
            return status == self.status
        return self.line is not None and all(self.line in line for line in lines)


DEVIATIONS: Final[tuple[Deviation, ...]] = ()
