"""Control planes and agents of two versions understand each other's messages, unless a message uses what is new.

`tests/golden/protocol/N.json` has the messages of the first version of protocol N (`tests.host.samples`). While agents
of that protocol are supported (`joining.OLDEST_PROTOCOL`) the file is never written again. A failing test has found a
message that an agent of the version before does not understand, or that we do not understand from it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cumulet.compute import guest_agent
from cumulet.host import codec, joining, looking, telling
from cumulet.host import messages as m
from cumulet.testing import JsonObject
from tests.host import samples

GOLDEN = Path(__file__).parent.parent / "golden" / "protocol"
Samples = dict[str, JsonObject]
WRITTEN: dict[int, Samples] = {
    number: json.loads((GOLDEN / f"{number}.json").read_text(encoding="utf-8"))
    for number in range(joining.OLDEST_PROTOCOL, joining.PROTOCOL + 1)
}
NOW = samples.written()
NEW_VERBS: dict[int, dict[str, str]] = {
    1: {
        "look": f"is asked of agents whose protocol is no lower than {looking.SINCE_PROTOCOL}",
        "open-screen": "of an agent that does not know it the API answers that there is no screen",
        "tell-metadata": (why := f"only hosts that offer {telling.LIVE_METADATA} are told"),
        "set-password": f"guests have no channel to their agent on hosts that do not offer {guest_agent.FEATURE}",
        "traffic": "diagnostics of its servers are 409, and its dropped packets are not counted",
    },
    2: {"tell-metadata": why},
}
"""Verbs that agents of an older protocol do not know, and why nothing depends on their answer."""


ANSWERED_OTHERWISE = {1: {"verb diagnostics"}, 2: set[str]()}
"""Verbs whose answer from an older agent is an error of its host; so the API answers until the agent is upgraded."""


def cases(prefix: str) -> list[Any]:
    return [
        pytest.param(number, name, id=f"{number}-{name.removeprefix(prefix)}")
        for number, known in WRITTEN.items()
        for name in known
        if name.startswith(prefix)
    ]


def unknown(said: object, known: object, where: str = "") -> list[str]:
    """The fields in `said` that are not in `known`: the writer of `known` would refuse them."""
    match said, known:
        case dict(), dict():
            return [
                found
                for key, value in said.items()
                for found in (unknown(value, known[key], f"{where}.{key}") if key in known else [f"{where}.{key}"])
            ]
        case list(), list():
            return [found for one in said for found in unknown(one, known[0], f"{where}[]")] if known else []
    return []


@pytest.mark.parametrize(("number", "name"), cases("verb "))
def test_a_request_of_the_version_before_is_understood(number: int, name: str) -> None:
    for kind in ("least", "most"):
        message = WRITTEN[number][name][kind]
        request = codec.decode_request(codec.encode({"number": 1, "message": message}))
        assert m.name_of(type(request.message)) == message["verb"]
        again = json.loads(codec.encode(request))["message"]
        assert unknown(again, WRITTEN[number][name]["most"]) == [], "what is new and was not said is not said"


@pytest.mark.parametrize(("number", "name"), cases("verb "))
def test_an_answer_of_the_version_before_is_understood(number: int, name: str) -> None:
    old = WRITTEN[number][name]
    asked = codec.decode_request(codec.encode({"number": 1, "message": old["least"]})).message
    answers = [codec.Answer(1, old[kind]) for kind in ("least_answered", "most_answered")]
    if name in ANSWERED_OTHERWISE[number]:
        with pytest.raises(m.HostError):
            codec.value_of(answers[1], asked)
        return
    for answer in answers:
        codec.value_of(answer, asked)


@pytest.mark.parametrize(("number", "name"), cases("verb "))
def test_the_version_before_understands_what_says_nothing_new(number: int, name: str) -> None:
    """Both ways: an older agent is asked, an older control plane is answered. Its classes refuse unknown fields."""
    old, new = WRITTEN[number][name], NOW[name]
    assert unknown(new["least"], old["most"]) == []
    assert unknown(new["least_answered"], old["most_answered"]) == []
    # Fields that it requires are still there.
    assert unknown(old["least"], new["least"]) == []
    assert unknown(old["least_answered"], new["least_answered"]) == []


@pytest.mark.parametrize(("number", "name"), cases("joining "))
def test_so_it_is_with_what_is_said_to_join(number: int, name: str) -> None:
    old, new = WRITTEN[number][name], NOW[name]
    kind = getattr(joining, name.removeprefix("joining "))
    for one in ("least", "most"):
        msgspec.convert(old[one], kind)
    assert unknown(new["least"], old["most"]) == []
    assert unknown(old["least"], new["least"]) == []


@pytest.mark.parametrize("number", list(WRITTEN))
def test_verbs_that_an_older_agent_does_not_know_are_few_and_have_a_reason(number: int) -> None:
    new = {name.removeprefix("verb ") for name in NOW.keys() - WRITTEN[number].keys() if name.startswith("verb ")}
    assert new == NEW_VERBS[number].keys()
    assert WRITTEN[number].keys() - NOW.keys() == set(), "the version before still says it"


def test_a_field_that_the_version_before_does_not_know_is_found() -> None:
    known = {"a": 1, "of": [{"b": 2}]}
    assert unknown({"a": 5, "of": [{"b": 3}, {"c": 1}], "d": 0}, known) == [".of[].c", ".d"]
