"""A request leaves nothing to the garbage collector: collecting stops everybody, by 8 ms for 20,000 objects."""

from __future__ import annotations

import gc
from collections import Counter
from types import FrameType

import pytest
import sqlalchemy as sa

from cumulet.db.engine import Tx
from cumulet.testing import Client, TestCloud
from cumulet.web.operation import Call
from tests.api.test_compute_servers import create

TIMES = 5


def left_behind() -> Counter[str]:
    """Objects of requests that only the collector would free, of all that became unreachable since it was disabled."""
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        gc.collect()
        found = Counter[str]()
        for one in gc.garbage:
            if isinstance(one, Call | Tx):
                found[type(one).__name__] += 1
            elif isinstance(one, sa.FromClause):
                found["a statement's table"] += 1
            elif isinstance(one, FrameType) and "cumulet/web" in one.f_code.co_filename:
                found[one.f_code.co_qualname] += 1
        return found
    finally:
        gc.set_debug(0)
        gc.garbage.clear()


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/servers/{server}", None, 200),
        ("GET", "/servers/detail", None, 200),
        ("PUT", "/servers/{server}/metadata", {"metadata": {"a": "b"}}, 200),
        ("GET", "/servers/nothing", None, 404),
        ("POST", "/servers/nothing/action", {"pause": None}, 404),
        ("POST", "/os-keypairs", {"keypair": {"name": ""}}, 400),
        ("PUT", "/os-quota-sets/some", {"quota_set": {"cores": 1}}, 403),
        ("POST", "/servers/{server}/action", {"unpause": None}, 409),
    ],
)
def test_a_request_leaves_nothing_to_the_collector(
    member: Client, method: str, path: str, body: object, status: int
) -> None:
    path = path.format(server=create(member)["id"])
    assert member.compute(method, path, body).status == status
    gc.collect()
    gc.disable()
    try:
        for _ in range(TIMES):
            member.compute(method, path, body)
        found = left_behind()
    finally:
        gc.enable()
    assert {name: count for name, count in found.items() if count >= TIMES} == {}


def test_a_move_leaves_nothing_to_the_collector(cloud: TestCloud, admin: Client, member: Client) -> None:
    server_id = create(member, networks="auto")["id"]

    def move() -> None:
        body = {"os-migrateLive": {"host": None, "block_migration": "auto"}}
        assert admin.action(server_id, body).status == 202
        cloud.idle()

    move()
    gc.collect()
    gc.disable()
    try:
        for _ in range(TIMES):
            move()
        found = left_behind()
    finally:
        gc.enable()
    assert {name: count for name, count in found.items() if count >= TIMES} == {}
