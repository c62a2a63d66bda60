"""Asks every example as every persona, and describes the answers in words."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import cumulet.testing
from cumulet.testing import Answer, Client, JsonObject, TestCloud
from cumulet.web.operation import Operation

from . import compute_examples, identity_examples, image_examples, network_examples, placement_examples
from .example import PERSONAS, Example, Sent, key_of, request_of
from .rehearsal import opened, rehearsed

TABLES: Mapping[str, Any] = {
    "compute": compute_examples,
    "image": image_examples,
    "identity": identity_examples,
    "network": network_examples,
    "placement": placement_examples,
}
_UUID = re.compile(r"[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}")
UNKNOWN = "00000000-0000-4000-8000-000000000000"


@dataclass(frozen=True, slots=True)
class Case:
    """An operation and an example of it."""

    operation: Operation
    example: Example

    def __str__(self) -> str:
        label = f" [{self.example.label}]" if self.example.label else ""
        return f"{self.operation.service.name} {key_of(self.operation)}{label}"

    @property
    def refused(self) -> list[str]:
        """The personas with a token whom it is refused to."""
        return [persona for persona in PERSONAS if persona != "nobody" and self.example.expected(persona) is not None]


def cases(operations: list[Operation]) -> list[Case]:
    return [Case(operation, example) for operation in operations for example in examples_of(operation)]


def examples_of(operation: Operation) -> tuple[Example, ...]:
    table = TABLES.get(operation.service.name)
    found = None if table is None else table.EXAMPLES.get(key_of(operation), ())
    return found if isinstance(found, tuple) else () if found is None else (found,)


class Stage:
    """The cloud, and each service's things in it."""

    def __init__(self, cloud: TestCloud) -> None:
        self.cloud = cloud
        self._things: JsonObject = {}
        self.owner = cloud.persona("member").project_id
        for persona in PERSONAS:
            self.client(persona)

    def client(self, persona: str) -> Client:
        return self.cloud.anonymous() if persona == "nobody" else self.cloud.persona(persona)

    def request(self, case: Case) -> Sent:
        table = TABLES[case.operation.service.name]
        things = self._things.get(case.operation.service.name)
        if things is None:
            things = self._things[case.operation.service.name] = table.Things(self.cloud)
        return request_of(case.operation, case.example, table.PARAMETERS, things)

    def ask(self, case: Case, sent: Sent, persona: str) -> Answer:
        client = self.client(persona)
        if case.example.real:
            return send(client, sent)
        with rehearsed(self.cloud):
            return send(client, sent)

    def wrong_verdicts(self, case: Case) -> Iterator[str]:
        """What a persona was answered and should not have been: the rules are as they are."""
        sent = self.request(case)
        for persona in PERSONAS:
            expected = case.example.expected(persona)
            answer = self.ask(case, sent, persona)
            if not _as_expected(case, expected, answer):
                yield told(case, persona, sent, expected, answer)
            elif expected == 404 and (difference := self._told_apart(case, sent, persona, answer)):
                yield difference
            if case.example.real and answer.status < 300:
                sent = self.request(case)

    def _told_apart(self, case: Case, sent: Sent, persona: str, answer: Answer) -> str | None:
        """How a target out of sight is told from one that never was."""
        name = case.example.hidden or next(iter(sent.parameters), "")
        target = sent.parameters.get(name, "")
        if not case.example.hidden and not _UUID.fullmatch(target):
            return None
        unknown = dataclasses.replace(sent, path=sent.path.replace(target, UNKNOWN))
        other = self.ask(case, unknown, persona)
        if (other.status, _bare(other, UNKNOWN)) == (answer.status, _bare(answer, target)):
            return None
        return f"{persona} can tell {sent.path} from what never was: {answer.text} {other.status} {other.text}"

    def still_refused(self, case: Case) -> Iterator[tuple[str, str]]:
        """Who is refused though the rules that refuse are opened: the persona, and what happened in words."""
        sent = self.request(case)
        rules = frozenset(rule.name for rule in case.operation.rules) | frozenset(case.example.rules)
        for persona in case.refused:
            with opened(self.cloud, rules, self.owner if persona == "other_member" else None):
                answer = self.ask(case, sent, persona)
            if answer.status == case.example.expected(persona) or not _as_expected(case, None, answer):
                yield persona, told(case, persona, sent, None, answer)
            if case.example.real and answer.status < 300:
                sent = self.request(case)


@contextlib.contextmanager
def staged() -> Iterator[Stage]:
    """A cloud for examples. A copy that makes no headway is let go on for as long as the tests may take."""
    patience: JsonObject = {
        "migration_progress_timeout_seconds": 3600.0,
        "migration_timeout_seconds_per_gib": 3600.0,
    }
    with cumulet.testing.cloud(hosts=4, **patience) as cloud:
        yield Stage(cloud)


def send(client: Client, sent: Sent) -> Answer:
    return client.request(sent.method, sent.path, sent.body, headers=sent.headers, content=sent.content)


def _bare(answer: Answer, name: str) -> str:
    """The text of an answer without the name that was asked for, and without what every request has of its own."""
    return re.sub(r"req-[0-9a-f-]{36}", "req-", answer.text.replace(name, ""))


def _as_expected(case: Case, expected: int | None, answer: Answer) -> bool:
    if expected is not None:
        return answer.status == expected
    if case.example.answers is not None:
        return answer.status == case.example.answers
    return answer.status < 400


def told(case: Case, persona: str, sent: Sent, expected: int | None, answer: Answer) -> str:
    """One line: who asked what, what was expected, what came."""
    wanted = f"{expected} (refused)" if expected is not None else f"{case.example.answers or 'below 400'} (let through)"
    rules = ", ".join(rule.name for rule in case.operation.rules) or "none"
    return (
        f"{persona} asked {sent.method} {sent.path}: expected {wanted}, came {answer.status}"
        f" {answer.text[:200]} (rules: {rules}; body: {sent.body})"
    )
