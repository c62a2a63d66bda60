"""Long lists of ids, in lengths that every database takes in one IN list."""

from __future__ import annotations

from collections.abc import Sequence


def in_parts(ids: Sequence[str], size: int = 1000) -> list[Sequence[str]]:
    return [ids[start : start + size] for start in range(0, len(ids), size)]
