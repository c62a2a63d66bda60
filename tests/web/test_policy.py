"""The compiled policy gives the verdicts of oslo.policy's Enforcer, and a doubtful policy stops the start."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oslo_config import cfg
from oslo_policy import policy as oslo

from cumulet.web.operation import Caller
from cumulet.web.policy import Policy, RuleDefault, Scope
from cumulet.web.policy_language import CREDENTIALS, PolicyError

PROJECTS = ("p1", "p2")
BASES = {
    "admin_required": "role:admin",
    "owner": "user_id:%(user_id)s",
    "project_reader": "role:reader and project_id:%(project_id)s",
    "project_reader_or_admin": "rule:project_reader or rule:admin_required",
    "everybody": "",
    "nobody": "!",
}
ATOMS = [
    *(f"rule:{name}" for name in BASES),
    "@", "!", "role:admin", "role:MEMBER", "role:%(wanted_role)s", "project_id:%(project_id)s", "user_id:%(user_id)s",
    "is_admin:True", "is_admin:1", "system_scope:all", "domain_id:%(target.user.domain_id)s", "'p1':%(project_id)s",
    "True:%(enabled)s", "None:%(nothing)s", "1:%(number)s", "project_id:p1", "project_id:None", "user_id:%(absent)s",
    "'x-p1-y':x-%(project_id)s-y", "project_domain_id:%(target.user.domain_id)s", "user_domain_id:default",
]  # fmt: skip


def check_strings() -> st.SearchStrategy[str]:
    return st.recursive(
        st.sampled_from(ATOMS),
        lambda inner: st.one_of(
            st.builds("{} and {}".format, inner, inner),
            st.builds("{} or {}".format, inner, inner),
            st.builds("({})".format, inner),
            st.builds("not {}".format, st.sampled_from(ATOMS)),
            st.builds("not ({})".format, inner),
            st.builds("({} or {}) AND {}".format, inner, inner, inner),
        ),
        max_leaves=8,
    )


@st.composite
def callers(draw: st.DrawFn) -> Caller:
    scope = draw(st.sampled_from(["project", "domain", "system", "none"]))
    return Caller(
        user_id=draw(st.sampled_from(["u1", "u2"])),
        user_name="n",
        user_domain_id=draw(st.sampled_from(["default", "d2"])),
        roles=frozenset(draw(st.sets(st.sampled_from(["admin", "Admin", "member", "reader", "manager"])))),
        project_id=draw(st.sampled_from(PROJECTS)) if scope == "project" else None,
        project_domain_id="default" if scope == "project" else None,
        domain_id=draw(st.sampled_from(["default", "d2"])) if scope == "domain" else None,
        system=scope == "system",
    )


FACTS = st.fixed_dictionaries(
    {
        "project_id": st.sampled_from([*PROJECTS, None]),
        "user_id": st.sampled_from(["u1", "u2", None]),
        "enabled": st.sampled_from([True, False, "True"]),
        "nothing": st.none() | st.just("None") | st.just("x"),
        "number": st.sampled_from([1, "1", 2]),
    },
    optional={
        "target.user.domain_id": st.sampled_from(["default", "d2"]),
        "wanted_role": st.sampled_from(["admin", "READER"]),
    },
)
SCOPES: st.SearchStrategy[tuple[Scope, ...]] = st.lists(
    st.sampled_from(["project", "domain", "system"]), unique=True, max_size=3
).map(tuple)  # type: ignore[arg-type]


def declared(name: str, check: str, scope: tuple[Scope, ...] = (), *, base: bool = False) -> RuleDefault:
    return RuleDefault(name=name, check=check, scope=scope, description="", base=base)


class _EnforcerWithoutFiles(oslo.Enforcer):
    def load_rules(self, force_reload: bool = False) -> None:
        """The rules are set by hand."""


def oslo_says(check: str, scope: tuple[Scope, ...], caller: Caller, facts: Mapping[str, object]) -> bool:
    enforcer = _EnforcerWithoutFiles(cfg.ConfigOpts(), use_conf=False)
    rules = {name: oslo.RuleDefault(name, text) for name, text in BASES.items()}
    rules["it"] = oslo.RuleDefault("it", check, scope_types=list(scope) or None)
    enforcer.register_defaults(list(rules.values()))
    enforcer.set_rules(oslo.Rules({name: rule.check for name, rule in rules.items()}), use_conf=False)
    credentials = {name: read(caller) for name, read in CREDENTIALS.items() if name != "system"}
    credentials["roles"] = list(caller.roles)
    return bool(enforcer.enforce("it", facts, credentials))


@settings(max_examples=400, deadline=None)
@given(check_strings(), SCOPES, callers(), FACTS)
def test_verdicts_equal_those_of_oslo_policy(
    check: str, scope: tuple[Scope, ...], caller: Caller, facts: Mapping[str, object]
) -> None:
    rules = [declared(name, text, base=True) for name, text in BASES.items()]
    policy = Policy.compile([*rules, declared("it", check, scope)])
    assert policy.check("it", caller, facts) is oslo_says(check, scope, caller, facts)


@pytest.mark.parametrize(
    "check",
    [
        "role:admin and",
        "or role:admin",
        "(role:admin",
        "role:admin)",
        "role:admin role:member",
        "not",
        "admin",
        "rule:missing",
        "http://example.org/%(x)s",
        "colour:red",
        "project_id:%(project_id",
        "field:networks",
    ],
)
def test_what_is_not_understood_stops_the_start(check: str) -> None:
    with pytest.raises(PolicyError):
        Policy.compile([declared("it", check)])


def test_rules_in_a_circle_stop_the_start() -> None:
    with pytest.raises(PolicyError, match="circle"):
        Policy.compile([declared("a", "rule:b"), declared("b", "not rule:a")])


def test_fields_are_compared_as_neutron_does() -> None:
    policy = Policy.compile(
        [declared("shared", "field:networks:shared=True"), declared("owned", "field:port:device_owner=~^network:")]
    )
    caller = Caller(user_id="u", user_name="n", user_domain_id="d", roles=frozenset())
    assert policy.check("shared", caller, {"shared": True})
    assert not policy.check("shared", caller, {"shared": False})
    assert not policy.check("shared", caller, {})
    assert policy.check("owned", caller, {"device_owner": "network:dhcp"})
    assert not policy.check("owned", caller, {"device_owner": "compute:network:"})


def test_an_operators_file_is_laid_over_the_defaults(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text('"it": "rule:mine"\n"mine": "role:operator"\n')
    overrides = {"it": "rule:mine", "mine": "role:operator"}
    policy = Policy.compile([declared("it", "role:admin")], overrides)
    operator = Caller(user_id="u", user_name="n", user_domain_id="d", roles=frozenset({"operator"}))
    assert policy.check("it", operator, {})
    with pytest.raises(PolicyError, match="mine"):
        Policy.compile([declared("it", "role:admin")], {"mine": "role:operator"})


@pytest.mark.parametrize("text", ["- a list", '"widgets:show": [["role:admin"]]', '"no:such:rule": "@"', "{{{", "1: 2"])
def test_a_wrong_policy_file_stops_the_start(tmp_path: Path, text: str) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(text)
    with pytest.raises(PolicyError):
        Policy.load(file)


def test_a_missing_policy_file_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):  # No PolicyError: those are never tried again, and it may come with a mount.
        Policy.load(tmp_path / "none.yaml")


def test_a_rule_that_is_used_but_not_declared_stops_the_start() -> None:
    with pytest.raises(PolicyError, match="not:declared"):
        Policy.compile([declared("it", "@")]).require_known(["it", "not:declared"])
