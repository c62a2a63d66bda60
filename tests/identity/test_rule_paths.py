"""Paths of access rules mean what they say, and cost little whatever is in them and in the path that is asked for."""

from __future__ import annotations

import random
import re
import time
from urllib.parse import quote

import pytest

from cumulet.identity.application_credentials import MOST_RULES, MOST_WILDCARDS
from cumulet.identity.delegations import AccessRule, allows
from cumulet.identity.rule_paths import LONGEST_PATH, WILD, AskedPath
from tests.speed import is_within

LONGEST_RULE = 225
"""As the schema has it."""
MOST_MS = 20.0
"""Of processor time for all rules of a token; it takes 4."""
PRINTABLE = "".join(map(chr, range(0x21, 0x7F))).translate({ord(c): None for c in "*{}"})


def rule(path: str) -> AccessRule:
    return AccessRule(id="x", user_id="x", service="compute", method="GET", path=path)


def described(path: str, asked: str) -> bool:
    """The same by `re`, which may take for ever."""
    split = enumerate(WILD.split(path))
    pattern = "".join(".*" if p == "**" else "[^/]+" if n % 2 else re.escape(p) for n, p in split)
    own = "/" + asked.lstrip("/").partition("/")[2]
    return any(re.fullmatch(pattern, text, re.DOTALL) for text in (asked, own))


def test_it_says_what_a_regular_expression_would_say() -> None:
    choices, met = random.Random(7), 0
    for _ in range(20_000):
        path = "/" + "".join(choices.choices(["a", "b", "/", "*", "**", "{x}", "é"], k=choices.randrange(7)))
        asked = "/" + "".join(choices.choices("//ab", k=choices.randrange(8)))
        expected = described(path, asked)
        assert AskedPath(asked).meets(path) == expected, (path, asked)
        met += expected
    assert met > 1000


@pytest.mark.parametrize(
    ("wild", "between", "asked"),
    [
        ("**", "abababababab", "ab"),
        ("**", "a", "a"),
        ("*", "ab", "ab"),
        ("{x}", "ab/", "ab/"),
        ("", "ab", "ab"),
        ("**", PRINTABLE, PRINTABLE),
    ],
    ids=["texts", "letters", "parts", "names", "no wildcard", "every character"],
)
def test_all_rules_of_a_token_cost_little_whatever_is_asked_for(wild: str, between: str, asked: str) -> None:
    """None of them describes the path, so all are compared."""
    rules = []
    for number in range(MOST_RULES):
        path = ("/" + f"{wild}{between}" * MOST_WILDCARDS + between * LONGEST_RULE)[: LONGEST_RULE - 4]
        rules.append(rule(f"{path}!{number:03}"))
    assert {len(one.path) for one in rules} == {LONGEST_RULE}
    path = ("/compute/" + asked * LONGEST_PATH)[:LONGEST_PATH]
    took = []
    for _ in range(3):
        before = time.thread_time()
        assert not allows(rules, "compute", "GET", path)
        took.append((time.thread_time() - before) * 1000)
    assert is_within(min(took), MOST_MS), f"{min(took):.1f} ms"


def test_no_rule_lets_a_path_through_that_is_too_long_or_no_ascii() -> None:
    """Credentials that were made before may have any rule."""
    anything = [rule("/**")]
    path = "/compute/v2.1/".ljust(LONGEST_PATH, "a")
    assert allows(anything, "compute", "GET", path)
    assert not allows(anything, "compute", "GET", path + "a")
    assert not allows(anything, "compute", "GET", "/compute/v2.1/é")
    assert not allows([rule("/v2.1/é")], "compute", "GET", "/compute/v2.1/e")


@pytest.mark.parametrize("name", ["\N{GRINNING FACE}" * 255, "server", "a b"], ids=["longest", "short", "two words"])
def test_the_longest_names_are_short_enough(name: str) -> None:
    path = f"/compute/v2.1/servers/{'0' * 36}/tags/{quote(name)}"
    assert allows([rule("/v2.1/servers/*/tags/*")], "compute", "GET", path)
