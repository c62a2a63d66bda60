"""Times that callers ask for, as queries name them."""

from __future__ import annotations

from cumulet.clock import us_of
from cumulet.errors import BadRequest


def moment_us(text: str) -> int:
    """An ISO 8601 time, UTC where it names no zone; its format was checked with the query."""
    try:
        return us_of(text)
    except ValueError:
        raise BadRequest(f"Invalid time: {text}") from None


def end_of_second_us(moment_us: int) -> int:
    """The end of the second of a moment: times are shown without fractions, and what is shown is found by it."""
    return (moment_us // 1_000_000 + 1) * 1_000_000
