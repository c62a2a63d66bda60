"""What SQLAlchemy keeps of statements that are built as the program runs: those used last, so many characters of SQL.

Its own cache is bounded by their number alone, and what is kept of one takes some 75 bytes for each character.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterator, MutableMapping

from sqlalchemy.engine import Compiled

from cumulet.db.prepared import MOST_CHARACTERS

MOST_KEPT = 500


class CompiledStatements(MutableMapping[Hashable, Compiled]):
    """For SQLAlchemy's option ``compiled_cache``. Thread-safe."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Hashable, Compiled] = OrderedDict()
        self._characters = 0
        self._lock = threading.Lock()

    def __getitem__(self, key: Hashable) -> Compiled:
        with self._lock:
            self._kept.move_to_end(key)
            return self._kept[key]

    def __setitem__(self, key: Hashable, compiled: Compiled) -> None:
        with self._lock:
            self._drop(key)
            self._kept[key] = compiled
            self._characters += _length(compiled)
            while len(self._kept) > MOST_KEPT or self._characters > MOST_CHARACTERS:
                self._drop(next(iter(self._kept)))

    def __delitem__(self, key: Hashable) -> None:
        with self._lock:
            self._drop(key)

    def _drop(self, key: Hashable) -> None:
        compiled = self._kept.pop(key, None)
        if compiled is not None:
            self._characters -= _length(compiled)

    def __iter__(self) -> Iterator[Hashable]:
        return iter(list(self._kept))

    def __len__(self) -> int:
        return len(self._kept)


def _length(compiled: Compiled) -> int:
    return len(compiled.string or "")
