"""Asks a running Nova oracle and a running Cumulet the same, side by side:

``python -m tests.conformance.live --oracle http://127.0.0.1:8774 --clouds-file ~/.local/state/cumulet/clouds.yaml``

Without ``--oracle`` the recorded answers are Nova's side. Both clouds need three hosts.
"""

from __future__ import annotations

import argparse
import fnmatch
from pathlib import Path

from tests.conformance.replay import Replayer, golden, replayed, report
from tests.conformance.requests import CASES
from tests.conformance.target import from_clouds_file, oracle
from tests.conformance.world import World


def main() -> int:
    parser = argparse.ArgumentParser(description="Compare a running Cumulet with real Nova.")
    parser.add_argument("--clouds-file", type=Path, required=True, help="clouds.yaml of the Cumulet")
    parser.add_argument("--cloud", default="cumulet", help="its administrator's entry in that file")
    parser.add_argument("--oracle", help="URL of a running oracle; default: the recorded answers")
    parser.add_argument("--cases", action="append", help="only the cases with such an id, e.g. 'live/*' (repeatable)")
    arguments = parser.parse_args()
    patterns = arguments.cases or ["*"]
    cases = [case for case in CASES if any(fnmatch.fnmatchcase(case.id, pattern) for pattern in patterns)]
    nova = golden()
    if arguments.oracle:
        replayer = Replayer(World(oracle(arguments.oracle.rstrip("/"))))
        nova = {case.id: replayer.run(case) for case in cases}
    outcome = replayed(from_clouds_file(arguments.clouds_file, arguments.cloud), cases, nova)
    unexplained = [difference for difference in outcome.differences if difference.deviation is None]
    print(report(unexplained, outcome.total))
    print(f"{len(outcome.differences) - len(unexplained)} further differences are meant (deviations.py).")
    return 1 if unexplained else 0


if __name__ == "__main__":
    raise SystemExit(main())
