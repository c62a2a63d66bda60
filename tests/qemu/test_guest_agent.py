"""The agent in a real guest sets a password that one logs in with, and lets the guest rest for an image."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import cumulet.testing
from cumulet.cli.websocket import WebSocketClient
from cumulet.drivers.qemu.facts import QemuFacts
from cumulet.host.driver import Image
from cumulet.testing import TestCloud
from tests.api.servers import host_of, image_and_flavor, other
from tests.api.test_consoles import address, on_console, until
from tests.api.test_create_image import made
from tests.api.test_guest_agent import say

from .test_console_sessions import console, last_tick

pytestmark = pytest.mark.qemu


@pytest.fixture(scope="module")
def cloud(facts: QemuFacts, image: Image) -> Iterator[TestCloud]:
    del facts, image
    with cumulet.testing.cloud(hosts=2, driver="qemu") as running:
        yield running


def test_another_password_and_an_image_at_rest_before_and_after_a_move(cloud: TestCloud) -> None:
    admin, member = cloud.persona("admin"), cloud.persona("member")
    say(admin, hw_qemu_guest_agent="yes", os_require_quiesce="yes")
    wanted = image_and_flavor(member) | {"name": "one", "networks": "none"}
    server = member.compute("POST", "/servers", {"server": wanted})["server"]["id"]
    member.wait_for_status(server, "ACTIVE")
    member.wait("ticks", lambda: last_tick(member, server) > 5, seconds=60)

    def change(word: str) -> None:
        answer = member.action(server, {"changePassword": {"adminPass": word}})
        assert answer.status == 202, answer.text

        async def log_in(line: WebSocketClient) -> None:
            line.write(b"\r")
            await until(line, b"login: ")
            line.write(b"root\r")
            await until(line, b"Password: ")
            line.write(word.encode() + b"\r")
            await until(line, b"tiny# ")
            line.write(b"exit\r")
            await until(line, b"logged out")

        on_console(cloud, address(member, server), log_in)
        assert word not in console(member, server)

    change("first-word")
    assert made(member, server)["status"] == "active"
    printed = console(member, server)
    assert (printed.count("at rest"), printed.count("goes on")) == (1, 1)
    move = {"os-migrateLive": {"block_migration": "auto", "host": other(host_of(admin, server))}}
    before = last_tick(member, server)
    assert admin.action(server, move).status == 202
    member.wait_for_status(server, "ACTIVE")
    member.wait("ticks after the move", lambda: last_tick(member, server) > before + 5, seconds=60)
    change("second-word")


def test_one_that_was_paused_answers_again(cloud: TestCloud) -> None:
    admin, member = cloud.persona("admin"), cloud.persona("member")
    say(admin, hw_qemu_guest_agent="yes")
    wanted = image_and_flavor(member) | {"name": "two", "networks": "none"}
    server = member.compute("POST", "/servers", {"server": wanted})["server"]["id"]
    member.wait_for_status(server, "ACTIVE")
    member.wait("ticks", lambda: last_tick(member, server) > 0, seconds=60)
    assert member.action(server, {"pause": None}).status == 202
    member.wait_for_status(server, "PAUSED")
    assert member.action(server, {"changePassword": {"adminPass": "x"}}).status == 409
    assert member.action(server, {"unpause": None}).status == 202
    member.wait_for_status(server, "ACTIVE")
    assert member.action(server, {"changePassword": {"adminPass": "x"}}).status == 202
