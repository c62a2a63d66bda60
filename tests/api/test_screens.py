"""Screens: RFB through the API's WebSocket to a guest, the page that shows it, and every way a session ends."""

from __future__ import annotations

import asyncio
import re
import struct
from importlib import resources
from urllib.parse import parse_qs, urlsplit

import pytest
import sqlalchemy as sa

from cumulet.cli.websocket import WebSocketClient
from cumulet.compute.consoles import TOKEN_SECONDS
from cumulet.compute.store import servers
from cumulet.db.engine import Tx
from cumulet.drivers.simulated import font
from cumulet.drivers.simulated.screen import COLUMNS, HEIGHT, LINES, WIDTH, PixelFormat, Screen
from cumulet.host.driver import DriverError
from cumulet.testing import Client, JsonObject, TestCloud
from tests.api.test_compute_servers import create
from tests.api.test_consoles import SERIAL, address, on_console, until, why_closed
from tests.rfb import Picture, Viewer

VNC = {"remote_console": {"protocol": "vnc", "type": "novnc"}}


def page_of(client: Client, server: str) -> str:
    answer = client.compute("POST", f"/servers/{server}/remote-consoles", VNC)
    assert answer.status == 200, answer.text
    url: str = answer["remote_console"]["url"]
    assert url.startswith("https://")
    return url


def screen(client: Client, server: str) -> str:
    """Where the page's WebSocket is: the `path` in its address, as upstream's noVNC and Tempest read it."""
    page = urlsplit(page_of(client, server))
    (path,) = parse_qs(page.query)["path"]
    return f"wss://{page.netloc}/{path}"


def text_of(picture: Picture) -> list[str]:
    """What is written on a simulated guest's screen, read from its pixels."""
    letters = {rows: letter for letter, rows in font.ROWS.items()}
    lines = []
    for line in range(LINES):
        text = ""
        for column in range(COLUMNS):
            rows = bytearray()
            for row in range(2, 9):
                places = ((8 * column + 1 + place, 12 * line + row) for place in range(5))
                lit = [picture.at(*place) != picture.at(0, 0) for place in places]
                rows.append(sum(bit << (4 - place) for place, bit in enumerate(lit)))
            text += letters[bytes(rows)]
        lines.append(text.rstrip())
    return lines


async def seen(viewer: Viewer, words: str) -> list[str]:
    """The lines of the screen, once these words are on it."""
    lines = text_of(await viewer.picture())
    while not any(words in line for line in lines):
        lines = text_of(await viewer.picture(whole=False))
    return lines


def test_a_screen_shows_what_the_guest_is_and_takes_keys(cloud: TestCloud, member: Client) -> None:
    server = create(member)["id"]

    async def story(line: WebSocketClient) -> None:
        viewer = Viewer(line)
        await viewer.shake_hands()
        assert (viewer.width, viewer.height, viewer.name) == (WIDTH, HEIGHT, "one")
        lines = await seen(viewer, "STATE  RUNNING")
        assert "NAME   ONE" in lines
        assert f"ID     {server.upper()}" in lines
        viewer.press("Hello 1")
        await seen(viewer, "TYPED  HELLO 1")
        assert (await asyncio.to_thread(member.action, server, {"pause": None})).status == 202
        await seen(viewer, "STATE  PAUSED")

    on_console(cloud, screen(member, server), story)


def test_an_address_leads_to_what_it_was_asked_for_once_and_for_a_minute(cloud: TestCloud, member: Client) -> None:
    server = create(member)["id"]

    async def greeting(line: WebSocketClient) -> None:
        assert await line.read() == b"RFB 003.008\n"

    url = screen(member, server)
    assert "used already" in on_console(cloud, url.replace("/vnc?", "/serial?"), why_closed)
    on_console(cloud, url, greeting)
    assert "used already" in on_console(cloud, url, why_closed)
    line = address(member, server)
    assert "used already" in on_console(cloud, line.replace("/serial?", "/vnc?"), why_closed)
    on_console(cloud, line, lambda one: until(one, b"login: "))
    late = screen(member, server)
    cloud.clock.advance(TOKEN_SECONDS + 1)
    assert "run out" in on_console(cloud, late, why_closed)
    before = screen(member, server)
    member.action(server, {"reboot": {"type": "HARD"}})
    member.wait_for_status(server, "ACTIVE")
    assert "changed" in on_console(cloud, before, why_closed)


def test_a_session_ends_with_a_move_and_says_so(cloud: TestCloud, member: Client) -> None:
    server = create(member)["id"]
    admin = cloud.persona("admin")

    async def story(line: WebSocketClient) -> str | None:
        await Viewer(line).shake_hands()
        move = {"os-migrateLive": {"host": None, "block_migration": "auto"}}
        assert (await asyncio.to_thread(admin.action, server, move)).status == 202
        return await why_closed(line)

    why = str(on_console(cloud, screen(member, server), story))
    assert "moved to another host" in why or "migrating" in why
    member.wait_for_status(server, "ACTIVE")
    host = admin.server(server)["OS-EXT-SRV-ATTR:host"]

    async def again(line: WebSocketClient) -> None:
        viewer = Viewer(line)
        await viewer.shake_hands()
        await seen(viewer, f"HOST   {host.upper()}")

    on_console(cloud, screen(member, server), again)


def test_what_is_no_rfb_ends_the_session(cloud: TestCloud, member: Client) -> None:
    server = create(member)["id"]

    async def story(line: WebSocketClient) -> str | None:
        assert await line.read() == b"RFB 003.008\n"
        line.write(b"GET / HTTP/1.1\r\n")
        return await why_closed(line)

    assert "ended" in str(on_console(cloud, screen(member, server), story))


def test_the_page_and_all_it_loads_are_ours(cloud: TestCloud, member: Client) -> None:
    """Every module that is imported from the page on is served, as a script, and none from elsewhere."""
    server = create(member)["id"]
    page = member.request("GET", page_of(member, server).replace(cloud.url.rstrip("/"), ""))
    assert page.status == 200
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'" in policy
    assert not re.findall(r"(?:src|href)=\"(?!vnc\.|https://novnc)", page.text)
    waiting, loaded = ["/console/vnc.js"], set[str]()
    while waiting:
        path = waiting.pop()
        if path not in loaded:
            loaded.add(path)
            script = member.request("GET", path)
            assert (script.status, script.headers["content-type"]) == (200, "text/javascript; charset=utf-8"), path
            for named in re.findall(r"^(?:import|export)[^;]*?from\s+['\"]([^'\"]+)['\"]", script.text, re.MULTILINE):
                assert named.startswith("."), f"{path} loads {named}"
                waiting.append(_below(path, named))
    assert "/console/novnc/core/rfb.js" in loaded
    assert len(loaded) > 40
    licence = resources.files("cumulet.compute") / "console_pages" / "novnc" / "docs" / "LICENSE.MPL-2.0"
    assert "Mozilla Public License Version 2.0" in licence.read_text()
    nowhere = ("novnc/core/none.js", "novnc/core/../../serial.html", "novnc/package.json", "novnc//core/rfb.js")
    for nothing in (*nowhere, f"novnc/core/{'a' * 300}.js", "serial.html", "xterm.LICENSE", "../console_door.py", ""):
        assert member.request("GET", f"/console/{nothing}").status == 404


def _below(path: str, named: str) -> str:
    parts = path.split("/")[:-1]
    for part in named.split("/"):
        if part == "..":
            parts.pop()
        elif part != ".":
            parts.append(part)
    return "/".join(parts)


def test_the_older_action_and_what_is_refused(member: Client) -> None:
    server = create(member)["id"]

    def ask(protocol: str, kind: str) -> tuple[int, str]:
        body = {"remote_console": {"protocol": protocol, "type": kind}}
        answer = member.compute("POST", f"/servers/{server}/remote-consoles", body)
        return answer.status, next(iter(answer.json.values())).get("message", "")

    assert ask("vnc", "xvpvnc") == (400, "Invalid console type xvpvnc")
    assert ask("vnc", "serial") == (400, "Invalid console type serial")
    assert ask("serial", "novnc") == (400, "Invalid console type novnc")
    for version, status in (("2.1", 200), ("2.5", 200), ("2.6", 404)):
        answer = member.action(server, {"os-getVNCConsole": {"type": "novnc"}}, version=version)
        assert answer.status == status, version
        if status == 200:
            assert answer["console"]["type"] == "novnc"
            assert "/console/vnc?path=console%2Fvnc%3Ftoken%3D" in answer["console"]["url"]
    assert member.action(server, {"os-getVNCConsole": {"type": "xvpvnc"}}, version="2.5").status == 400
    assert member.action(server, {"os-getVNCConsole": {"type": "other"}}, version="2.5").status == 400
    member.action(server, {"os-stop": None})
    member.wait_for_status(server, "SHUTOFF")
    assert ask("vnc", "novnc")[0] == 409


def test_a_server_from_before_there_were_screens_has_none(cloud: TestCloud, member: Client) -> None:
    server = create(member)["id"]

    def become_older(tx: Tx) -> None:
        guest = tx.scalar(sa.select(servers.c.guest).where(servers.c.id == server))
        older = {name: value for name, value in guest.items() if name != "screen"}
        tx.execute(sa.update(servers).where(servers.c.id == server).values(guest=older))

    cloud.embedded.db.write(become_older)
    answer = member.compute("POST", f"/servers/{server}/remote-consoles", VNC)
    assert (answer.status, answer["badRequest"]["message"]) == (400, "Unavailable console type novnc.")


# -- the simulated guests' own server


def greeted() -> Screen:
    made = Screen("one", lambda: ["HELLO"], lambda key: None)
    assert made.said(b"RFB 003.008\n\x01\x01")[:6] == b"\x01\x01" + bytes(4)
    return made


def test_a_message_may_come_in_any_pieces() -> None:
    keys: list[str] = []
    whole, pieces = (Screen("one", lambda: ["A", "B"], keys.append) for _ in range(2))
    said = b"RFB 003.008\n\x01\x00" + struct.pack(">BxHi", 2, 1, 0) + struct.pack(">BxxxI5s", 6, 5, b"paste")
    said += struct.pack(">BBHHI", 5, 0, 0, 0, 0)[:6] + struct.pack(">BBxxI", 4, 1, ord("k"))
    said += struct.pack(">BBHHHH", 3, 0, 0, 0, 1, 1)
    answers = whole.said(said), b"".join(pieces.said(bytes([byte])) for byte in said)
    assert answers[0] == answers[1]
    assert keys == ["k", "k"]
    picture = whole.look()
    assert picture == pieces.look()
    assert len(picture) == 16 + 4 * WIDTH * HEIGHT
    assert whole.look() == b"", "it was asked for once"


def test_pixels_are_as_a_client_wants_them() -> None:
    made = greeted()
    wanted = struct.pack(">BBBBHHHBBB3x", 16, 16, 1, 1, 31, 63, 31, 11, 5, 0)
    made.said(struct.pack(">B3x", 0) + wanted + struct.pack(">BBHHHH", 3, 0, 0, 0, WIDTH, HEIGHT))
    assert len(made.look()) == 16 + 2 * WIDTH * HEIGHT
    assert PixelFormat.read(wanted).pixel((255, 0, 255)) == bytes([0b11111000, 0b00011111])


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        (b"RFB 003.003\n", "RFB_VERSION"),
        (b"RFB 003.008\n\x02", "RFB_SECURITY"),
        (b"RFB 003.008\n\x01\x01\xff", "RFB_MESSAGE"),
        (b"RFB 003.008\n\x01\x01" + struct.pack(">BxH", 2, 1025), "RFB_ENCODINGS"),
        (b"RFB 003.008\n\x01\x01" + struct.pack(">B3xBBBBHHHBBB3x", 0, 8, 8, 0, 0, 0, 0, 0, 0, 0, 0), "RFB_PIXELS"),
        (b"RFB 003.008\n\x01\x01" + struct.pack(">B3xBBBBHHHBBB3x", 0, 8, 8, 0, 1, 7, 7, 3, 0, 3, 8), "RFB_PIXELS"),
    ],
)
def test_what_a_screen_does_not_speak_is_refused(said: bytes, problem: str) -> None:
    with pytest.raises(DriverError, match=problem):
        Screen("one", list, lambda key: None).said(said)


@pytest.mark.parametrize("kind", [SERIAL, VNC])
def test_what_runs_rescued_or_resized_has_consoles_and_what_does_not_run_has_none(
    cloud: TestCloud, member: Client, kind: JsonObject
) -> None:
    server = create(member)["id"]
    path = f"/servers/{server}/remote-consoles"
    assert member.action(server, {"rescue": None}).status == 200
    member.wait_for_status(server, "RESCUE")
    if kind is SERIAL:
        on_console(cloud, address(member, server), lambda line: until(line, b"login: "))
    assert member.compute("POST", path, kind).status == 200
    member.action(server, {"unrescue": None})
    member.wait_for_status(server, "ACTIVE")
    larger = next(one["id"] for one in member.compute("GET", "/flavors")["flavors"] if one["name"] == "m1.small")
    assert member.action(server, {"resize": {"flavorRef": larger}}).status == 202
    member.wait_for_status(server, "VERIFY_RESIZE")
    assert member.compute("POST", path, kind).status == 200
    member.action(server, {"revertResize": None})
    member.wait_for_status(server, "ACTIVE")
    member.action(server, {"os-stop": None})
    member.wait_for_status(server, "SHUTOFF")
    assert member.compute("POST", path, kind).status == 409
