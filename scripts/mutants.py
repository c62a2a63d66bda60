"""Small mistakes, made one at a time by cosmic-ray: which of them do the tests let live?

`python scripts/mutants.py [--since REVISION] [--most N] [PART...]`, see `make mutants`. A part is a key of `PARTS`. Of
each of its modules come so many mutants, drawn by chance from all (the same ones each time), or with `--since` all that
lie on lines changed since then. They are tried in a copy of the tree, with the part's own tests. Prints a table of
scores and each survivor; ends with 1 where a part's score is below `GOAL`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PLACE = ROOT / ".build" / "mutants"
GOAL = 0.85
MOST = 30
"""Mutants of a module, unless told otherwise."""
LONGEST_SECONDS = 900.0
"""Of the tests for one mutant: a mistake that makes them hang is found, too."""
MEANINGLESS = ("ReplaceBinaryOperator_BitOr_",)
"""Operators whose mutants are almost all in annotations (`A | B`), which nobody runs.

Nor is a class's first line tried: that a record is frozen is for mypy to say.
"""


NOTICED = ("KILLED", "INCOMPETENT")
"""Outcomes of a mistake that a test failed with, or that Python itself refused."""


class Part(NamedTuple):
    """Modules under `src/cumulet`, and the tests that answer for them (arguments of pytest)."""

    modules: tuple[str, ...]
    tests: tuple[str, ...]


_MOVES = (
    # Those of no cloud come first, then those that notice most.
    "tests/compute/test_post_copy.py", "tests/compute/test_resize_arithmetic.py",
    "tests/compute/test_copy_arithmetic.py", "tests/compute/test_unless_gone.py",
    "tests/api/test_live_migration.py",
    "tests/api/test_resize.py", "tests/api/test_evacuation.py",
    "tests/api/test_preconditions.py", "tests/api/test_fit_for_moves.py", "tests/api/test_ends_of_moves.py",
    "tests/api/test_ends_of_evacuations.py", "tests/api/test_automatic_confirmation.py",
    "tests/api/test_resize_records.py", "tests/refusals/test_operations.py", "tests/api/test_failed_post_copy.py",
    "tests/api/test_places.py", "tests/api/test_resize_room.py", "tests/api/test_left_waiting.py",
    "tests/api/test_further_disks.py", "tests/every_saga/test_late_commands.py",
)  # fmt: skip
PARTS: dict[str, Part] = {
    "scheduler": Part(("compute/scheduler.py",), ("tests/compute/test_scheduler.py",)),
    "copying": Part(
        ("compute/copying.py",), ("tests/compute/test_copy_arithmetic.py", "tests/api/test_live_migration.py")
    ),
    "moves": Part(
        tuple(
            f"compute/{name}.py"
            for name in ("moves", "live_migration", "post_copy", "resize", "resize_outcome", "evacuation",
                         "operations", "preconditions")
        ),
        _MOVES,
    ),
    "conductor": Part(
        ("conductor/runner.py", "conductor/saga.py", "conductor/leadership.py", "conductor/findings.py"),
        ("tests/conductor", "tests/every_saga/test_what_persists.py", "tests/api/test_findings.py",
         "tests/refusals/test_operations.py", "tests/every_saga/test_every_step.py"),
    ),
    "placement": Part(
        ("placement/allocations.py", "placement/providers.py", "placement/api_allocations.py",
         "placement/api_inventories.py", "placement/api_candidates.py", "placement/wire.py"),
        ("tests/placement",),
    ),
    "agent": Part(
        ("agent/agent.py", "agent/fence.py", "agent/lease.py", "agent/watchdog.py", "agent/simulated_fence.py",
         "host/messages.py"),
        ("tests/agent/test_fence.py", "tests/agent/test_welcome.py", "tests/agent/test_lease.py", "tests/agent",
         "tests/host/test_messages.py", "tests/every_saga/test_late_commands.py"),
    ),
    "host": Part(
        ("host/verdict.py", "host/wiring.py", "drivers/qemu/guest_files.py"),
        ("tests/host", "tests/network/test_wiring.py", "tests/bus/test_contract.py", "tests/api/test_explain_path.py"),
    ),
    "tokens": Part(
        ("identity/tokens.py",),
        # Those that notice most come first: a mutant's tests end with the first that fails.
        ("tests/identity/test_token_format.py", "tests/identity/test_token_chains.py",
         "tests/api/identity/test_tokens.py", "tests/api/identity/test_revocation.py",
         "tests/identity/test_token_cache.py", "tests/api/identity/test_delegations.py"),
    ),
    "prepared": Part(("db/prepared.py",), ("tests/db/test_prepared.py",)),
    "policy": Part(("web/policy.py", "web/policy_language.py"), ("tests/web/test_policy.py",)),
    "dispatch": Part(
        ("web/dispatch.py", "web/perform.py", "web/answers.py"), ("tests/web", "tests/refusals/test_compute.py")
    ),
    "inspection": Part(
        ("image/inspection.py", "image/qcow2.py"), ("tests/image/test_inspection.py", "tests/image/test_edges.py")
    ),
}  # fmt: skip


class Mutant(NamedTuple):
    """A mistake, and what became of it: killed, survived, incompetent, or nothing yet."""

    job: str
    operator: str
    line: int
    outcome: str | None
    diff: str


class Session:
    """One module's mutants, kept by cosmic-ray in a database of SQLite."""

    def __init__(self, module: str, tests: Sequence[str]) -> None:
        self.module = module
        self._file = PLACE / f"{module.replace('/', '-')}.sqlite"
        self._config = self._file.with_suffix(".toml")
        command = " ".join(pytest_command(tests))
        self._config.write_text(
            "[cosmic-ray]\n"
            f'module-path = "src/cumulet/{module}"\ntimeout = {LONGEST_SECONDS}\nexcluded-modules = []\n'
            f'test-command = {json.dumps(command)}\n\n[cosmic-ray.distributor]\nname = "local"\n'
        )

    def make(self) -> None:
        self._file.unlink(missing_ok=True)
        cosmic_ray("init", self._config, self._file)

    def keep(self, chosen: set[str]) -> None:
        """Let all others be skipped."""
        with sqlite3.connect(self._file) as database:
            database.executemany(
                "INSERT INTO work_results (job_id, worker_outcome) VALUES (?, 'SKIPPED')",
                [(mutant.job,) for mutant in self.mutants() if mutant.job not in chosen],
            )

    def run(self) -> None:
        cosmic_ray("exec", self._config, self._file)

    def mutants(self) -> list[Mutant]:
        with sqlite3.connect(self._file) as database:
            rows = database.execute(
                "SELECT s.job_id, s.operator_name, s.start_pos_row, r.test_outcome, r.diff FROM mutation_specs s "
                "LEFT JOIN work_results r ON r.job_id = s.job_id ORDER BY s.start_pos_row, s.job_id"
            ).fetchall()
        return [Mutant(job, operator, line, outcome, diff or "") for job, operator, line, outcome, diff in rows]


def pytest_command(tests: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]


def in_copy(command: Sequence[str | Path]) -> None:
    environment = {**os.environ, "PYTHONPATH": str(PLACE / "tree" / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run(command, cwd=PLACE / "tree", env=environment, check=True)


def cosmic_ray(verb: str, *files: Path) -> None:
    in_copy([Path(sys.executable).parent / "cosmic-ray", verb, *files])


def copy_tree() -> None:
    """What is in the working tree now, without what git ignores."""
    tree = PLACE / "tree"
    shutil.rmtree(tree, ignore_errors=True)
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tree / name)


def changed_lines(module: str, since: str) -> set[int]:
    """Lines of a module that are new or other than at the revision `since`."""
    shown = subprocess.run(
        ["git", "diff", "-U0", since, "--", f"src/cumulet/{module}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    found: set[int] = set()
    for first, count in re.findall(r"^@@ [^+]*\+(\d+)(?:,(\d+))? @@", shown, re.MULTILINE):
        found |= set(range(int(first), int(first) + int(count or 1)))
    return found


def chosen(mutants: Sequence[Mutant], *, lines: set[int] | None, most: int, module: str) -> set[str]:
    """Jobs to do: of equal chance, and the same ones whenever the module is the same."""
    source = (ROOT / "src" / "cumulet" / module).read_text(encoding="utf-8").splitlines()
    fit = [
        mutant
        for mutant in mutants
        if not any(name in mutant.operator for name in MEANINGLESS) and not source[mutant.line - 1].startswith("class ")
    ]
    if lines is not None:
        return {m.job for m in fit if m.line in lines}
    ordered = sorted(fit, key=lambda m: (m.line, m.operator, m.job))
    # Jobs have random ids: what is drawn is places in the order of lines and operators.
    numbers = Random(module).sample(range(len(ordered)), min(most, len(ordered)))  # noqa: S311
    return {ordered[number].job for number in numbers}


def tried(part: Part, *, since: str | None, most: int) -> Iterator[tuple[str, list[Mutant]]]:
    """Each module with those of its mutants that were tried. CalledProcessError where tests fail without a mistake."""
    passed = False
    for module in part.modules:
        lines = changed_lines(module, since) if since is not None else None
        if lines is not None and not lines:
            continue
        if not passed:
            in_copy(pytest_command(part.tests))  # Else every mistake would count as noticed.
            passed = True
        session = Session(module, part.tests)
        session.make()
        jobs = chosen(session.mutants(), lines=lines, most=most, module=module)
        session.keep(jobs)
        session.run()
        yield module, [mutant for mutant in session.mutants() if mutant.job in jobs]


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--since", metavar="REVISION", help="only mutants on lines changed since this revision")
    parser.add_argument("--most", type=int, default=MOST, metavar="N", help=f"mutants of a module (default {MOST})")
    asked = parser.parse_args(arguments)
    if unknown := set(asked.parts) - PARTS.keys():
        parser.error(f"there is no part called {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    PLACE.mkdir(parents=True, exist_ok=True)
    copy_tree()
    low = False
    for name in asked.parts or PARTS:
        killed = total = 0
        for module, mutants in tried(PARTS[name], since=asked.since, most=asked.most):
            lived = [mutant for mutant in mutants if mutant.outcome not in NOTICED]
            killed, total = killed + len(mutants) - len(lived), total + len(mutants)
            print(f"{module}: {len(mutants) - len(lived)} of {len(mutants)} killed", flush=True)
            for mutant in lived:
                print(f"  line {mutant.line}, {mutant.operator}\n    " + "\n    ".join(_said(mutant.diff)), flush=True)
        if total:
            print(f"== {name}: {killed / total:.0%} of {total}", flush=True)
            low = low or killed / total < GOAL
    return 1 if low else 0


def _said(diff: str) -> list[str]:
    return [line for line in diff.splitlines() if line[:1] in "+-" and line[:3] not in ("+++", "---")]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
