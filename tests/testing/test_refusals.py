"""A name that does not exist is refused at once, with the valid names. Secrets are not shown."""

from __future__ import annotations

import math
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import cumulet.testing
from cumulet.testing import JsonObject, TestCloud


@pytest.mark.parametrize(
    ("names", "known"),
    [
        ({"saga": "live_migration", "step": "copy_memory"}, "live-migration"),
        ({"saga": "live-migration", "step": "copy-memory"}, "copy_memory"),
        ({"saga": "live-migration", "step": "copy_memory", "host": "host3"}, "host1, host2"),
    ],
)
def test_a_fault_of_nothing_is_refused(cloud: TestCloud, names: JsonObject, known: str) -> None:
    with pytest.raises(ValueError, match=known):
        cloud.faults.fail(**names)


def test_every_step_that_is_offered_can_be_named(cloud: TestCloud) -> None:
    for name in cloud.embedded.runner.sagas:
        with pytest.raises(ValueError, match="there is no step") as refused:
            cloud.faults.fail(name, step="")
        for step in filter(None, str(refused.value).partition("there is: ")[2].split(", ")):
            cloud.faults.fail(name, step=step)


@pytest.mark.parametrize("elsewhere", ["https://example.test/compute/v2.1", "//example.test/x", "https://127.0.0.1:1/"])
def test_a_token_goes_to_no_other_server(cloud: TestCloud, elsewhere: str) -> None:
    client = cloud.persona("member")
    with pytest.raises(ValueError, match="not this cloud"):
        client.request("GET", elsewhere)
    own = client.request("GET", "/compute/v2.1/servers").status
    assert client.request("GET", f"{cloud.url}/compute/v2.1/servers").status == own == 200


def test_the_reason_of_a_fault_is_text(cloud: TestCloud) -> None:
    with pytest.raises(TypeError, match="reason"):
        cloud.faults.fail("live-migration", step="copy_memory", reason=None)  # type: ignore[arg-type]


@pytest.mark.parametrize(("times", "error"), [(0, ValueError), (-1, ValueError), ("2", TypeError), (True, TypeError)])
def test_a_fault_comes_a_number_of_times(cloud: TestCloud, times: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="times"):
        cloud.faults.fail("live-migration", step="copy_memory", times=times)


def test_the_guests_of_no_host_are_refused(cloud: TestCloud) -> None:
    with pytest.raises(ValueError, match="host1, host2"):
        cloud.guests("host0")


@pytest.mark.parametrize(
    ("hosts", "error"),
    [(0, ValueError), (-1, ValueError), (1001, ValueError), ("2", TypeError), (True, TypeError), (1.5, TypeError)],
)
def test_a_cloud_has_a_number_of_hosts(hosts: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="hosts is"), cumulet.testing.cloud(hosts=hosts):
        pass


@pytest.mark.parametrize(
    ("argument", "named"),
    [
        ({"simulated_speed": "fast"}, "simulated_speed"),
        ({"simulated_speed": math.nan}, "simulated_speed"),
        ({"token_life_seconds": 0}, "token_life_seconds"),
        ({"token_life_seconds": "3600"}, "token_life_seconds"),
        ({"driver": "nosuch"}, "driver"),
        ({"listen_port": 65536}, "listen_port"),
        ({"policy_file": "policy.yaml"}, "policy_file"),
        ({"host_names": ("mine",)}, "host_names"),
        ({"state_dir": Path("mine")}, "state_dir"),
        ({"state": "mine"}, "state"),
        ({"more_parts": ["mine"]}, "more_parts"),
        ({"host": 2}, "host"),
    ],
)
def test_an_argument_that_cannot_be_is_named(argument: JsonObject, named: str) -> None:
    with pytest.raises((TypeError, ValueError), match=rf"\b{named}\b"), cumulet.testing.cloud(**argument):
        pass


@pytest.mark.parametrize(
    ("seconds", "error"),
    [
        ("60", TypeError),
        (timedelta(seconds=60), TypeError),
        (None, TypeError),
        (True, TypeError),
        (-0.1, ValueError),
        (math.nan, ValueError),
        (math.inf, ValueError),
        (1e12, ValueError),
        (10**400, ValueError),
        (-(10**400), ValueError),
    ],
)
def test_time_goes_on_by_a_number_of_seconds(cloud: TestCloud, seconds: Any, error: type[Exception]) -> None:
    before = cloud.clock.monotonic()
    with pytest.raises(error):
        cloud.clock.advance(seconds)
    assert cloud.clock.monotonic() - before < 3600


@pytest.mark.parametrize("name", ["Admin", "", "member ", "other-member", "boss", "_member", "member_", "other_Member"])
def test_a_persona_that_is_none_is_refused(cloud: TestCloud, name: str) -> None:
    with pytest.raises(ValueError, match="member or other_reader2"):
        cloud.persona(name)


@pytest.mark.parametrize("name", [None, 3, b"member"])
def test_a_persona_is_named_in_text(cloud: TestCloud, name: Any) -> None:
    with pytest.raises(TypeError, match="text"):
        cloud.persona(name)


@pytest.mark.parametrize(
    ("user", "named"),
    [
        ({"name": None}, "name"),
        ({"name": "x" * 300}, "no user"),
        ({"project": None}, "project"),
        ({"project": ""}, "no project"),
        ({"project": "x" * 300}, "no project"),
        ({"roles": ()}, "roles is empty"),
        ({"roles": None}, "roles"),
        ({"roles": (3,)}, "roles"),
        ({"roles": ("member", "")}, "no role"),
    ],
)
def test_a_user_that_cannot_be_is_not_made(cloud: TestCloud, user: JsonObject, named: str) -> None:
    good: JsonObject = {"name": "ann", "project": "own", "roles": ("member",)}
    admin = cloud.persona("admin")
    before = admin.request("GET", "/identity/v3/users").text
    with pytest.raises((TypeError, ValueError), match=named):
        cloud.user(**(good | user))
    assert admin.request("GET", "/identity/v3/users").text == before


def test_a_name_is_sent_as_it_is(cloud: TestCloud) -> None:
    cloud.user("ann", project="own", roles=("member",))
    other = cloud.user("bob", project="own&name=other#1", roles=("member",))
    project = cloud.persona("admin").request("GET", f"/identity/v3/projects/{other.project_id}")["project"]
    assert project["name"] == "own&name=other#1"


@pytest.mark.parametrize("name", ["", "Demo", "admin", None, 3])
def test_a_connection_is_an_entry_of_clouds_yaml(cloud: TestCloud, name: Any) -> None:
    with pytest.raises(ValueError, match="cumulet, demo"):
        cloud.connection(name)


@pytest.mark.parametrize(
    ("protocol", "port", "named"),
    [
        ("tpc", 22, "icmp, tcp, udp"),
        (None, 22, "icmp, tcp, udp"),
        ("tcp", None, "tcp needs a port"),
        ("tcp", "22", "port"),
        ("tcp", True, "port"),
        ("udp", 0, "port"),
        ("udp", 65536, "port"),
    ],
)
def test_what_is_asked_of_the_network_can_be(cloud: TestCloud, protocol: Any, port: Any, named: str) -> None:
    with pytest.raises((TypeError, ValueError), match=named):
        cloud.network.reachable("192.0.2.1", "192.0.2.2", protocol, port)


@pytest.mark.parametrize("name", ["mine", "", None])
def test_a_port_that_is_none_is_named(cloud: TestCloud, name: Any) -> None:
    with pytest.raises(KeyError, match="there is no port"):
        cloud.network.reachable("192.0.2.1", name, "tcp", 22)


def test_a_user_is_made_once(cloud: TestCloud) -> None:
    cloud.user("ann", project="own", roles=("member",))
    with pytest.raises(ValueError, match="a user called 'ann' already"):
        cloud.user("ann", project="own", roles=("member",))
    with pytest.raises(ValueError, match="a user called 'demo' already"):
        cloud.user("demo", project="own", roles=("member",))
    with pytest.raises(ValueError, match="no user can be called ''"):
        cloud.user("", project="own", roles=("member",))
    with pytest.raises(TypeError, match="roles"):
        cloud.user("bob", project="own", roles="member")  # type: ignore[arg-type]


def test_nothing_that_a_failing_test_prints_holds_a_secret(cloud: TestCloud) -> None:
    member = cloud.persona("member")
    passwords = cloud.embedded.passwords.by_user.values()
    auth = {
        "identity": {
            "methods": ["password"],
            "password": {
                "user": {
                    "name": "demo",
                    "domain": {"id": "default"},
                    "password": cloud.embedded.passwords.by_user["demo"],
                }
            },
        }
    }
    answer = member.request("POST", "/identity/v3/auth/tokens", {"auth": auth})
    key = member.compute("POST", "/os-keypairs", {"keypair": {"name": "key"}}, version="2.1")
    assert (answer.status, key.status) == (201, 200)
    secrets = [member.token, answer.headers["X-Subject-Token"], key["keypair"]["private_key"][40:80], *passwords]
    for shown in (member, cloud, cloud.embedded, cloud.embedded.passwords, answer, key):
        for secret in secrets:
            assert secret is not None
            assert secret not in repr(shown)
    assert "***" in repr(key)
