"""The strict JSON reader: what it accepts means the same to every JSON parser."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cumulet.errors import BadRequest, TooLarge
from cumulet.web.json_reader import DEEPEST, LARGEST_BODY, MOST_VALUES, read_json

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(VALUES, st.booleans())
def test_what_json_writes_is_read_back(value: object, ascii_only: bool) -> None:
    assert read_json(json.dumps(value, ensure_ascii=ascii_only).encode()) == value


@given(st.binary(max_size=60))
def test_nothing_but_a_clear_refusal_comes_of_garbage(data: bytes) -> None:
    with contextlib.suppress(BadRequest):
        read_json(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"{}x",
        b"{} {}",
        b"{'a': 1}",
        b'{"a": 1,}',
        b'{"a": 1, "a": 1}',
        b'{"x": {"a": 1, "\\u0061": 2}}',
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": -Infinity}',
        b'{"a": 1e999}',
        b'{"a": ' + b"9" * 50 + b"}",
        b'{"a": 01}',
        b'{"a": "\x00"}',
        b'{"a": "\xff"}',
        b'{"a": "\xed\xa0\x80"}',
        b'{"a": "tab\there"}',
        b"\xef\xbb\xbf{}",
        '{"a": 1}'.encode("utf-16"),
        b"[" * (DEEPEST + 1) + b"]" * (DEEPEST + 1),
        b"[" * 50_000,
        b'{"a":' * 10_000,
    ],
)
def test_everything_ambiguous_is_refused(data: bytes) -> None:
    with pytest.raises(BadRequest) as caught:
        read_json(data)
    assert caught.value.public == "Malformed request body"


@pytest.mark.parametrize(
    ("data", "field"),
    [
        (b'{"a": {"b": "\\u0000"}}', "a.b"),
        (b'{"a": [1, {"b": "x\\ud800"}]}', "a.b"),
        (b'{"a": ["\\udfff\\ud800"]}', "a"),
        (b'{"a": {"\\u0000": 1}}', "a"),
        (b'"\\u0000"', "body"),
        (b'{"' + b"a" * 100 + b'": "\\u0000"}', "a" * 64),
    ],
)
def test_a_character_that_is_none_is_refused_with_its_field(data: bytes, field: str) -> None:
    with pytest.raises(BadRequest) as caught:
        read_json(data)
    assert caught.value.public == (
        f"Invalid input for field/attribute {field}. It has a NUL character or a lone surrogate."
    )


def test_the_bounds_are_exact() -> None:
    assert read_json(b"[" * DEEPEST + b"]" * DEEPEST)
    assert read_json(b'["' + b"[" * 100 + b'"]') == ["[" * 100]
    padding = b" " * (LARGEST_BODY - 2)
    assert read_json(b"{}" + padding) == {}
    with pytest.raises(TooLarge):
        read_json(b"{}" + padding + b" ")


@pytest.mark.parametrize(
    ("one", "separators"), [("0", 1), ("1e1", 1), ('""', 1), ("[]", 2), ("{}", 2), ('{"a":0}', 3), ('"[,:\\"{,"', 1)]
)
def test_how_many_values_a_body_has_is_bounded(one: str, separators: int) -> None:
    """Counted outside of strings. The outer bracket opens once, and the last value has no comma."""
    most = MOST_VALUES // separators
    assert len(read_json(f"[{','.join([one] * most)}]".encode())) == most
    with pytest.raises(TooLarge):
        read_json(f"[{','.join([one] * (most + 1))}]".encode())


def test_surrogate_pairs_are_one_character() -> None:
    assert read_json(b'{"a": "\\ud83d\\ude00"}') == {"a": "\U0001f600"}
