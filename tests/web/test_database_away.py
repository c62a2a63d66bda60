"""While the database cannot be reached, requests answer 503 with `Retry-After`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from cumulet.db.engine import opened
from cumulet.db.reach import is_away
from cumulet.web.app import App
from cumulet.web.context import Cloud
from cumulet.web.operation import Caller
from tests.web.conftest import Answer, Client
from tests.web.widgets import SERVICES

W = "/compute/v2.1/widgets"
NOWHERE = "postgresql://nobody@127.0.0.1:1/nothing"


@pytest.fixture
def away(cloud: Cloud) -> Iterator[Cloud]:
    with opened(NOWHERE) as database:
        yield msgspec.structs.replace(cloud, db=database)


class TokensInTheDatabase:
    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud

    async def authenticate(self, token: str, *, service: str, method: str, path: str) -> Caller | None:
        await self._cloud.db.read_async(lambda tx: tx.scalar(sa.text("SELECT 1")))
        return None


def send(cloud: Cloud, method: str, path: str) -> Answer:
    return asyncio.run(Client(App(cloud, SERVICES)).send(method, path, {"widget": {"name": "x"}}))


@pytest.mark.parametrize(("method", "path"), [("GET", f"{W}/w1"), ("POST", W), ("DELETE", f"{W}/w1")])
def test_a_request_is_503_and_may_be_tried_again(away: Cloud, method: str, path: str) -> None:
    answer = send(away, method, path)
    assert (answer.status, answer.header("retry-after")) == (503, "1")
    assert answer.message == "The cloud's database cannot be reached. Try again soon."


@pytest.mark.parametrize("path", [W, "/metrics"])
def test_so_it_is_where_the_token_cannot_be_looked_up(away: Cloud, path: str) -> None:
    answer = send(msgspec.structs.replace(away, identity=TokensInTheDatabase(away)), "GET", path)
    assert (answer.status, answer.header("retry-after")) == (503, "1")


def test_health_says_it(away: Cloud) -> None:
    answer = send(away, "GET", "/healthz")
    assert (answer.status, answer.json) == (503, {"status": "the database does not answer"})


@pytest.mark.parametrize(
    ("url", "statement", "away"),
    [
        (NOWHERE, "SELECT 1", True),
        ("sqlite:///{}/nowhere/cumulet.db", "SELECT 1", True),
        ("sqlite:///{}/cumulet.db", "SELECT nothing", False),
    ],
)
def test_what_is_wrong_with_a_statement_is_another_matter(tmp_path: Path, url: str, statement: str, away: bool) -> None:
    with opened(url.format(tmp_path), inline=True) as database, pytest.raises(DBAPIError) as problem:
        database.read(lambda tx: tx.scalar(sa.text(statement)))
    assert is_away(problem.value) is away
