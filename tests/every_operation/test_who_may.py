"""Who may do what, of every operation: a real target, a request that would be accepted, every persona.

Each example is asked twice. First with the rules as they are: a persona who may not gets 403, or 404 where the target
is out of their sight, with the same words as for a target that does not exist. A persona who may is let through. Then
with the operation's own rules opened, and the caller of another project taken for one of the owner's: nobody is
refused. So it was the rule that refused, and the request was right otherwise.
"""

from __future__ import annotations

import pytest

from cumulet.processes.parts import load_services
from cumulet.web.operation import Operation

from .asking import TABLES, Case, Stage, cases, examples_of
from .example import key_of

OPERATIONS = [o for service in load_services() for o in service.operations if not o.public]
CASES = cases(OPERATIONS)
REFUSALS = [(str(case), persona) for case in CASES for persona in case.refused]

ONES_OWN = {
    f"identity {key}": "it gives away the caller's own rights, so the handler checks the caller again"
    for key in (
        "POST /users/{user_id}/application_credentials",
        "POST /OS-TRUST/trusts",
    )
}
OTHERS = ("admin", "manager", "reader", "norole", "service", "other_member")

CANNOT_BE_TOLD = {
    **{(case, persona): reason for case, reason in ONES_OWN.items() for persona in OTHERS},
    **{
        (
            "identity PUT /OS-OAUTH1/authorize/{request_token_id}",
            persona,
        ): "it gives away the caller's own roles, and the example gives the role admin"
        for persona in ("member", "manager", "reader", "norole", "service", "other_member")
    },
    (
        "compute GET /servers/{server_id}/os-volume_attachments/{volume_id}",
        "other_member",
    ): "servers have no volumes: it is 404 for everybody, in sight or not",
}
"""Refusals that opening the rules does not lift, each with its reason. This list only shrinks."""


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda o: f"{o.service.name} {key_of(o)}")
def test_every_operation_has_an_example_for_each_of_its_rules(operation: Operation) -> None:
    examples = examples_of(operation)
    assert examples, f"an example is missing: {key_of(operation)}"
    conditional = {rule.when for rule in operation.rules if rule.when is not None}
    given = {name for example in examples if isinstance(example.body, dict) for name in example.body}
    assert conditional <= given, f"an example with {sorted(conditional - given)} is missing"


@pytest.mark.parametrize("service", TABLES)
def test_no_example_is_out_of_date(service: str) -> None:
    known = {key_of(operation) for operation in OPERATIONS if operation.service.name == service}
    assert TABLES[service].EXAMPLES.keys() <= known


def test_refusals_that_cannot_be_told_are_few() -> None:
    assert CANNOT_BE_TOLD.keys() <= set(REFUSALS)
    assert len(REFUSALS) > 1000
    assert len(CANNOT_BE_TOLD) <= 0.05 * len(REFUSALS)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_each_persona_gets_what_the_rules_say(stage: Stage, case: Case) -> None:
    wrong = list(stage.wrong_verdicts(case))
    if wrong:
        pytest.fail("\n".join(wrong), pytrace=False)


@pytest.mark.parametrize("case", [case for case in CASES if case.refused], ids=str)
def test_it_is_the_rule_that_refuses(stage: Stage, case: Case) -> None:
    still = list(stage.still_refused(case))
    told = {persona: line for persona, line in still if (str(case), persona) not in CANNOT_BE_TOLD}
    if told:
        pytest.fail("\n".join(told.values()), pytrace=False)
    untold = {persona for persona, _ in still}
    stale = {persona for name, persona in CANNOT_BE_TOLD if name == str(case)} - untold
    assert not stale, f"can be told: {stale}"
