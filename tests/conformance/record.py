"""Records what real Nova answers: ``python -m tests.conformance.record --oracle http://127.0.0.1:PORT``.

The oracle must be started for this, with three hosts, since lists show what is there. Nothing is stored but statuses,
headers that matter, shapes and fates.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from pathlib import Path

from tests.conformance.replay import GOLDEN, Replayer, Seen
from tests.conformance.requests import CASES
from tests.conformance.target import oracle
from tests.conformance.world import World


def main() -> int:
    parser = argparse.ArgumentParser(description="Record real Nova's answers to the corpus.")
    parser.add_argument("--oracle", required=True, help="URL of a fresh oracle")
    parser.add_argument("--area", action="append", help="only this area's file (repeatable)")
    parser.add_argument("--slow", action="store_true", help="this oracle's migrations last: record the area `running`")
    parser.add_argument("--into", type=Path, default=GOLDEN, help="folder for the files")
    arguments = parser.parse_args()
    replayer = Replayer(World(oracle(arguments.oracle.rstrip("/"))))
    areas: dict[str, dict[str, Seen]] = defaultdict(dict)
    failed = 0
    for case in CASES:
        if (case.area == "running") != arguments.slow or (arguments.area and case.area not in arguments.area):
            continue
        try:
            areas[case.area][case.id] = replayer.run(case)
        except Exception as error:
            failed += 1
            print(f"not recorded: {case.id}: {error!r}", file=sys.stderr)
    arguments.into.mkdir(parents=True, exist_ok=True)
    for area, cases in areas.items():
        (arguments.into / f"{area}.json").write_text(_text(cases))
    print(f"{sum(map(len, areas.values()))} answers recorded, {failed} failed")
    return 1 if failed else 0


def _text(cases: dict[str, Seen]) -> str:
    """One line per case, so that a change shows as one line."""
    lines = [f"{json.dumps(name)}: {json.dumps(seen.data(), sort_keys=True)}" for name, seen in sorted(cases.items())]
    return '{"cases": {\n' + ",\n".join(lines) + "\n}}\n"


if __name__ == "__main__":
    raise SystemExit(main())
