"""A log in a file that only its owner can read. A large file is put aside, and few of those are kept."""

from __future__ import annotations

import io
import math
import os
from logging.handlers import RotatingFileHandler
from pathlib import Path

from cumulet.web.repeats import Repeats

FILE_BYTES = 64 << 20
FILES_KEPT = 8
"""Files put aside, besides the one that is written."""


class LogFile(RotatingFileHandler):
    """Lines that repeat are counted, as on standard error."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, maxBytes=FILE_BYTES, backupCount=FILES_KEPT, encoding="utf-8")
        self._repeats = Repeats(self.emit)
        self.addFilter(self._repeats)

    def close(self) -> None:
        self._repeats.tell(math.inf)
        super().close()

    def _open(self) -> io.TextIOWrapper:
        private = os.open(self.baseFilename, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        return open(private, "a", encoding="utf-8")
