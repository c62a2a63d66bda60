"""The credential for collecting `/metrics`. It is good for nothing else, and as long as its file exists."""

from __future__ import annotations

import base64
from pathlib import Path

from cumulet.clock import Clock
from cumulet.owned import refuse_exposed, write_whole


def scraper_token(file: Path, clock: Clock) -> str:
    """What stands in `file`, which is made (mode 0600) where it is missing. Removing it voids the token at a start."""
    if not file.exists():
        write_whole(file, base64.urlsafe_b64encode(clock.token_bytes(32)))
    refuse_exposed(file)
    return file.read_text().strip()
