"""Stories told like the demo, as programs: exit status 0 only if all that is claimed held."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cumulet.cli.client import Unexpected
from cumulet.cli.demo.evidence import Evidence
from cumulet.cli.screen import screen


def until(what: str, condition: Callable[[], object], seconds: float = 120.0, *, pause: float = 0.1) -> Any:
    """Ask again until it holds, as other processes tell nobody here. Raises Unexpected."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(pause)
    raise Unexpected(f"{what}: not within {seconds:g} s")


def told(name: str, tell: Callable[[Evidence, Path], None], *, why_not: str | None, keep: bool) -> int:
    """Tell it, with a folder of its own, which stays where something did not hold, or with `keep`; the exit status.

    `why_not`: what keeps it from being told here.
    """
    if why_not is not None:
        print(f"the {name} cannot be told here: {why_not}", file=sys.stderr)
        return 1
    console = screen()
    evidence = Evidence(console)
    folder = Path(tempfile.mkdtemp(prefix=f"cumulet-{name}-", dir="/tmp"))
    try:
        tell(evidence, folder)
    except (Unexpected, subprocess.SubprocessError) as problem:
        evidence.claim("the story was told to its end", False, str(problem))
    finally:
        if keep or not evidence.all_held:
            print(f"what it has left is in {folder}")
        else:
            shutil.rmtree(folder)
    console.print(evidence.table())
    return 0 if evidence.all_held else 1
