"""The recorder itself: what refuses is seen at its place, and what nobody has seen is told."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cumulet
from cumulet.compute import states
from tests.refusals.recorder import never_seen, refusals
from tests.refusals.unseen import UNSEEN

ROOT = Path(__file__).parents[2]
SEES_ONE = """
from tests.refusals.recorder import never_seen, record, refusals
seen = set()
record(seen)
from cumulet.compute import quotas
try:
    quotas.require_limit({"cores": 1}, "cores", 2, words="too many: {allowed}")
except Exception as error:
    assert str(error) == "too many: 1", error
print(*sorted(refusals().keys() - set(never_seen(seen))), sep="\\n")
"""


def test_an_error_is_seen_where_it_is_made_and_no_other_is() -> None:
    """In a process of its own: what is recorded stays."""
    done = subprocess.run([sys.executable, "-c", SEES_ONE], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["compute/quotas.py require_limit: OverQuota"]


def test_every_error_that_is_made_in_the_source_is_a_refusal() -> None:
    found = refusals()
    lines = {place for lines in found.values() for place in lines}
    source = Path(states.__file__)
    for number, line in enumerate(source.read_text().splitlines(), start=1):
        if "Conflict(" in line:
            assert (str(source.relative_to(Path(cumulet.__file__).parent)), number) in lines, line
    assert never_seen([]) == sorted(found)
    assert never_seen(lines) == []


def test_what_no_test_comes_through_is_in_the_source() -> None:
    assert UNSEEN.keys() - refusals().keys() == set(), "it has moved, or is gone"
