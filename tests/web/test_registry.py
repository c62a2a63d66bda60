"""What must not be served stops the program: no rule, no schema, no version range, two answers to one request."""

from __future__ import annotations

from pathlib import Path

import pytest

from cumulet.processes.parts import load_services
from cumulet.web.app import App
from cumulet.web.context import Cloud
from cumulet.web.gaps import gaps
from cumulet.web.operation import Microversion, Rule, Service
from cumulet.web.policy import base_rule, rule
from cumulet.web.policy_language import PolicyError
from cumulet.web.router import RegistryError, Router
from cumulet.web.schema import Body, Empty
from tests.web.widgets import CREATE, GAPS


def service(listed: Path | None = None) -> Service:
    versions = (Microversion(2, 1), Microversion(2, 104))
    return Service(
        name="compute", type="compute", prefix="/compute/v2.1", versions=versions, microversioned=True, gaps=listed
    )


def handler(call: object) -> None:
    """Do nothing."""


async def streaming(call: object) -> None:
    """Do nothing."""


def test_an_operation_without_rules_is_refused() -> None:
    with pytest.raises(TypeError, match="policy rules"):
        service().operation("GET", "/a")


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
def test_an_operation_without_a_body_class_is_refused(method: str) -> None:
    with pytest.raises(TypeError, match="names its class"):
        service().operation(method, "/a", rules=())


def test_a_handler_without_a_docstring_is_refused() -> None:
    with pytest.raises(TypeError, match="docstring"):
        service().operation("GET", "/a", rules=())(lambda call: None)


@pytest.mark.parametrize(
    ("since", "until"), [("2.0", None), ("2.105", None), (None, "2.105"), ("2.50", "2.49"), ("1.1", "3.0")]
)
def test_an_operation_outside_the_services_versions_is_refused(since: str | None, until: str | None) -> None:
    wrong = service()
    wrong.operation("GET", "/a", rules=(), since=since, until=until)(handler)
    with pytest.raises(RegistryError, match="microversions"):
        Router([wrong])


def test_what_is_no_version_is_refused() -> None:
    with pytest.raises(ValueError, match="x"):
        service().operation("GET", "/a", rules=(), since="x")(handler)


@pytest.mark.parametrize(("until", "since"), [(None, "2.1"), ("2.50", "2.50"), (None, "2.90")])
def test_two_operations_for_one_request_are_refused(until: str | None, since: str) -> None:
    wrong = service()
    wrong.operation("GET", "/a/{x}", rules=(), until=until)(handler)
    wrong.operation("GET", "/a/{y}", rules=(), since=since)(handler)
    with pytest.raises(RegistryError, match="the same request"):
        Router([wrong])


def test_an_undeclared_rule_is_refused(cloud: Cloud) -> None:
    wrong = service()
    wrong.operation("GET", "/a", rules=(Rule("never:declared"),))(handler)
    with pytest.raises(PolicyError, match="never:declared"):
        App(cloud, [wrong])


def test_a_rule_declared_twice_differently_is_refused() -> None:
    assert rule(CREATE, "role:member") == CREATE
    with pytest.raises(PolicyError, match="twice"):
        rule(CREATE, "role:admin")
    with pytest.raises(PolicyError, match="twice"):
        base_rule(CREATE, "role:member")


def test_a_stream_needs_the_event_loop(cloud: Cloud) -> None:
    wrong = service()
    wrong.operation("PUT", "/a", rules=(), raw_body=True)(handler)
    with pytest.raises(TypeError, match="async def"):
        App(cloud, [wrong])
    right = service()
    right.operation("PUT", "/a", rules=(), raw_body=True)(streaming)
    App(cloud, [right])


class ManyValues(Body, most_values=10_000):
    """More than other bodies have."""


@pytest.mark.parametrize(("path", "when"), [("/a/{x}", None), ("/a", "x")])
def test_more_values_than_others_takes_only_what_asks_its_rules_first(
    cloud: Cloud, path: str, when: str | None
) -> None:
    wrong = service()
    wrong.operation("POST", path, rules=(Rule(CREATE, when=when),), body=ManyValues)(handler)
    with pytest.raises(TypeError, match="before it is read"):
        App(cloud, [wrong])
    right = service()
    right.operation("POST", "/a", rules=(Rule(CREATE),), body=ManyValues)(handler)
    App(cloud, [right])


def test_an_action_is_a_post() -> None:
    wrong = service()
    wrong.operation("PUT", "/a/action", action="x", rules=(), body=Empty)(handler)
    with pytest.raises(RegistryError, match="POST"):
        Router([wrong])


def test_a_body_class_must_be_of_known_types() -> None:
    class Odd(Body):
        when: complex

    from cumulet.web.schema import plan

    with pytest.raises(TypeError, match="complex"):
        plan(Odd, Microversion(2, 1))


def test_a_gap_that_an_operation_shadows_is_told() -> None:
    with_it = service(GAPS)
    assert Router([with_it], gaps([with_it])).shadowed == []
    with_it.operation("GET", "/os-aggregates", rules=())(handler)
    with_it.operation("POST", "/servers/{server_id}/action", action="addFixedIp", rules=(), body=Empty)(handler)
    shadowed = [str(gap) for gap in Router([with_it], gaps([with_it])).shadowed]
    assert shadowed == ["GET /os-aggregates", "POST /servers/{id}/action addFixedIp"]


def test_no_line_of_a_list_of_gaps_is_an_operation_and_every_line_can_be_routed() -> None:
    services = load_services()
    router = Router(services, gaps(services))
    assert [f"{gap.service.name} {gap}" for gap in router.shadowed] == []
    for gap in gaps(services):
        path = "/".join("x" if part.startswith("{") else part for part in gap.path.split("/"))
        found = router.find(gap.service.prefix + path)
        assert found is not None, gap
        place = found[0]
        assert (gap.action in place.gap_actions) if gap.action else (gap.method in place.gaps), gap


def test_every_rule_for_a_gap_names_one() -> None:
    for of in load_services():
        assert set(of.gap_rules) <= {str(gap) for gap in gaps([of])}, of.name


def test_a_path_that_does_not_begin_with_a_slash_is_refused() -> None:
    wrong = service()
    wrong.operation("GET", "a", rules=())(handler)
    with pytest.raises(RegistryError, match="does not begin with a slash"):
        Router([wrong])
