"""People on a real guest's serial line: they log in, the log goes on, and the ring is back when they leave."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

import cumulet.testing
from cumulet.cli.websocket import WebSocketClient
from cumulet.drivers.qemu.facts import QemuFacts
from cumulet.host.driver import Image
from cumulet.testing import Client, TestCloud
from tests.api.servers import host_of, image_and_flavor, last_migration, other
from tests.api.test_consoles import address, on_console, until, why_closed

pytestmark = pytest.mark.qemu


@pytest.fixture(scope="module")
def cloud(facts: QemuFacts, image: Image) -> Iterator[TestCloud]:
    del facts, image
    with cumulet.testing.cloud(hosts=2, driver="qemu") as running:
        yield running


def console(client: Client, server: str) -> str:
    output: str = client.action(server, {"os-getConsoleOutput": {}})["output"]
    return output


def last_tick(client: Client, server: str) -> int:
    return int((re.findall(r"tick (\d+)", console(client, server)) or ["0"])[-1])


def test_one_logs_in_to_a_real_guest_and_goes_on_after_a_move(cloud: TestCloud) -> None:
    admin, member = cloud.persona("admin"), cloud.persona("member")
    wanted = image_and_flavor(member) | {"name": "one", "networks": "none"}
    made = member.compute("POST", "/servers", {"server": wanted})["server"]
    server, password = made["id"], made["adminPass"]
    member.wait_for_status(server, "ACTIVE")
    member.wait("ticks", lambda: last_tick(member, server) > 5, seconds=60)

    async def log_in(line: WebSocketClient) -> None:
        line.write(b"\r")
        await until(line, b"login: ")
        line.write(b"root\r")
        await until(line, b"Password: ")
        line.write(password.encode() + b"\r")
        await until(line, b"tiny# ")
        line.write(b"echo $((6 * 7))-is-it\r")
        await until(line, b"42-is-it")
        line.write(b"exit\r")
        await until(line, b"logged out")

    on_console(cloud, address(member, server), log_in)
    assert "42-is-it" in console(member, server), "the log has what was printed meanwhile"
    assert password not in console(member, server)
    before = last_tick(member, server)
    member.wait("the ring to fill the log again", lambda: last_tick(member, server) > before + 5, seconds=60)

    async def wrong(line: WebSocketClient) -> None:
        line.write(b"\r")
        await until(line, b"login: ")
        line.write(b"root\r")
        await until(line, b"Password: ")
        line.write(b"guess\r")
        await until(line, b"Login incorrect")

    on_console(cloud, address(member, server), wrong)

    async def moved(line: WebSocketClient) -> str | None:
        await until(line, b"tick ")
        destination = other(host_of(admin, server))
        move = {"os-migrateLive": {"block_migration": "auto", "host": destination}}
        assert admin.action(server, move).status == 202
        return await why_closed(line)

    why = str(on_console(cloud, address(member, server), moved))
    admin.wait("the move", lambda: last_migration(admin, server)["status"] == "completed", seconds=120)
    assert "moved" in why or "migrating" in why
    # At the end of a session the guest closes its line and opens it anew. What is typed meanwhile is lost.
    before = last_tick(member, server)
    member.wait("two seconds of the guest", lambda: last_tick(member, server) > before + 20, seconds=60)
    on_console(cloud, address(member, server), log_in)
    assert member.compute("DELETE", f"/servers/{server}").status == 204


def test_one_logs_in_to_a_rescued_guest_with_the_password_of_its_rescue(cloud: TestCloud) -> None:
    """It finds its drive behind its own disk, and nobody gets in without the password."""
    member = cloud.persona("member")
    wanted = image_and_flavor(member) | {"name": "rescued", "networks": "none"}
    server = member.compute("POST", "/servers", {"server": wanted})["server"]["id"]
    member.wait_for_status(server, "ACTIVE")
    member.wait("its name", lambda: "cumulet-tiny: rescued" in console(member, server), seconds=60)
    password = member.action(server, {"rescue": None})["adminPass"]
    member.wait_for_status(server, "RESCUE")
    member.wait("its name", lambda: console(member, server).count("cumulet-tiny: rescued") == 2, seconds=60)

    async def tried(line: WebSocketClient, word: bytes, wanted: bytes) -> None:
        line.write(b"\r")
        await until(line, b"login: ")
        line.write(b"root\r")
        await until(line, b"Password: ")
        line.write(word + b"\r")
        await until(line, wanted)

    on_console(cloud, address(member, server), lambda line: tried(line, b"guess", b"Login incorrect"))
    on_console(cloud, address(member, server), lambda line: tried(line, password.encode(), b"tiny# "))
    assert member.action(server, {"unrescue": None}).status == 202
    member.wait_for_status(server, "ACTIVE")
    assert member.compute("DELETE", f"/servers/{server}").status == 204
