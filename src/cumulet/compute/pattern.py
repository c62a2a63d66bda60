"""Patterns in list filters: the part of regular expressions people use there, matched in linear time.

Nova hands such filters to its database as regular expressions. We take literals, ``.``, ``[...]``, ``\\d \\w \\s``,
``* + ?`` after one of these, ``^`` and ``$``, and top-level ``|``; anything else is refused by name, never run.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from cumulet.errors import BadRequest

META = frozenset("\\^$.|?*+()[]{}")
_CLASSES: dict[str, Callable[[str], bool]] = {
    "d": str.isdigit,
    "w": lambda char: char.isalnum() or char == "_",
    "s": str.isspace,
}


class _Atom(msgspec.Struct, frozen=True):
    accepts: Callable[[str], bool]
    least: int
    many: bool


class _Branch(msgspec.Struct, frozen=True):
    atoms: tuple[_Atom, ...]
    from_start: bool
    to_end: bool


class Pattern:
    """A compiled filter; `search` answers whether it occurs in a text."""

    def __init__(self, text: str) -> None:
        self._branches = [_Parser(text, part).branch() for part in _alternatives(text)]

    def search(self, text: str) -> bool:
        return any(_search(branch, text) for branch in self._branches)


def is_literal(text: str) -> bool:
    """Whether the filter is plain text, which the database can look for itself."""
    return not META & set(text)


def _search(branch: _Branch, text: str) -> bool:
    """Simulate all positions in the pattern at once: time is the product of both lengths, at most."""
    atoms, end = branch.atoms, len(branch.atoms)

    def closure(positions: set[int]) -> set[int]:
        reached = set(positions)
        for index in range(end):
            if index in reached and atoms[index].least == 0:
                reached.add(index + 1)
        return reached

    start = closure({0})
    current = start
    for char in text:
        if end in current and not branch.to_end:
            return True
        following: set[int] = set()
        for index in current:
            if index < end and atoms[index].accepts(char):
                following.add(index + 1)
                if atoms[index].many:
                    following.add(index)
        current = closure(following)
        if not branch.from_start:
            current |= start
    return end in current


def _alternatives(text: str) -> list[str]:
    parts, current, index, bracket = [], "", 0, False
    while index < len(text):
        char = text[index]
        if char == "\\":
            current += text[index : index + 2]
            index += 2
            continue
        if char == "|" and not bracket:
            parts.append(current)
            current = ""
        else:
            bracket = char == "[" or (bracket and char != "]")
            current += char
        index += 1
    return [*parts, current]


class _Parser:
    def __init__(self, whole: str, text: str) -> None:
        self.whole = whole
        self.text = text
        self.at = 0

    def branch(self) -> _Branch:
        from_start = self._take("^")
        atoms: list[_Atom] = []
        to_end = False
        while self.at < len(self.text):
            if self.text[self.at :] == "$":
                to_end = True
                break
            accepts = self._character()
            quantifier = self.text[self.at] if self.at < len(self.text) else ""
            if quantifier and quantifier in "*+?":
                self.at += 1
                if quantifier == "+":
                    atoms.append(_Atom(accepts, 1, False))
                atoms.append(_Atom(accepts, 0, quantifier != "?"))
            else:
                atoms.append(_Atom(accepts, 1, False))
        return _Branch(tuple(atoms), from_start, to_end)

    def _take(self, char: str) -> bool:
        if self.text.startswith(char, self.at):
            self.at += 1
            return True
        return False

    def _character(self) -> Callable[[str], bool]:
        char = self.text[self.at]
        self.at += 1
        if char == ".":
            return lambda _: True
        if char == "\\":
            return self._escaped()
        if char == "[":
            return self._bracket()
        if char in META:
            raise self._unsupported(char)
        return lambda other: other == char

    def _escaped(self) -> Callable[[str], bool]:
        if self.at >= len(self.text):
            raise self._unsupported("\\")
        char = self.text[self.at]
        self.at += 1
        if char in _CLASSES:
            return _CLASSES[char]
        if char.lower() in _CLASSES and char.isupper():
            inner = _CLASSES[char.lower()]
            return lambda other: not inner(other)
        if char.isalnum():
            raise self._unsupported("\\" + char)
        return lambda other: other == char

    def _bracket(self) -> Callable[[str], bool]:
        negated = self._take("^")
        close = self.text.find("]", self.at + 1)
        if close < 0 or "[" in self.text[self.at : close] or "\\" in self.text[self.at : close]:
            raise self._unsupported("[")
        content = self.text[self.at : close]
        self.at = close + 1
        ranges: list[tuple[str, str]] = []
        index = 0
        while index < len(content):
            if index + 2 < len(content) and content[index + 1] == "-":
                ranges.append((content[index], content[index + 2]))
                index += 3
            else:
                ranges.append((content[index], content[index]))
                index += 1
        return lambda other: any(low <= other <= high for low, high in ranges) != negated

    def _unsupported(self, what: str) -> BadRequest:
        return BadRequest(f"The filter {self.whole!r} uses {what!r}, which is not supported in filters.")
