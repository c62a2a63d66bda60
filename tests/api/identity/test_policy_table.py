"""Every operation, asked by every kind of caller, answers as Keystone 30's registered defaults say.

The defaults are recorded in tests/golden/keystone/policies.json and judged by oslo.policy itself, over facts that this
package states for each request; neither the rules nor the facts of the code under test take part in the expectation.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from oslo_config import cfg
from oslo_policy import policy as oslo_policy

from cumulet.identity.api import IDENTITY
from cumulet.testing import JsonObject
from cumulet.web.policy import RULES
from tests.api.identity import policy_cases, policy_cases_of_the_cloud
from tests.api.identity.place import Place
from tests.api.identity.policy_world import CASES, Persona, Request, World

STATED_BY = (policy_cases, policy_cases_of_the_cloud)
"""Importing them states the cases."""

GOLDEN: dict[str, JsonObject] = json.loads(
    (Path(__file__).parents[2] / "golden" / "keystone" / "policies.json").read_text()
)
BASE_RULES = (
    "admin_required",
    "service_role",
    "service_or_admin",
    "token_subject",
    "domain_managed_target_role",
    "owner",
    "admin_or_owner",
)


def test_our_rules_are_keystones() -> None:
    ours = {name: rule for name, rule in RULES.items() if name.startswith("identity:")}
    assert len(ours) > 60
    for name, rule in ours.items():
        assert (name, " ".join(rule.check.split())) == (name, " ".join(GOLDEN[name]["check"].split()))
        assert (name, sorted(rule.scope)) == (name, GOLDEN[name]["scope"])
    for name in BASE_RULES:
        assert RULES[f"identity/{name}"].check == GOLDEN[name]["check"]


def keystones_enforcer() -> Any:
    conf = cfg.ConfigOpts()
    conf([], project="keystone-golden", default_config_files=[], default_config_dirs=[])
    enforcer = oslo_policy.Enforcer(conf)
    for name, rule in GOLDEN.items():
        enforcer.register_default(oslo_policy.RuleDefault(name, rule["check"], scope_types=rule["scope"] or None))
    return enforcer


RESTED_ON_BY_NO_TOKEN = (
    "/projects/{project_id}/tags",
    "/domains/{domain_id}/config",
    "/regions",
    "/services",
    "/endpoints",
    "/policies",
    "/OS-EP-FILTER",
    "/registered_limits",
    "/limits",
    "/OS-OAUTH1/consumers",
)
NEW = ("POST /domains", "POST /groups", "POST /projects", "POST /roles", "POST /users")
"""No token rests on what is made only now."""
OF_ANYBODY = (
    "/auth/tokens",
    "/users/{user_id}/application_credentials",
    "/users/{user_id}/access_rules",
    "/users/{user_id}/tokens",
    "/OS-TRUST/trusts",
    "/credentials",
    "/users/{user_id}/credentials",
    "/ec2tokens",
    "/s3tokens",
    "/users/{user_id}/OS-OAUTH1",
)
"""What anybody may change at any time. Only the tokens that it ends are looked at again."""


def test_every_operation_has_a_case() -> None:
    judged_otherwise = {
        "GET /auth/catalog",  # every token passes its rule, but only one for a project has a catalog
        # It gives the caller's own rights away, which only a caller with a project has.
        "POST /users/{user_id}/application_credentials",
        "POST /OS-TRUST/trusts",
        "PUT /OS-OAUTH1/authorize/{request_token_id}",
        "GET /domains/{domain_id}/config/{group}",  # which rule it is depends on the group
        "GET /domains/{domain_id}/config/{group}/{option}",
        "GET /OS-TRUST/trusts",  # which rule it is depends on the query
    }
    operations = {f"{o.method} {o.path}" for o in IDENTITY.operations if not o.public}
    assert {name.split(" (")[0] for name in CASES} == operations - judged_otherwise


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    place = Place(tmp_path_factory.mktemp("policy"))
    yield World(place)
    place.close()


@pytest.fixture(scope="module")
def personas(world: World) -> list[Persona]:
    return list(world.personas())


@pytest.fixture(scope="module")
def enforcer() -> Any:
    return keystones_enforcer()


@pytest.mark.parametrize("name", sorted(CASES))
def test_every_persona_gets_what_keystone_would_give(
    name: str, world: World, personas: list[Persona], enforcer: Any
) -> None:
    method, route = name.split(" (")[0].split(" ")
    [operation] = [o for o in IDENTITY.operations if (o.method, o.path) == (method, route)]
    seen: set[bool] = set()
    # Lists and "(own)" are about the caller. Others are about a thing, which is used until somebody may change it.
    of_caller = "(own)" in name or "{" not in route
    request: Request | None = None
    for persona in personas:
        request = CASES[name](world, persona) if request is None or of_caller else request
        allowed = all(enforcer.enforce(r.name, dict(request.facts), persona.credentials()) for r in operation.rules)
        headers = {"X-Subject-Token": request.subject} if request.subject else {}
        before = world.generation()
        answer = persona.session.request(method, request.path, request.body, headers)
        wrote = method not in ("GET", "HEAD") and allowed
        # Remembered tokens stop counting at a write of what they rest on, and at nothing else.
        rested_on = not route.startswith((*OF_ANYBODY, *RESTED_ON_BY_NO_TOKEN)) and f"{method} {route}" not in NEW
        examined_anew = wrote and rested_on
        assert world.generation() == before + examined_anew, persona.name
        outcome = (persona.name, answer.status_code if answer.status_code != 403 else "refused")
        if allowed:
            assert answer.status_code < 400, (outcome, answer.text)
        else:
            assert outcome == (persona.name, "refused"), answer.text
        seen.add(allowed)
        if wrote:
            request = None
    request = CASES[name](world, personas[0])
    assert world.place.nobody.request(method, request.path, request.body).status_code == 401
    assert True in seen, "nobody may do this: the facts of this case are wrong"
