"""Requests that are refused, each a function that makes it; with the status and words it has to be refused with."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from cumulet.testing import Answer, Client, JsonObject, TestCloud

Ask = Callable[["Scene"], Answer]


class Scene:
    """A cloud, and short ways to ask it."""

    def __init__(self, cloud: TestCloud) -> None:
        self.cloud = cloud
        self.admin = cloud.persona("admin")

    @property
    def member(self) -> Client:
        return self.cloud.persona("member")

    def new_name(self) -> str:
        return f"n-{self.cloud.clock.uuid()}"

    def network(self, method: str, path: str, body: object = None, *, who: Client | None = None) -> Answer:
        return (who or self.admin).request(method, f"/network/v2.0{path}", body)

    def identity(self, method: str, path: str, body: object = None, *, who: Client | None = None) -> Answer:
        return (who or self.admin).request(method, f"/identity/v3{path}", body)

    def made(self, kind: str, path: str = "", **attributes: object) -> JsonObject:
        """A resource of Network."""
        answer = self.network("POST", path or f"/{kind.replace('_', '-')}s", {kind: attributes})
        assert answer.status == 201, answer.text
        found: dict[str, object] = answer[kind]
        return found


class Refusal(NamedTuple):
    """`name`: the function's, which says what is asked."""

    name: str
    status: int
    words: str
    ask: Ask

    def check(self, scene: Scene) -> None:
        """Asked for, it is refused in these words."""
        answer = self.ask(scene)
        assert (answer.status, self.words in answer.text) == (self.status, True), f"{answer.status}: {answer.text}"


def table() -> tuple[list[Refusal], Callable[[int, str], Callable[[Ask], Ask]]]:
    """A new table, and the decorator that puts a function into it."""
    kept: list[Refusal] = []

    def refused(status: int, words: str) -> Callable[[Ask], Ask]:
        def keep(ask: Ask) -> Ask:
            kept.append(Refusal(ask.__name__, status, words, ask))
            return ask

        return keep

    return kept, refused
