"""Addresses and prefixes that are read once and searched quickly: as quickly with thousands of them as with few.

They answer as a look at each of them in turn would (`ipaddress`): a text without a slash is the one address that is
written so, and a prefix holds addresses of its own version only.
"""

from __future__ import annotations

import socket
from bisect import bisect_right
from collections.abc import Iterable
from typing import Generic, TypeVar

T = TypeVar("T")


def _number(address: str) -> tuple[int, int]:
    """The number of bits of an address, and their value. OSError for what is none."""
    packed = socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)
    return 8 * len(packed), int.from_bytes(packed, "big")


class Prefixes:
    """Whether one of many addresses and prefixes holds an address."""

    def __init__(self, prefixes: Iterable[str]) -> None:
        """OSError or ValueError for what is no prefix."""
        self._exact: set[str] = set()
        self._ends: dict[int, tuple[list[int], list[int]]] = {}
        """By the number of bits, the first and the last addresses of ranges that are apart, in their order."""
        ranges: dict[int, list[tuple[int, int]]] = {}
        for prefix in prefixes:
            address, slash, length = prefix.partition("/")
            if slash:
                bits, first = _number(address)
                ranges.setdefault(bits, []).append((first, first + (1 << (bits - int(length))) - 1))
            else:
                self._exact.add(prefix)
        for bits, found in ranges.items():
            firsts: list[int] = []
            lasts: list[int] = []
            for first, last in sorted(found):
                if lasts and first <= lasts[-1] + 1:
                    lasts[-1] = max(lasts[-1], last)
                else:
                    firsts.append(first)
                    lasts.append(last)
            self._ends[bits] = firsts, lasts

    def hold(self, address: str) -> bool:
        if address in self._exact:
            return True
        if not self._ends:
            return False
        bits, number = _number(address)
        firsts, lasts = self._ends.get(bits, ((), ()))
        place = bisect_right(firsts, number)
        return place > 0 and number <= lasts[place - 1]


class Holders(Generic[T]):
    """Who has an address: of those with exactly this address the last, else of those with a prefix the first."""

    def __init__(self, held: Iterable[tuple[str, T]]) -> None:
        """OSError or ValueError for what is no prefix."""
        self._exact: dict[str, T] = {}
        self._by_length: dict[int, dict[int, dict[int, tuple[int, T]]]] = {}
        """By the number of bits: by how many of them are free in a prefix, and by the others: its place, its holder."""
        for place, (prefix, holder) in enumerate(held):
            address, slash, length = prefix.partition("/")
            if slash:
                bits, number = _number(address)
                free = bits - int(length)
                of_length = self._by_length.setdefault(bits, {}).setdefault(free, {})
                of_length.setdefault(number >> free, (place, holder))
            else:
                self._exact[prefix] = holder

    def of(self, address: str) -> T | None:
        """None: nobody."""
        holder = self._exact.get(address)
        if holder is not None or not self._by_length:
            return holder
        bits, number = _number(address)
        lengths = self._by_length.get(bits, {})
        found = [of[number >> free] for free, of in lengths.items() if number >> free in of]
        return min(found, key=lambda one: one[0])[1] if found else None
