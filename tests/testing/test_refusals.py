"""What a test asks for and does not exist is refused at once, with the names of what does; secrets are not shown."""

from __future__ import annotations

import math
from typing import Any

import pytest

import cumulet.testing
from cumulet.testing import TestCloud


@pytest.mark.parametrize(
    ("names", "known"),
    [
        ({"saga": "live_migration", "step": "copy_memory"}, "live-migration"),
        ({"saga": "live-migration", "step": "copy-memory"}, "copy_memory"),
        ({"saga": "live-migration", "step": "copy_memory", "host": "host3"}, "host1, host2"),
    ],
)
def test_a_fault_of_nothing_is_refused(cloud: TestCloud, names: dict[str, Any], known: str) -> None:
    with pytest.raises(ValueError, match=known):
        cloud.faults.fail(**names)


def test_every_step_that_is_offered_can_be_named(cloud: TestCloud) -> None:
    for name in cloud.embedded.runner.sagas:
        with pytest.raises(ValueError, match="there is no step") as refused:
            cloud.faults.fail(name, step="")
        for step in filter(None, str(refused.value).partition("there is: ")[2].split(", ")):
            cloud.faults.fail(name, step=step)


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
    ("seconds", "error"),
    [
        ("60", TypeError),
        (None, TypeError),
        (True, TypeError),
        (-0.1, ValueError),
        (math.nan, ValueError),
        (math.inf, ValueError),
        (1e12, ValueError),
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
