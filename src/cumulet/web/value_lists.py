"""Several values in one parameter of a query: ``tags=red,blue``."""

from __future__ import annotations

from cumulet.errors import BadRequest

MOST_VALUES = 512
"""Values that one parameter names. The services of OpenStack know no such number: their servers take no longer URLs."""


def values_in(text: str, name: str) -> list[str]:
    """The values of the parameter `name`. 400 for too many."""
    values = text.split(",")
    require_few(values, name)
    return values


def require_few(values: list[str], name: str) -> None:
    """400 for too many values of the parameter `name`."""
    if len(values) > MOST_VALUES:
        raise BadRequest(f"Invalid input for query parameter {name}: it has more than {MOST_VALUES} values.")
