"""Patterns in list filters, matched in time that grows with the length of pattern and text, whatever they are (RE2).

Nova hands such filters to its database as regular expressions. RE2 has what people write there; what would need
backtracking (``(?=...)``, ``\\1``) it does not have: refused. See `docs/decisions/0015-libraries-or-our-own.md`.
"""

from __future__ import annotations

import re

from cumulet.errors import BadRequest

LONGEST_PATTERN = 1024
"""Characters. What is made of a pattern takes up to some milliseconds."""
META = frozenset("\\^$.|?*+()[]{}")
_MEMORY_BYTES = 128 << 10
"""Of one compiled pattern. A larger one is refused, which bounds what one text costs."""
_PROPERTIES = re.compile(r"(?<!\\)(?:\\\\)*\\[pP]")
"""A class of characters by a property (``\\pL``): RE2 makes hundreds of ranges of it, and neither Nova's databases nor
Python know any."""


class Pattern:
    """A compiled filter; `search` answers whether it occurs in a text."""

    def __init__(self, text: str) -> None:
        """BadRequest for what cannot be matched so."""
        if len(text) > LONGEST_PATTERN:
            raise BadRequest(f"A filter that is no plain text has at most {LONGEST_PATTERN} characters.")
        if _PROPERTIES.search(text) is not None:
            raise BadRequest(f"The filter {text!r} is not supported: \\p and \\P are not.")
        import re2  # Takes 2 ms, and few processes ever filter so.

        options = re2.Options()
        options.max_mem = _MEMORY_BYTES
        options.log_errors = False
        options.dot_nl = True
        options.never_capture = True
        try:
            self._compiled = re2.compile(text, options)
        except (re2.error, UnicodeEncodeError) as problem:
            why = str(problem.args[0].decode() if isinstance(problem.args[0], bytes) else problem)
            raise BadRequest(f"The filter {text!r} is not supported: {why}.") from problem

    def search(self, text: str) -> bool:
        return self._compiled.search(text) is not None


def is_literal(text: str) -> bool:
    """Whether the filter is plain text, which the database can look for itself."""
    return not META & set(text)
