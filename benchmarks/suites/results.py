"""What a suite said, as its make target leaves it in .build/suites/NAME.json and docs/suites.json keeps it."""

from __future__ import annotations

import datetime
import subprocess
from collections.abc import Mapping
from pathlib import Path

import msgspec

ROOT = Path(__file__).parents[2]
LEFT = ROOT / ".build" / "suites"
KEPT = ROOT / "docs" / "suites.json"


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One run of one suite. `skipped`: reason -> how many; `failed`: test -> the first line of why; `at`: a date."""

    suite: str
    package: str
    at: str
    commit: str
    passed: int
    failed: dict[str, str]
    skipped: dict[str, int]
    seconds: int = 0

    @property
    def share(self) -> float:
        """Of what ran, what passed, in percent."""
        ran = self.passed + len(self.failed)
        return 100.0 * self.passed / ran if ran else 0.0


def commit() -> str:
    """The commit of this clone, with a plus sign where files differ from it."""
    asking = ["git", "describe", "--always", "--dirty=+"]
    done = subprocess.run(asking, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def run_of(
    suite: str, package: str, passed: int, failed: Mapping[str, str], skipped: Mapping[str, int], seconds: float
) -> Run:
    """A run that has just ended, of this commit."""
    return Run(
        suite=suite,
        package=package,
        at=datetime.datetime.now(datetime.UTC).date().isoformat(),
        commit=commit(),
        passed=passed,
        failed={name: why[:200] for name, why in failed.items()},
        skipped=dict(skipped),
        seconds=round(seconds),
    )


def leave(run: Run, folder: Path = LEFT) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{run.suite}.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(run), indent=1) + b"\n")
    return path


def read(path: Path) -> Run:
    return msgspec.json.decode(path.read_bytes(), type=Run)


def kept(path: Path = KEPT) -> dict[str, Run]:
    """The newest run of every suite, by name."""
    return {run.suite: run for run in msgspec.json.decode(path.read_bytes(), type=list[Run])}


def keep(runs: Mapping[str, Run], path: Path = KEPT) -> None:
    ordered = [runs[name] for name in sorted(runs)]
    path.write_bytes(msgspec.json.format(msgspec.json.encode(ordered), indent=1) + b"\n")
