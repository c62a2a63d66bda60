"""Generated from the registry: every operation asks for a token, and none falls over a stranger or over nonsense."""

from __future__ import annotations

import re
from typing import Any

import pytest

from cumulet.processes.parts import load_services
from cumulet.testing import Client, TestCloud
from cumulet.web.operation import Operation

UNKNOWN = "00000000-0000-4000-8000-000000000000"
OPERATIONS = [operation for service in load_services() for operation in service.operations]
GUARDED = [operation for operation in OPERATIONS if not operation.public]
NONSENSE: tuple[Any, ...] = ([], {}, {"": None}, {"server": 5}, "text", 17, {"a": {"b": [None, True, -1e9]}})


def name(operation: Operation) -> str:
    return f"{operation.service.name} {operation.method} {operation.path} {operation.action or ''}".strip()


def path_of(operation: Operation, value: str = UNKNOWN) -> str:
    return operation.service.prefix + re.sub(r"\{[^}]+\}", value, operation.path)


def body_of(operation: Operation) -> Any:
    if operation.action is not None:
        return {operation.action: None}
    return {} if operation.method in ("POST", "PUT", "PATCH") else None


def ask(client: Client, operation: Operation, body: Any, path: str | None = None) -> Any:
    latest = str(operation.until or operation.service.versions[1])
    headers = (
        {"OpenStack-API-Version": f"{operation.service.type} {latest}"} if operation.service.microversioned else {}
    )
    return client.request(operation.method, path or path_of(operation), body, headers=headers)


@pytest.mark.parametrize("operation", GUARDED, ids=name)
def test_it_asks_for_a_token(cloud_of_the_session: TestCloud, operation: Operation) -> None:
    nobody = cloud_of_the_session.anonymous()
    assert ask(nobody, operation, body_of(operation)).status == 401
    forged = Client(nobody.http, "gAAAAAB" + "x" * 120)
    assert ask(forged, operation, body_of(operation)).status == 401


@pytest.mark.parametrize("persona", ["reader", "other_member", "norole", "admin"])
@pytest.mark.parametrize("operation", [o for o in GUARDED if "{" in o.path], ids=name)
def test_what_never_was_is_refused_without_falling_over(
    cloud_of_the_session: TestCloud, operation: Operation, persona: str
) -> None:
    answer = ask(cloud_of_the_session.persona(persona), operation, body_of(operation))
    assert answer.status < 500 or answer.status == 501, answer.text
    for wrong in ("%00", "..%2f..%2fetc%2fpasswd", "x" * 300, "%F0%9F%92%A9", "'--"):
        answer = ask(cloud_of_the_session.persona(persona), operation, body_of(operation), path_of(operation, wrong))
        assert answer.status < 500 or answer.status == 501, f"{wrong}: {answer.text}"


@pytest.mark.parametrize("operation", [o for o in GUARDED if o.body is not None and not o.raw_body], ids=name)
def test_nonsense_is_refused_without_falling_over(cloud_of_the_session: TestCloud, operation: Operation) -> None:
    admin = cloud_of_the_session.persona("admin")
    for wrong in NONSENSE:
        body = {operation.action: wrong} if operation.action is not None else wrong
        answer = ask(admin, operation, body)
        assert answer.status < 500 or answer.status == 501, f"{wrong!r}: {answer.text}"


@pytest.fixture(scope="module")
def cloud_of_the_session(session_cloud: TestCloud) -> TestCloud:
    """Not made new for each of these many tests: they change nothing that the others see."""
    for persona in ("reader", "other_member", "norole", "admin"):
        session_cloud.persona(persona)
    return session_cloud
