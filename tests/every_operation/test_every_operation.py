"""Every operation asks for a token, and refuses names of nothing and bodies of nonsense without an error of ours.

The requests are those of the examples with one thing wrong. Without it they would be accepted.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest

from cumulet.testing import Answer, Client
from cumulet.web.schema import Anything

from .asking import UNKNOWN, Case, Stage, send
from .example import Sent
from .test_who_may import CASES

PLAIN = [case for case in CASES if not case.example.label]
NONSENSE: tuple[object, ...] = ([], "text", 17, {"": None}, {"a": {"b": [None, True, -1e9]}})
WRONG_NAMES = (UNKNOWN, "%00", "..%2f..%2fetc%2fpasswd", "x" * 300, "%F0%9F%92%A9", "'--")

NEW = "the request makes a thing of this name"
ANY_PROJECT = "OpenStack's services take any text for the name of a project"
ANY_NAME_WILL_DO = (
    {
        ("identity PUT /projects/{project_id}/tags/{tag}", "tag"): NEW,
        ("identity PUT /regions/{region_id}", "region_id"): NEW,
        ("compute PUT /servers/{server_id}/tags/{tag}", "tag"): NEW,
        ("compute GET /os-quota-class-sets/{class_name}", "class_name"): "every class has the default's limits",
        ("compute PUT /os-quota-class-sets/{class_name}", "class_name"): NEW,
        ("compute DELETE /os-quota-sets/{project_id}", "project_id"): ANY_PROJECT,
        ("compute GET /os-simple-tenant-usage/{project_id}", "project_id"): ANY_PROJECT,
        ("network GET /auto-allocated-topology/{project_id}", "project_id"): ANY_PROJECT,
        ("network GET /quotas/{project_id}", "project_id"): ANY_PROJECT,
        ("network GET /quotas/{project_id}/default", "project_id"): ANY_PROJECT,
        ("network GET /quotas/{project_id}/details", "project_id"): ANY_PROJECT,
        ("network PUT /quotas/{project_id}", "project_id"): ANY_PROJECT,
        ("image PUT /images/{image_id}/tags/{tag}", "tag"): NEW,
        ("image POST /metadefs/namespaces/{namespace}/tags/{tag_name}", "tag_name"): NEW,
        ("placement GET /allocations/{consumer_uuid}", "consumer_uuid"): "who holds nothing has no allocations",
        ("placement PUT /allocations/{consumer_uuid}", "consumer_uuid"): NEW,
    }
    | {
        (f"network PUT /{kind}s/{{{kind.replace('-', '_')}_id}}/tags/{{tag}}", "tag"): NEW
        for kind in ("network", "subnet", "subnetpool", "port", "router", "floatingip", "security-group", "trunk")
    }
    | {("network PUT /policies/{policy_id}/tags/{tag}", "tag"): NEW}
)
"""Parameters of paths that need not name anything that is there, each with its reason."""


def with_name(case: Case, sent: Sent, name: str, value: str) -> Sent:
    """The request with another value of one of the path's parameters."""
    path = case.operation.service.prefix + case.operation.path
    for parameter, usual in sent.parameters.items():
        path = path.replace(f"{{{parameter}}}", value if parameter == name else usual)
    query = sent.path.partition("?")[2]
    return dataclasses.replace(sent, path=f"{path}?{query}" if query else path)


def wrong_answers(case: Case, answers: Iterator[tuple[str, Answer, bool]]) -> list[str]:
    """What is not refused in words: `answers` has what was wrong, what came, and whether it may also be taken."""
    return [
        f"admin asked {case} with {wrong}: expected a refusal, came {answer.status} {answer.text[:200]}"
        for wrong, answer, may_be_taken in answers
        if not 400 <= answer.status < 500
        and answer.status != case.example.answers
        and not (may_be_taken and answer.status < 300)
    ]


@pytest.mark.parametrize("case", PLAIN, ids=str)
def test_it_asks_for_a_token(stage: Stage, case: Case) -> None:
    nobody, sent = stage.client("nobody"), stage.request(case)
    forged = Client(nobody.http, "gAAAAAB" + "x" * 120)
    came = {"no token": send(nobody, sent).status, "a token made up": send(forged, sent).status}
    assert came == {"no token": 401, "a token made up": 401}


@pytest.mark.parametrize("case", [case for case in PLAIN if "{" in case.operation.path], ids=str)
def test_the_name_of_nothing_is_refused_without_falling_over(stage: Stage, case: Case) -> None:
    sent = stage.request(case)

    def answers() -> Iterator[tuple[str, Answer, bool]]:
        for name in sent.parameters:
            any_name = (str(case), name) in ANY_NAME_WILL_DO
            for wrong in WRONG_NAMES:
                answer = stage.ask(case, with_name(case, sent, name, wrong), "admin")
                yield f"{name} {wrong[:32]}", answer, any_name and wrong != "%00"

    if wrong := wrong_answers(case, answers()):
        pytest.fail("\n".join(wrong), pytrace=False)


@pytest.mark.parametrize(
    "case", [c for c in PLAIN if c.operation.body not in (None, Anything) and not c.operation.raw_body], ids=str
)
def test_nonsense_is_refused_without_falling_over(stage: Stage, case: Case) -> None:
    sent = stage.request(case)

    def answers() -> Iterator[tuple[str, Answer, bool]]:
        for wrong in NONSENSE:
            body = {case.operation.action: wrong} if case.operation.action is not None else wrong
            yield f"the body {body!r}", stage.ask(case, dataclasses.replace(sent, body=body), "admin"), False

    if wrong := wrong_answers(case, answers()):
        pytest.fail("\n".join(wrong), pytrace=False)


def test_no_exception_is_out_of_date() -> None:
    known = {(str(case), name) for case in PLAIN for name in [*_parameters(case)]}
    assert ANY_NAME_WILL_DO.keys() <= known


def _parameters(case: Case) -> Iterator[str]:
    for segment in case.operation.path.split("/"):
        if segment.startswith("{"):
            yield segment[1:-1]
