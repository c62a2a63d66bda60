"""Patterns of filters mean what regular expressions mean, and their time grows only with the length of the text."""

from __future__ import annotations

import contextlib
import re
import time

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.dialects import postgresql

from cumulet.compute import server_filters
from cumulet.compute.pattern import Pattern, is_literal
from cumulet.compute.store import servers
from cumulet.errors import BadRequest
from tests.speed import is_within

MOST_MS = 20.0

atoms = st.sampled_from(["a", "b", ".", "[ab]", "[^a]", r"\-", r"\d", r"\w", "1", "-", "(a|1)", "(?:ab)"])
quantified = st.builds(lambda atom, quantifier: atom + quantifier, atoms, st.sampled_from(["", "*", "+", "?", "{1,2}"]))
branches = st.builds(
    lambda start, parts, end: start + "".join(parts) + end,
    st.sampled_from(["", "^"]),
    st.lists(quantified, max_size=6),
    st.sampled_from(["", "$"]),
)
patterns = st.lists(branches, min_size=1, max_size=3).map("|".join)


@given(pattern=patterns, text=st.text(alphabet="ab1-x", max_size=12))
def test_a_pattern_finds_what_the_regular_expression_finds(pattern: str, text: str) -> None:
    assert Pattern(pattern).search(text) == bool(re.search(pattern, text))


@pytest.mark.parametrize("pattern", ["(?=a)b", "[", "*", r"(a)\1", "a**", "a{2000}", "((a{100}){100}){100}", "\udc80"])
def test_what_cannot_be_matched_in_linear_time_is_refused_by_name(
    pattern: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(BadRequest, match="not supported: "):
        Pattern(pattern)
    assert capfd.readouterr() == ("", ""), "the library tells it us, not the log"


def test_a_pattern_is_made_in_some_milliseconds_or_refused() -> None:
    with pytest.raises(BadRequest, match="at most 1024 characters"):
        Pattern("a*" * 513)
    for pattern in (r"\pL" * 340, r"a\\\PL", r"[^\PL]", r"(?i)\p{Greek}"):
        with pytest.raises(BadRequest, match="not supported: "):
            Pattern(pattern)
    assert Pattern(r"^a\\p.$").search(r"a\pL"), "no property, but a backslash and a letter"
    for pattern in ("a{1000}" * 146, r"\W" * 512, "(?i)" + "[^a-\U0010fffe]" * 100, "(?:.{1000})*" * 80, "x*" * 512):
        began = time.thread_time()
        with contextlib.suppress(BadRequest):
            Pattern(pattern)
        took_ms = (time.thread_time() - began) * 1000
        assert is_within(took_ms, MOST_MS), f"{took_ms:.1f} ms: {pattern[:16]}"


@pytest.mark.parametrize("pattern", ["a*" * 100 + "b$", "(a+)+$", "(a|aa)+b", "(.*a){20}", "a?" * 127 + "b"])
def test_the_worst_pattern_is_done_at_once(pattern: str) -> None:
    began = time.thread_time()
    compiled = Pattern(pattern)
    for _ in range(100):
        compiled.search("a" * 254 + "!")
    assert time.thread_time() - began < 1.0


def test_plain_text_is_left_to_the_database() -> None:
    assert is_literal("web-1_x")
    assert not is_literal("web.*")


def test_more_servers_may_match_than_a_statement_has_parameters() -> None:
    """PostgreSQL takes 65,535, and `history_rows` alone are more."""

    class ManyServers:
        def all(self, _statement: object) -> list[tuple[int, str]]:
            return [(number, f"server-{number}") for number in range(70_000)]

    found = server_filters._matching(ManyServers(), servers.c.name, "^server.*[0-8]$", [], str)  # type: ignore[arg-type]
    statement = sa.select(servers.c.id).where(found)
    compiled = statement.compile(dialect=postgresql.dialect(), compile_kwargs={"render_postcompile": True})  # type: ignore[no-untyped-call]
    [numbers] = compiled.params.values()
    assert len(numbers) == 63_000
    assert str(compiled).count(",") == 0, "all of them are one parameter"
