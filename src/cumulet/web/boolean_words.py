"""Words for true and false, as oslo.utils reads them (`strutils.bool_from_string`)."""

from __future__ import annotations

TRUE = frozenset({"1", "t", "true", "on", "y", "yes"})
FALSE = frozenset({"0", "f", "false", "off", "n", "no"})


def boolean(text: str) -> bool | None:
    """What a word says, in any case; None: it is none of them."""
    word = text.strip().lower()
    return True if word in TRUE else False if word in FALSE else None
