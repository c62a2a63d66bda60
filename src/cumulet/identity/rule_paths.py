"""Paths of access rules, compared with the path of a request.

Each request of a token that has access rules is compared with all of these, on the event loop, and who made the rules
chooses the path. So a comparison takes a few operations on numbers for each character of the rule, whatever there is in
the rule and in the path: bit n of a number stands for the first n characters of the request's path.
"""

from __future__ import annotations

import functools
import re

WILD = re.compile(r"(\*\*|\*|\{[^{}/]*\})")
"""The wildcards in the path of an access rule."""
LONGEST_PATH = 4096
"""Characters of a request's path, as it was sent; rules let no longer one through. A name of 255 characters is at most
3,060 there (``%F0%9F%98%80``)."""


@functools.lru_cache(maxsize=1000)
def pieces_of(path: str) -> list[str]:
    """A rule's path: texts, with a wildcard between each two."""
    return WILD.split(path)


class AskedPath:
    """The path of a request, which rules are compared with. It is met by its own text, ``/compute/v2.1/servers``, and
    by the service's own, ``/v2.1/servers``."""

    def __init__(self, path: str) -> None:
        service, slash, _ = path.lstrip("/").partition("/")
        own = len(path) - len(path.lstrip("/")) + len(service)
        # Without anything below the service, the service's own path is a slash that was not sent.
        self._texts = [_Text(path, 1 | 1 << own)] if slash else [_Text(path, 1), _Text("/", 1)]

    def meets(self, rule: str) -> bool:
        pieces = pieces_of(rule)
        return any(text.meets(pieces) for text in self._texts)


class _Text:
    def __init__(self, text: str, begins: int) -> None:
        """begins: a bit for each place where what a rule describes may begin. ValueError for a text beyond ASCII."""
        self._backwards = text.encode("ascii")[::-1]
        self._begins = begins
        self._end = 1 << len(text)
        self._places: dict[str, int] = {}
        self._parts = (self._end - 1) & ~self._places_of("/")

    def meets(self, pieces: list[str]) -> bool:
        """Whether the pieces of a rule describe the text, from a beginning to its end."""
        reached = self._begins
        for number, piece in enumerate(pieces):
            if number % 2 == 0:
                for character in piece:
                    places = self._places.get(character)
                    reached = (reached & (self._places_of(character) if places is None else places)) << 1
            elif piece == "**":
                # Everything from the first place that was reached on.
                reached = (2 * self._end - 1) & -(reached & -reached)
            else:
                reached = self._through_a_part(reached)
            if not reached:
                return False
        return bool(reached & self._end)

    def _through_a_part(self, reached: int) -> int:
        """One character that is no slash, and any number of these: the sum carries each place to its part's end."""
        one = (reached & self._parts) << 1
        return (((one & self._parts) + self._parts) ^ self._parts) | one

    def _places_of(self, character: str) -> int:
        """A bit for each place where the character is next."""
        if not character.isascii() or not self._backwards:
            return self._places.setdefault(character, 0)
        table = bytearray(b"0" * 256)
        table[ord(character)] = ord("1")
        return self._places.setdefault(character, int(self._backwards.translate(table), 2))
