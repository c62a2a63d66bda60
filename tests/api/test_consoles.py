"""Serial consoles: an address that is good once, a WebSocket on the API's port, and every way a session ends."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from cumulet.cli.console import ESCAPE, attach
from cumulet.cli.websocket import Refused, WebSocketClient
from cumulet.compute import console_door
from cumulet.compute.consoles import TOKEN_SECONDS, TOKENS_OF_A_SERVER, console_tokens
from cumulet.compute.store import servers
from cumulet.host import messages as m
from cumulet.host.console_messages import OpenConsole
from cumulet.host.consoles import BUFFER_BYTES, SESSIONS_OF_ONE, UNHEARD_SECONDS, Session, Sessions
from cumulet.host.driver import DriverError
from cumulet.testing import Client, JsonObject, TestCloud
from cumulet.web.doors import LARGEST_MESSAGE
from tests.api.servers import host_of
from tests.api.test_compute_servers import create
from tests.links import Way, instead

SERIAL = {"remote_console": {"protocol": "serial", "type": "serial"}}
SECONDS = 60.0


def address(client: Client, server: str) -> str:
    answer = client.compute("POST", f"/servers/{server}/remote-consoles", SERIAL)
    assert answer.status == 200, answer.text
    url: str = answer["remote_console"]["url"]
    return url


def trusting(cloud: TestCloud) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(cloud.cacert))


def on_console(
    cloud: TestCloud,
    url: str,
    story: Callable[[WebSocketClient], Awaitable[Any]],
    *,
    seconds: float = SECONDS,
    **more: Any,
) -> Any:
    async def told() -> Any:
        line = await WebSocketClient.connect(url, trusting(cloud), **more)
        try:
            async with asyncio.timeout(seconds):
                return await story(line)
        finally:
            await line.close()

    return asyncio.run(told())


async def until(line: WebSocketClient, wanted: bytes) -> bytes:
    seen = b""
    while wanted not in seen:
        data = await line.read()
        assert data, f"closed ({line.closed}) after {seen!r}"
        seen += data
    return seen


async def why_closed(line: WebSocketClient) -> str | None:
    while await line.read():
        pass
    return line.closed


def test_one_logs_in_and_is_answered(cloud: TestCloud, member: Client) -> None:
    server = create(member)["id"]

    async def story(line: WebSocketClient) -> None:
        await until(line, b"login: ")
        line.write(b"me\r")
        await until(line, b"Password: ")
        line.write(b"secret\r")
        seen = await until(line, b"$ ")
        assert b"secret" not in seen
        line.write(b"hostname\r")
        await until(line, b"one\r\n")

    on_console(cloud, address(member, server), story)


def test_an_address_is_good_once_and_for_a_minute(cloud: TestCloud, member: Client) -> None:
    server = create(member)["id"]
    url = address(member, server)
    on_console(cloud, url, lambda line: until(line, b"login: "))
    assert "used already" in on_console(cloud, url, why_closed)
    late = address(member, server)
    cloud.clock.advance(TOKEN_SECONDS + 1)
    assert "run out" in on_console(cloud, late, why_closed)
    assert "used already" in on_console(cloud, url.partition("=")[0] + "=" + "a" * 43, why_closed)
    assert "used already" in on_console(cloud, url.partition("?")[0], why_closed)


def test_an_address_is_for_the_guest_as_it_was(cloud: TestCloud, member: Client) -> None:
    server = create(member)["id"]
    url = address(member, server)
    member.action(server, {"reboot": {"type": "HARD"}})
    member.wait_for_status(server, "ACTIVE")
    assert "changed" in on_console(cloud, url, why_closed)


def test_only_so_many_addresses_wait_to_be_used(cloud: TestCloud, member: Client) -> None:
    server = create(member)["id"]
    urls = [address(member, server) for _ in range(TOKENS_OF_A_SERVER + 1)]
    assert "used already" in on_console(cloud, urls[0], why_closed)
    on_console(cloud, urls[-1], lambda line: until(line, b"login: "))


@pytest.mark.parametrize(
    ("action", "words"), [({"os-stop": None}, "stopped"), ({"suspend": None}, "suspended"), (None, "deleted")]
)
def test_a_session_ends_with_its_guest_and_says_why(
    cloud: TestCloud, member: Client, action: JsonObject | None, words: str
) -> None:
    server = create(member)["id"]

    async def story(line: WebSocketClient) -> str | None:
        await until(line, b"login: ")
        if action is None:
            member.compute("DELETE", f"/servers/{server}")
            await asyncio.to_thread(
                member.wait, "its end", lambda: member.compute("GET", f"/servers/{server}").status == 404
            )
        else:
            await asyncio.to_thread(member.action, server, action)
        return await why_closed(line)

    assert words in str(on_console(cloud, address(member, server), story))


def test_a_session_ends_with_a_move(cloud: TestCloud, member: Client) -> None:
    server = create(member)["id"]
    admin = cloud.persona("admin")

    async def story(line: WebSocketClient) -> str | None:
        await until(line, b"login: ")
        move = {"os-migrateLive": {"host": None, "block_migration": "auto"}}
        assert (await asyncio.to_thread(admin.action, server, move)).status == 202
        return await why_closed(line)

    why = str(on_console(cloud, address(member, server), story))
    assert "moved to another host" in why or "migrating" in why
    member.wait_for_status(server, "ACTIVE")
    on_console(cloud, address(member, server), lambda line: until(line, b"login: "))


def test_only_so_many_are_on_one_console(cloud: TestCloud, member: Client) -> None:
    server = create(member)["id"]
    urls = [address(member, server) for _ in range(SESSIONS_OF_ONE + 1)]

    async def story() -> str | None:
        lines = [await WebSocketClient.connect(url, trusting(cloud)) for url in urls[:-1]]
        for line in lines:
            await until(line, b"login: ")
        one_more = await WebSocketClient.connect(urls[-1], trusting(cloud))
        why = await why_closed(one_more)
        lines[0].write(b"x")
        await until(lines[-1], b"x")  # All see the same line.
        for line in lines:
            await line.close()
        return why

    assert "Too many" in str(asyncio.run(story()))


def test_a_message_that_is_too_long_ends_the_session(cloud: TestCloud, member: Client) -> None:
    server = create(member)["id"]

    async def story(line: WebSocketClient) -> None:
        await until(line, b"login: ")
        line.write(b"x" * (LARGEST_MESSAGE + 1))
        assert await why_closed(line) is not None

    on_console(cloud, address(member, server), story, seconds=20)


def test_a_session_in_which_nothing_is_said_ends(
    cloud: TestCloud, member: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console_door, "IDLE_SECONDS", 0.05)
    monkeypatch.setattr(console_door, "WAIT_SECONDS", 0.1)
    server = create(member)["id"]
    assert on_console(cloud, address(member, server), why_closed) == "Nobody has said anything for half an hour."


def test_a_session_whose_reader_has_gone_is_forgotten() -> None:
    sessions = Sessions()
    sessions.open("one", 0.0)
    sessions.get("one", UNHEARD_SECONDS)
    sessions.forget_unheard(2 * UNHEARD_SECONDS)
    assert "one" in sessions
    sessions.open("two", 2 * UNHEARD_SECONDS + 1)
    assert ("one" in sessions, "two" in sessions) == (False, True)
    with pytest.raises(DriverError, match="NO_SESSION"):
        sessions.get("one", 2 * UNHEARD_SECONDS + 1)


def test_a_page_of_another_site_may_not_connect(cloud: TestCloud, member: Client) -> None:
    server = create(member)["id"]
    url = address(member, server)
    with pytest.raises(Refused):
        on_console(cloud, url, why_closed, headers=(("Origin", "https://elsewhere.example"),))
    ours = url.partition("/console")[0].replace("wss", "https")
    on_console(cloud, url, lambda line: until(line, b"login: "), headers=(("Origin", ours),))


def test_no_message_is_compressed_whatever_a_client_offers(cloud: TestCloud) -> None:
    """A small one could be unpacked to hundreds of megabytes, before anybody has shown a token."""
    url = f"{cloud.url.replace('https', 'wss', 1)}/console/serial"
    offered = ("Sec-WebSocket-Extensions", "permessage-deflate")
    # `wsproto` has not offered it itself, so it would break off if it was accepted.
    assert "used already" in on_console(cloud, url, why_closed, headers=(offered,))


def test_the_secret_is_kept_as_a_digest_and_logged_nowhere(
    cloud: TestCloud, member: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(1)
    server = create(member)["id"]
    url = address(member, server)
    token = url.partition("token=")[2]
    on_console(cloud, url, lambda line: until(line, b"login: "))
    assert member.request("GET", f"/console/serial?token={token}").status == 200
    records = [record.getMessage() + str(record.__dict__) for record in caplog.records]
    assert not [line for line in records if token in line and "httpx" not in line]
    assert token not in "".join(
        map(str, cloud.embedded.db.read(lambda tx: tx.connection.exec_driver_sql("SELECT * FROM console_tokens").all()))
    )


def test_an_administrator_sees_where_an_unused_token_leads(cloud: TestCloud, member: Client) -> None:
    admin = cloud.persona("admin")
    server = create(member)["id"]
    token = address(member, server).partition("token=")[2]
    path = f"/os-console-auth-tokens/{token}"
    assert admin.compute("GET", path, version="2.30").status == 400
    assert member.compute("GET", path).status == 403
    shown = admin.compute("GET", path)["console"]
    assert (shown["instance_uuid"], shown["host"]) == (server, admin.server(server)["OS-EXT-SRV-ATTR:host"])
    assert admin.compute("GET", "/os-console-auth-tokens/unknown").status == 404


def test_what_there_is_not_is_refused_as_nova_does(member: Client) -> None:
    server = create(member)["id"]

    def ask(protocol: str, kind: str, version: str) -> tuple[int, str]:
        body = {"remote_console": {"protocol": protocol, "type": kind}}
        answer = member.compute("POST", f"/servers/{server}/remote-consoles", body, version=version)
        return answer.status, next(iter(answer.json.values())).get("message", "")

    assert ask("spice", "spice-html5", "2.6") == (400, "Unavailable console type spice-html5.")
    assert ask("serial", "novnc", "2.6") == (400, "Invalid console type novnc")
    assert ask("rdp", "rdp-html5", "2.6") == (400, "Unavailable console type rdp.")
    assert "mks" in ask("mks", "webmks", "2.7")[1]
    assert ask("mks", "webmks", "2.8") == (400, "Unavailable console type webmks.")
    assert ask("spice", "spice-direct", "2.98")[0] == 400
    assert ask("spice", "spice-direct", "2.99") == (400, "Unavailable console type spice-direct.")
    assert member.compute("POST", f"/servers/{server}/remote-consoles", SERIAL, version="2.5").status == 404
    for action, kind, status in (
        ("os-getSerialConsole", "serial", 200),
        ("os-getVNCConsole", "novnc", 200),
        ("os-getVNCConsole", "x", 400),
        ("os-getSPICEConsole", "spice-html5", 400),
        ("os-getRDPConsole", "rdp-html5", 400),
    ):
        assert member.action(server, {action: {"type": kind}}, version="2.5").status == status, action
        assert member.action(server, {action: {"type": kind}}, version="2.6").status == 404, action
    member.action(server, {"os-stop": None})
    member.wait_for_status(server, "SHUTOFF")
    assert member.compute("POST", f"/servers/{server}/remote-consoles", SERIAL).status == 409


def test_a_terminal_is_attached_and_left_by_its_escape(cloud: TestCloud, member: Client) -> None:
    server = create(member)["id"]
    typing, type_in = os.pipe()
    out, printing = os.pipe()
    try:

        async def story() -> str:
            task = asyncio.create_task(attach(address(member, server), trusting(cloud), typing, printing))
            seen = b""
            while b"login: " not in seen:
                seen += await asyncio.to_thread(os.read, out, 4096)
            os.write(type_in, b"me" + ESCAPE + b"never typed")
            async with asyncio.timeout(SECONDS):
                return await task

        assert asyncio.run(story()) == "left the console"
    finally:
        for descriptor in (typing, type_in, out, printing):
            os.close(descriptor)


def test_a_file_is_typed_to_its_end(cloud: TestCloud, member: Client, tmp_path: Path) -> None:
    server = create(member)["id"]
    for path in (Path("/dev/null"), tmp_path / "typed"):
        if path != Path("/dev/null"):
            path.write_bytes(b"me\n")
        with path.open("rb") as typing, (tmp_path / "out").open("wb") as printing:
            attached = attach(address(member, server), trusting(cloud), typing.fileno(), printing.fileno())
            assert asyncio.run(attached) == "left the console"
        assert (tmp_path / "out").read_bytes().startswith(b"Connected.")


def test_a_slow_reader_loses_the_oldest_and_is_told_so() -> None:
    async def story() -> None:
        session = Session()
        session.print(b"a" * BUFFER_BYTES)
        session.print(b"b" * 10)
        printed = await session.read(0, 0.0)
        assert printed.position == 10
        assert session.fresh(0, b"abc") == b"abc"
        assert session.fresh(0, b"abcd") == b"d", "asked again, it is typed once"
        session.end("over")
        position = printed.position
        while (printed := await session.read(position, 0.0)).ended is None:
            position = printed.position + len(printed.data)
        assert printed.ended == "over"

    asyncio.run(story())


class BegunMeanwhile(Way):
    """An operation begins on the server while its host is told to open the console."""

    cloud: TestCloud

    async def send(self, message: m.Message[object]) -> object:
        if isinstance(message, OpenConsole):
            later = sa.update(servers).where(servers.c.id == message.server_id)
            await self.cloud.embedded.db.write_async(
                lambda tx: tx.execute(later.values(generation=servers.c.generation + 1))
            )
        return await super().send(message)


def test_a_console_that_opened_beside_an_operation_is_not_heard(cloud: TestCloud, member: Client) -> None:
    """It may be the console of what that has made of the guest."""
    server = create(member)["id"]
    url = address(member, server)

    async def heard(line: WebSocketClient) -> tuple[bytes, str | None]:
        return await line.read(), line.closed

    with instead(cloud, host_of(cloud.persona("admin"), server), BegunMeanwhile) as way:
        way.cloud = cloud
        said, why = on_console(cloud, url, heard)
    assert said == b""
    assert "ask for a new address" in str(why)


def test_an_address_goes_with_its_server(cloud: TestCloud, member: Client) -> None:
    server = create(member)["id"]
    address(member, server)
    member.compute("DELETE", f"/servers/{server}")
    member.wait("its end", lambda: member.compute("GET", f"/servers/{server}").status == 404)
    held = sa.select(console_tokens.c.digest).where(console_tokens.c.server_id == server)
    assert cloud.embedded.db.read(lambda tx: tx.all(held)) == []


def test_a_session_goes_on_when_the_token_that_asked_for_it_is_revoked(cloud: TestCloud, member: Client) -> None:
    """As upstream: `SECURITY.md` says so."""
    server = create(member)["id"]
    url = address(member, server)

    async def story(line: WebSocketClient) -> None:
        await until(line, b"login: ")
        answer = await asyncio.to_thread(
            member.request, "DELETE", "/identity/v3/auth/tokens", headers={"X-Subject-Token": member.token or ""}
        )
        assert answer.status == 204
        line.write(b"\r")
        await until(line, b"login: ")

    on_console(cloud, url, story)
