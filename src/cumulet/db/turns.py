"""Writers of one process: many at once, or one alone."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator


class Turns:
    """Each writer has a thread of its own. A writer that wants to be alone waits until the others have ended, and new
    ones wait for it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._writing = 0
        self._want_alone = 0

    @contextlib.contextmanager
    def beside_others(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._want_alone)
            self._writing += 1
        try:
            yield
        finally:
            self._ended()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        with self._changed:
            self._want_alone += 1
            try:
                self._changed.wait_for(lambda: not self._writing)
                self._writing += 1
            except BaseException:
                self._want_alone -= 1
                raise
        try:
            yield
        finally:
            with self._changed:
                self._want_alone -= 1
            self._ended()

    def _ended(self) -> None:
        with self._changed:
            self._writing -= 1
            self._changed.notify_all()
