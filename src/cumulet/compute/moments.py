"""Times that callers ask for, as queries name them."""

from __future__ import annotations

from datetime import UTC, datetime

from cumulet.errors import BadRequest


def moment_us(text: str) -> int:
    """An ISO 8601 time, UTC where it names no zone; its format was checked with the query."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise BadRequest(f"Invalid time: {text}") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return int(moment.timestamp() * 1_000_000)


def end_of_second_us(moment_us: int) -> int:
    """The end of the second of a moment: times are shown without fractions, and what is shown is found by it."""
    return (moment_us // 1_000_000 + 1) * 1_000_000
