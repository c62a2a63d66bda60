"""Bodies and queries: one annotated class, the right schema for each microversion, Nova's words for refusals."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Literal

import pytest

from cumulet.errors import BadRequest
from cumulet.processes.parts import load_services
from cumulet.web.operation import Microversion
from cumulet.web.refusals import LONGEST_ECHO, _without_secrets, echo
from cumulet.web.schema import (
    UNSET,
    Anything,
    Body,
    Convert,
    Empty,
    Json,
    Key,
    LooseBool,
    NonNegativeInteger,
    PositiveInteger,
    Query,
    Required,
    Since,
    Single,
    Unset,
    Until,
    Versions,
    boundaries,
    integer_text,
    json_schema,
    plan,
)


class MigrateLive(Body):
    host: Annotated[str | None, Json({"pattern": "^[a-zA-Z0-9-._]*$", "minLength": 1, "maxLength": 255})]
    block_migration: LooseBool | Annotated[Literal["auto"], Since("2.25")]
    disk_over_commit: Annotated[LooseBool, Until("2.24", required=True)] = False
    force: Annotated[LooseBool, Since("2.30"), Until("2.67")] = False


def read(cls: type, value: object, version: str = "2.1", envelope: str | None = "it") -> Any:
    return plan(cls, Microversion.parse(version)).read(value, envelope)


def refusal(cls: type, value: object, version: str = "2.1", envelope: str | None = "it") -> str:
    with pytest.raises(BadRequest) as caught:
        read(cls, value, version, envelope)
    return caught.value.public


OLD = {"host": "h", "block_migration": False, "disk_over_commit": False}
AUTO = {"host": "h", "block_migration": "auto"}


@pytest.mark.parametrize(
    ("version", "body", "accepted"),
    [
        ("2.1", OLD, True),
        ("2.24", OLD, True),
        ("2.25", OLD, False),
        ("2.24", AUTO, False),
        ("2.25", AUTO, True),
        ("2.29", AUTO | {"force": True}, False),
        ("2.30", AUTO | {"force": "True"}, True),
        ("2.67", AUTO | {"force": False}, True),
        ("2.68", AUTO | {"force": False}, False),
        ("2.104", AUTO, True),
        ("2.1", {"host": "h", "block_migration": True}, False),
        ("2.30", AUTO | {"host": "a b"}, False),
        ("2.30", AUTO | {"host": "ab\n"}, False),
        ("2.30", AUTO | {"host": ""}, False),
        ("2.30", AUTO | {"host": None}, True),
        ("2.30", {"host": "h", "block_migration": "AUTO"}, False),
        ("2.30", {"host": "h", "block_migration": None}, False),
        ("2.30", {"host": "h", "block_migration": 1}, False),
    ],
)
def test_os_migrate_live_through_its_history(version: str, body: Mapping[str, object], accepted: bool) -> None:
    if accepted:
        assert read(MigrateLive, body, version).host == body["host"]
    else:
        assert refusal(MigrateLive, body, version)


class Named(Body):
    values: dict[str, str]


@pytest.mark.parametrize("key", ["0", "00", "+7", "12", "a"])
def test_a_key_that_reads_as_a_number_is_told_as_it_was_sent(key: str) -> None:
    assert refusal(Named, {"values": {"b": "", key: 5}}).startswith(
        f"Invalid input for field/attribute {key}. Value: 5."
    )


def test_boundaries_are_where_the_schema_changes_and_plans_are_shared_between_them() -> None:
    assert [str(v) for v in boundaries(MigrateLive)] == ["2.25", "2.30", "2.68"]
    assert plan(MigrateLive, Microversion(2, 30)) is plan(MigrateLive, Microversion(2, 67))
    assert plan(MigrateLive, Microversion(2, 29)) is not plan(MigrateLive, Microversion(2, 30))


@pytest.mark.parametrize(
    ("version", "body", "message"),
    [
        ("2.25", OLD, "Invalid input for field/attribute os-migrateLive. "
         "Value: {'host': 'h', 'block_migration': False, 'disk_over_commit': False}. "
         "Additional properties are not allowed ('disk_over_commit' was unexpected)"),
        ("2.25", {"block_migration": "auto"}, "Invalid input for field/attribute os-migrateLive. "
         "Value: {'block_migration': 'auto'}. 'host' is a required property"),
        ("2.25", AUTO | {"host": 5}, "Invalid input for field/attribute host. Value: 5. "
         "5 is not of type 'string', 'null'"),
        ("2.25", AUTO | {"host": ""}, "Invalid input for field/attribute host. Value: . '' should be non-empty"),
        ("2.25", AUTO | {"host": "ho/st"}, "Invalid input for field/attribute host. Value: ho/st. "
         "'ho/st' does not match '^[a-zA-Z0-9-._]*$'"),
        ("2.1", OLD | {"block_migration": 5}, "Invalid input for field/attribute block_migration. Value: 5. "
         "5 is not of type 'boolean', 'string'"),
        ("2.1", None, "Invalid input for field/attribute os-migrateLive. Value: None. None is not of type 'object'"),
        ("2.1", [], "Invalid input for field/attribute os-migrateLive. Value: []. [] is not of type 'object'"),
        ("2.1", "x", "Invalid input for field/attribute os-migrateLive. Value: x. 'x' is not of type 'object'"),
    ],
)  # fmt: skip
def test_refusals_are_worded_as_real_nova_words_them(version: str, body: object, message: str) -> None:
    assert refusal(MigrateLive, body, version, "os-migrateLive") == message


def test_the_first_error_is_told_in_the_order_of_the_schema() -> None:
    both = {"block_migration": 5, "zzz": 1, "host": "a b"}
    assert refusal(MigrateLive, both, "2.25").startswith("Invalid input for field/attribute host.")
    assert "block_migration" in refusal(MigrateLive, both | {"host": "h"}, "2.25")
    assert "'host' is a required" in refusal(MigrateLive, {"block_migration": "auto", "zzz": 1}, "2.25")
    assert "('yyy', 'zzz' were unexpected)" in refusal(MigrateLive, AUTO | {"zzz": 1, "yyy": 2}, "2.25")


def test_errors_in_lists_are_told_from_the_front() -> None:
    parts = [{"uuid": "first"}, {"uuid": 5, "zzz": 1}]
    assert "Value: first." in refusal(Everything, everything(parts=parts))


@pytest.mark.parametrize("word", [True, "True", "TRUE", "true", "1", "ON", "On", "on", "YES", "Yes", "yes"])
def test_nova_spells_true_so(word: object) -> None:
    assert read(MigrateLive, OLD | {"block_migration": word}).block_migration is True


@pytest.mark.parametrize("word", ["t", "y", "tRUE", "", "yes ", 1, 0, 1.0])
def test_and_not_so(word: object) -> None:
    assert refusal(MigrateLive, OLD | {"block_migration": word})


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Part(Body):
    uuid: Annotated[str, Json({"format": "uuid"})]
    tag: Annotated[str | Unset, Since("2.32")] = UNSET


class Everything(Body):
    whole: int
    real: float = 0.0
    positive: PositiveInteger = 1
    natural: NonNegativeInteger = 0
    small: integer_text(0, 9) = 0  # type: ignore[valid-type]
    colour: Colour = Colour.RED
    level: Literal[1, 2, "three", None] = None
    parts: list[Part] = ()  # type: ignore[assignment]
    names: tuple[str, ...] = ()
    pair: tuple[str, int] | None = None
    metadata: dict[Annotated[str, Json({"pattern": "^[a-z]{1,4}$"})], Annotated[str, Json({"maxLength": 3})]] | None = (
        None
    )
    anything: object = None
    part: Part | Unset = UNSET
    networks: list[Part] | Literal["auto", "none"] | Unset = UNSET
    disk_config: Annotated[str | None, Key("OS-DCF:diskConfig")] = None
    shout: Annotated[str | None, Convert(str.upper)] = None
    described: Annotated[str | None, Required(since="2.40"), Since("2.19")] = None
    number_or_text: Annotated[int | str, Versions(("2.1", int), ("2.50", str))] = 0


def everything(**more: object) -> dict[str, object]:
    return {"whole": 1, **more}


def test_every_kind_of_type_is_read() -> None:
    uuid = "11111111-2222-3333-4444-555555555555"
    got = read(
        Everything,
        everything(
            positive="7",
            natural=0,
            colour="blue",
            level="three",
            parts=[{"uuid": uuid}],
            names=["a"],
            pair=["a", 1],
            metadata={"ab": "c"},
            anything={"x": [1]},
            part={"uuid": uuid},
            networks=[{"uuid": uuid}],
            shout="hey",
            **{"OS-DCF:diskConfig": "AUTO"},
        ),
    )
    assert (got.positive, got.natural, got.colour, got.level) == (7, 0, Colour.BLUE, "three")
    assert isinstance(got.colour, Colour)
    assert got.parts == [Part(uuid=uuid)]
    assert (got.names, got.pair, got.metadata, got.anything) == (("a",), ("a", 1), {"ab": "c"}, {"x": [1]})
    assert got.part == Part(uuid=uuid)
    assert got.networks == [Part(uuid=uuid)]
    assert (got.disk_config, got.shout) == ("AUTO", "HEY")
    assert read(Everything, everything()).part is UNSET
    assert read(Everything, everything(networks="none")).networks == "none"
    assert read(Everything, everything(shout=None)).shout is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"whole": 1.0},
        {"whole": True},
        {"whole": "1"},
        {"real": "1"},
        {"positive": 0},
        {"positive": "0"},
        {"positive": "-1"},
        {"positive": ""},
        {"positive": "1\n"},
        {"positive": "9" * 30},
        {"natural": -1},
        {"natural": 1.0},
        {"small": "10"},
        {"small": 10},
        {"colour": "green"},
        {"colour": None},
        {"level": True},
        {"level": 3},
        {"parts": {}},
        {"parts": [{"uuid": "nope"}]},
        {"parts": [{"uuid": "11111111-2222-3333-4444-555555555555", "tag": "x"}]},
        {"names": [1]},
        {"pair": ["a"]},
        {"pair": ["a", 1, 2]},
        {"metadata": {"AB": "c"}},
        {"metadata": {"ab": "long"}},
        {"metadata": {"ab\n": "c"}},
        {"part": None},
        {"networks": "some"},
        {"networks": None},
        {"described": "x"},
        {"number_or_text": "x"},
        {"unknown": 1},
    ],
)
def test_and_every_wrong_one_is_refused(wrong: dict[str, object]) -> None:
    assert refusal(Everything, everything(**wrong))


def test_required_only_in_some_versions_and_another_type_from_one_on() -> None:
    assert read(Everything, everything(), "2.39").described is None
    assert "'described' is a required property" in refusal(Everything, everything(), "2.40")
    assert read(Everything, everything(number_or_text=5, described=None), "2.49").number_or_text == 5
    assert read(Everything, everything(number_or_text="x", described=None), "2.50").number_or_text == "x"


class Open(Body, extra="allow", max_properties=3):
    name: str


class Credentials(Body, secret=True):
    password: str
    user: Annotated[str, Json({"minLength": 1})]


class AtLeastOne(Body, min_properties=1):
    a: str | Unset = UNSET
    b: str | Unset = UNSET


def test_class_options() -> None:
    assert read(Open, {"name": "n", "x": 1}).extra == {"x": 1}
    assert "too many properties" in refusal(Open, {"name": "n", "x": 1, "y": 1, "z": 1})
    assert "should be non-empty" in refusal(AtLeastOne, {})


@pytest.mark.parametrize(
    "body", [{"password": 5, "user": "u"}, {"password": "hunter2"}, {"password": "hunter2", "user": ""}]
)
def test_a_secret_body_is_never_quoted(body: dict[str, object]) -> None:
    message = refusal(Credentials, body)
    assert "hunter2" not in message
    assert "5" not in message


@pytest.mark.parametrize("value", [["x"] * 100_000, {str(n): n for n in range(100_000)}, "x" * 100_000])
def test_of_a_large_value_no_more_is_copied_than_a_refusal_quotes(value: object) -> None:
    assert echo(value) == str(value)[:LONGEST_ECHO] + "..."
    assert len(str(_without_secrets(value))) < 20 * LONGEST_ECHO


@pytest.mark.parametrize("length", [LONGEST_ECHO, LONGEST_ECHO + 1])
def test_what_just_has_room_is_quoted_whole(length: int) -> None:
    assert echo("x" * length) == "x" * LONGEST_ECHO + ("..." if length > LONGEST_ECHO else "")


def test_the_validator_quotes_no_value_in_messages_of_its_own() -> None:
    [error] = plan(Credentials, Microversion(2, 1)).validator.iter_errors({"password": ["hunter2"], "user": "u"})
    assert "hunter2" not in str(error)


@pytest.mark.parametrize("value", [{"x": 1}, 1, "x", [], False])
def test_empty_means_empty_and_anything_means_anything(value: object) -> None:
    assert refusal(Empty, value)
    assert read(Anything, value) == Anything()
    assert read(Empty, None) == read(Empty, {}) == Empty()


def test_a_format_without_a_checker_is_refused_when_the_schema_is_made() -> None:
    class Wrong(Body):
        a: Annotated[str, Json({"format": "made-up"})]

    Wrong.__annotations__["a"] = Annotated[str, Json({"format": "made-up"})]
    with pytest.raises(TypeError, match="made-up"):
        json_schema(Wrong, Microversion(2, 1))


class Listing(Query, closed_since="2.75"):
    limit: Annotated[int, Json({"minimum": 0}), Single()] = 1000
    all_tenants: bool = False
    name: str | None = None
    status: list[str] = ()  # type: ignore[assignment]
    reader: Annotated[str | None, Since("2.80")] = None


def query(pairs: list[tuple[str, str]], version: str = "2.1") -> Any:
    return plan(Listing, Microversion.parse(version)).read_query(pairs)


def test_queries_are_read() -> None:
    got = query([("limit", "5"), ("all_tenants", "1"), ("name", "a"), ("name", "b"), ("status", "x"), ("status", "y")])
    assert (got.limit, got.all_tenants, got.name, list(got.status)) == (5, True, "b", ["x", "y"])


@pytest.mark.parametrize(
    ("pairs", "version"),
    [
        ([("limit", "x")], "2.1"),
        ([("limit", "-1")], "2.1"),
        ([("limit", "1"), ("limit", "2")], "2.1"),
        ([("limit", "")], "2.1"),
        ([("limit", "٣")], "2.1"),
        ([("all_tenants", "maybe")], "2.1"),
        ([("bogus", "1")], "2.75"),
        ([("reader", "1")], "2.79"),
    ],
)
def test_wrong_queries_are_refused(pairs: list[tuple[str, str]], version: str) -> None:
    with pytest.raises(BadRequest):
        query(pairs, version)


def test_a_refused_query_is_worded_as_real_nova_words_it() -> None:
    with pytest.raises(BadRequest) as caught:
        query([("limit", "x")])
    assert caught.value.public.startswith("Invalid input for query parameters limit. Value: x. 'x' does not match")


class InZone(Body, nullable=True):
    zone: str | Unset


def test_null_has_nothing_of_what_an_object_must_have() -> None:
    assert plan(InZone, Microversion(2, 1)).read(None, "unshelve").zone is UNSET
    with pytest.raises(BadRequest, match="'zone' is a required property"):
        plan(InZone, Microversion(2, 1)).read({}, "unshelve")


def test_every_body_that_may_be_null_is_read_where_it_is() -> None:
    read = 0
    for operation in (o for service in load_services() for o in service.operations):
        body = operation.body or Empty
        for version in (operation.since, *boundaries(body), operation.until):
            shape = plan(body, version or Microversion(2, 999))
            if shape.validator.is_valid(None):
                shape.read(None, None)
                read += 1
    assert read > 20
