"""Our defaults are upstream's: check string and scope types of every rule we share a name with.

`tests/golden/policy` holds upstream's registered rules (nova 34.0.0, keystone 30.0.0, neutron 29.0.0, glance 33.0.0,
openstack-placement 16.0.0) as [check string, scope types].
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cumulet.processes.parts import load_services
from cumulet.web.policy import RULES, RuleDefault

GOLDEN = Path(__file__).parent.parent / "golden" / "policy"
UPSTREAM = {
    service: json.loads((GOLDEN / f"{name}.json").read_text())
    for service, name in {
        "compute": "nova",
        "identity": "keystone",
        "network": "neutron",
        "image": "glance",
        "placement": "placement",
    }.items()
}
ANY_SCOPE = {"project", "domain", "system"}

EXCEPTIONS = {
    ("compute", "cumulet:operations:list"): "our own: what runs and what is stuck",
    ("compute", "cumulet:paths:show"): "our own: what becomes of a packet",
    ("network", "update_port_binding"): "Neutron registers none; compared with what it registers for create and delete",
}
"""Rules upstream has not, each with its reason. This list only shrinks."""

load_services()
OURS = [rule for rule in RULES.values() if rule.service in UPSTREAM and not rule.base]


def words(check: str) -> str:
    """oslo.policy does not mind blanks and outer parentheses."""
    text = " ".join(check.split())
    return text[1:-1] if text.startswith("(") and text.endswith(")") and text.count("(") == 1 else text


def scopes(rule: RuleDefault) -> set[str]:
    return set(rule.scope) or ANY_SCOPE


@pytest.mark.parametrize("rule", OURS, ids=lambda rule: f"{rule.service}-{rule.name}")
def test_a_rule_is_upstreams(rule: RuleDefault) -> None:
    upstream = UPSTREAM[rule.service].get(rule.name)
    if upstream is None:
        assert (rule.service, rule.name) in EXCEPTIONS, f"upstream has no rule {rule.name}"
        return
    check, scope = upstream
    assert words(rule.check) == words(check)
    assert scopes(rule) == (set(scope) if scope else ANY_SCOPE)


@pytest.mark.parametrize("rule", [r for r in RULES.values() if r.base and r.service in UPSTREAM], ids=lambda r: r.key)
def test_a_base_rule_is_upstreams(rule: RuleDefault) -> None:
    upstream = UPSTREAM[rule.service].get(rule.name)
    if upstream is not None:
        assert words(rule.check) == words(upstream[0])


def test_no_exception_is_out_of_date() -> None:
    names = {(rule.service, rule.name) for rule in OURS}
    stale = [key for key in EXCEPTIONS if key not in names or key[1] in UPSTREAM[key[0]]]
    assert not stale
