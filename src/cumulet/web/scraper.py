"""The credential of whoever collects `/metrics`: good for that and nothing else, for as long as its file stands."""

from __future__ import annotations

import base64
import os
from pathlib import Path

from cumulet.clock import Clock
from cumulet.owned import refuse_exposed


def scraper_token(file: Path, clock: Clock) -> str:
    """What stands in `file`, which is made (mode 0600) where it is missing. Removing it voids the token at a start."""
    if not file.exists():
        new = file.with_name(f".{file.name}.new")
        new.unlink(missing_ok=True)
        with open(new, "x", opener=lambda name, flags: os.open(name, flags, 0o600)) as made:
            made.write(base64.urlsafe_b64encode(clock.token_bytes(32)).decode())
        os.replace(new, file)
    refuse_exposed(file)
    return file.read_text().strip()
