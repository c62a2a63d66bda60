"""`make long-test`: 2,000 tests of an outside project on one cloud, spread over an hour, and what is left then.

The project (`outside/`) is copied to a folder of its own, where mypy checks it and pytest runs it with warnings as
errors. Ten hours pass for its cloud. Exit status 0 only if every test passed and nothing was left or grew.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import msgspec

OUTSIDE = Path(__file__).parent / "outside"
FILES = {"theirs.py": "test_theirs.py", "watching.py": "conftest.py"}
INI = """[pytest]
filterwarnings =
    error
    ignore:::openstack
"""
"""Warnings are errors, but for those that openstacksdk gives of its own code to everybody."""
WARM = 4
"""One part of so many is for warming up: everything is loaded and has run once. From there on nothing may grow."""
MOST_MIB_OF_1000 = 2.0
"""How much memory 1,000 tests on one cloud may add, in MiB (0.5 was measured): pytest keeps its reports, too."""
MOST_MIB_OF_A_CLOUD = 3.0
"""How much each further cloud may add, in MiB. The first dozen added 2.4 each: memory in pieces, no object is left."""
MOST_MORE = 8
"""Threads of pools begin when they are needed, idle connections come and go: so many more than in the first half."""


class Held(msgspec.Struct, frozen=True):
    """A line of `watching.note`."""

    when: str
    tests: int
    clouds: int
    descriptors: list[str]
    threads: list[str]
    files: int
    mib: int
    resident_mib: float


def copied(folder: Path) -> Path:
    """The outside project, in `folder`. Its temporary files go to the folder `tmp` there."""
    for name, theirs in FILES.items():
        (folder / theirs).write_text((OUTSIDE / name).read_text())
    (folder / "pytest.ini").write_text(INI)
    (folder / "tmp").mkdir()
    return folder


def types_of(project: Path) -> str:
    """What `mypy --strict` finds in it; empty: nothing."""
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--cache-dir", str(project / "types")]
    done = subprocess.run([*command, "."], cwd=project, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def run(project: Path, *, tests: int, seconds: float, virtual_seconds: float) -> tuple[str, list[Held]]:
    """Run it. Returns what is wrong with the tests themselves (empty: nothing), and what was held."""
    held = project / "held"
    given = {"TESTS": tests, "SECONDS": seconds, "VIRTUAL_SECONDS": virtual_seconds, "HELD": held}
    command = [sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", "-p", "no:faulthandler"]
    with open(project / "log", "wb") as log:
        done = subprocess.run(
            command,
            cwd=project,
            env=os.environ | {name: str(value) for name, value in given.items()} | {"TMPDIR": str(project / "tmp")},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            check=False,
        )
    lines = [line for line in (project / "log").read_text().splitlines() if not line.startswith("{")]
    noted = [msgspec.json.decode(line, type=Held) for line in held.read_bytes().splitlines()]
    passed = done.returncode == 0 and f"{tests} passed" in lines[-1]
    return "" if passed else "\n".join(lines[-60:]), noted


def wrong_with(noted: list[Held], folder: Path) -> list[str]:
    """What was left, and what grew."""
    before, *between, after = noted
    problems = []
    if more := Counter(after.descriptors) - Counter(before.descriptors):
        problems.append(f"descriptors are left: {', '.join(sorted(more))}")
    if more := Counter(after.threads) - Counter(before.threads):
        problems.append(f"threads are left: {', '.join(sorted(more))}")
    if left := sorted(path.name for path in folder.iterdir()):
        problems.append(f"files are left: {', '.join(left)}")
    running = [one for one in between if "cumulet-cloud" in one.threads]
    running = running[len(running) // WARM :]
    early, late = running[: len(running) // 2], running[len(running) // 2 :]
    for what, size, most in (
        ("descriptors", lambda one: len(one.descriptors), MOST_MORE),
        ("threads", lambda one: len(one.threads), MOST_MORE),
        ("files", lambda one: one.files, 0),
    ):
        first, last = max(map(size, early)), max(map(size, late))
        if last > first + most:
            problems.append(f"there were at most {first} {what} in the first half, and {last} in the second")
    tests, clouds = late[-1].tests - early[0].tests, late[-1].clouds - early[0].clouds
    grown = late[-1].resident_mib - early[0].resident_mib
    if grown > MOST_MIB_OF_1000 * max(1.0, tests / 1000) + MOST_MIB_OF_A_CLOUD * clouds:
        problems.append(f"{tests} tests and {clouds} further clouds added {grown:.1f} MiB of memory")
    return problems


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tests", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=3600.0, help="over how long they are spread; 0: not at all")
    parser.add_argument("--virtual-seconds", type=float, default=36_000.0, help="how long it is for the cloud")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cumulet-long-") as name:
        project = copied(Path(name))
        if found := types_of(project):
            print(found)
            return 1
        failed, noted = run(project, tests=chosen.tests, seconds=chosen.seconds, virtual_seconds=chosen.virtual_seconds)
        problems = [failed] if failed else wrong_with(noted, project / "tmp")
        for one in noted:
            held = f"{len(one.descriptors):3} descriptors  {len(one.threads):2} threads"
            files = f"{one.files:3} files of {one.mib:3} MiB"
            print(f"{one.when:8}{one.tests:5} tests  {held}  {files}  {one.resident_mib:6.1f} MiB of memory")
    print("\n".join(problems) or f"{chosen.tests} tests passed, and nothing was left")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
