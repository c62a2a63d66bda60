"""People at a real guest's screen: RFB through the whole relay, across a move, and nothing that listens for it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

import cumulet.testing
from cumulet.cli.websocket import WebSocketClient
from cumulet.drivers.qemu.driver import QemuDriver
from cumulet.drivers.qemu.facts import QemuFacts
from cumulet.drivers.qemu.record import GuestFolder
from cumulet.host.consoles import SESSIONS_OF_ONE
from cumulet.host.devices import VIDEO_MIB
from cumulet.host.driver import DriverError, GuestState, Image
from cumulet.testing import TestCloud
from cumulet.testing.moving import prepared
from tests.api.servers import host_of, image_and_flavor, last_migration, other
from tests.api.test_consoles import on_console, why_closed
from tests.api.test_screens import screen
from tests.rfb import Picture, Viewer

from .conftest import PARAMETERS, Rig, follow, gone
from .test_console_sessions import last_tick

pytestmark = pytest.mark.qemu

MOVE_SECONDS = 180.0
"""A move of a real guest and its disk, on a machine that has other things to do."""


@pytest.fixture(scope="module")
def cloud(facts: QemuFacts, image: Image) -> Iterator[TestCloud]:
    del facts, image
    with cumulet.testing.cloud(hosts=2, driver="qemu") as running:
        yield running


async def drawn(viewer: Viewer) -> Picture:
    """The screen once there is something on it: a guest that has just been started is black for a while."""
    picture = await viewer.picture()
    while picture.colours < 2:
        picture = await viewer.picture(whole=False)
    return picture


def test_a_real_guests_screen_is_seen_through_the_relay_before_and_after_a_move(cloud: TestCloud) -> None:
    admin, member = cloud.persona("admin"), cloud.persona("member")
    wanted = image_and_flavor(member) | {"name": "one", "networks": "none"}
    server = member.compute("POST", "/servers", {"server": wanted})["server"]["id"]
    member.wait_for_status(server, "ACTIVE")
    # Until a guest has set a mode of its screen, QEMU shows a notice of its own, of another size.
    member.wait("ticks", lambda: last_tick(member, server) > 0, seconds=60)

    async def look(line: WebSocketClient) -> Picture:
        viewer = Viewer(line)
        await viewer.shake_hands()
        picture = await drawn(viewer)
        assert (picture.width, picture.height) in ((720, 400), (640, 480)), "the size of text on a VGA's screen"
        viewer.press("a")  # Nobody minds.
        await viewer.picture()
        return picture

    before = on_console(cloud, screen(member, server), look)

    async def moved(line: WebSocketClient) -> str | None:
        await Viewer(line).shake_hands()
        move = {"os-migrateLive": {"block_migration": "auto", "host": other(host_of(admin, server))}}
        assert admin.action(server, move).status == 202
        return await why_closed(line)

    why = str(on_console(cloud, screen(member, server), moved, seconds=MOVE_SECONDS))
    admin.wait("the move", lambda: last_migration(admin, server)["status"] == "completed", seconds=MOVE_SECONDS)
    assert "moved" in why or "migrating" in why
    after = on_console(cloud, screen(member, server), look)
    assert (after.width, after.height) == (before.width, before.height), "it is as it was"
    assert member.compute("DELETE", f"/servers/{server}").status == 204


@dataclass(slots=True)
class Session:
    """A session of a driver, as somebody at the screen has it."""

    driver: QemuDriver
    server_id: str
    name: str
    said: int = 0
    position: int = 0

    async def read(self) -> bytes:
        printed = await self.driver.read_console(self.server_id, self.name, position=self.position, wait_seconds=10.0)
        assert printed.position == self.position, "nothing is left out"
        self.position += len(printed.data)
        return printed.data

    def write(self, data: bytes) -> None:
        asyncio.ensure_future(self._write(self.said, data))  # noqa: RUF006 - it is heard at once
        self.said += len(data)

    async def _write(self, position: int, data: bytes) -> None:
        await self.driver.write_console(self.server_id, self.name, position=position, data=data)


def test_several_are_at_one_screen_and_nothing_listens_for_them(rig: Rig) -> None:
    async def story() -> None:
        driver = await rig.resumed()
        pid = rig.process("host1")
        sessions = [f"session {number}" for number in range(SESSIONS_OF_ONE)]
        for name in sessions:
            await driver.open_screen(rig.id, name)
            await driver.open_screen(rig.id, name)  # Asked again, it is the same one.
        with pytest.raises(DriverError, match="TOO_MANY_CONSOLES"):
            await driver.open_screen(rig.id, "one too many")
        for name in sessions:
            viewer = Viewer(Session(driver, rig.id, name))
            await viewer.shake_hands()
            assert (await drawn(viewer)).width == viewer.width
        assert _sockets(pid) == {"listening": 2, "connected": 1 + len(sessions)}, "its monitors, and who is there"
        for name in sessions:
            await driver.close_console(rig.id, name)
            await driver.close_console(rig.id, name)
        with pytest.raises(DriverError, match="NO_SESSION"):
            await driver.read_console(rig.id, sessions[0], position=0, wait_seconds=0.0)
        await driver.open_screen(rig.id, "another")
        await driver.close()  # As with the agent that goes: QEMU has lost its client, and the guest goes on.
        driver = await rig.open("host1")
        assert await driver.observe(rig.id) is GuestState.RUNNING
        await driver.open_screen(rig.id, "another")
        os.kill(pid, signal.SIGKILL)
        await gone(driver, rig.id)
        assert await _why_ended(driver, rig.id, "another")
        with pytest.raises(DriverError, match="NOT_RUNNING"):
            await driver.open_screen(rig.id, "late")
        await driver.close()

    asyncio.run(story())


async def _why_ended(driver: QemuDriver, server_id: str, name: str) -> str:
    """After all that QEMU had said, which may have come before its end or not."""
    position = 0
    while True:
        printed = await driver.read_console(server_id, name, position=position, wait_seconds=10.0)
        if printed.ended is not None:
            return printed.ended
        assert printed.data, "neither news nor an end"
        position += len(printed.data)


def _sockets(pid: int) -> dict[str, int]:
    """Of a process, by what /proc/net/unix says of them: it has no others."""
    own = {os.readlink(link)[8:-1] for link in Path(f"/proc/{pid}/fd").iterdir() if _is_socket(link)}
    states = {line.split()[6]: line.split()[3:6] for line in Path("/proc/net/unix").read_text().splitlines()[1:]}
    assert own <= set(states), "sockets of another kind"
    listening = [number for number in own if states[number][0] == "00010000"]
    return {"listening": len(listening), "connected": len(own) - len(listening)}


def _is_socket(link: Path) -> bool:
    try:
        return os.readlink(link).startswith("socket:")
    except FileNotFoundError:
        return False


def test_a_slow_viewer_holds_up_nobody_and_fills_nothing(rig: Rig) -> None:
    async def story() -> None:
        driver = await rig.resumed()
        await driver.open_screen(rig.id, "slow")
        viewer = Viewer(Session(driver, rig.id, "slow"))
        await viewer.shake_hands()
        for _ in range(50):  # Of a megabyte each, and nothing of it is taken.
            viewer.line.write(b"\x03\x00" + bytes(4) + viewer.width.to_bytes(2) + viewer.height.to_bytes(2))
        await driver.open_screen(rig.id, "quick")
        quick = Viewer(Session(driver, rig.id, "quick"))
        await quick.shake_hands()
        assert (await drawn(quick)).width == quick.width
        resident = int(Path(f"/proc/{rig.process('host1')}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        assert resident < (rig.guest.memory_mib + 256 + VIDEO_MIB) << 20
        assert (await viewer.picture()).width == viewer.width, "whole pictures, however late"
        await driver.close()

    asyncio.run(story())


def test_a_guest_from_before_there_were_screens_is_as_it_was(rig: Rig) -> None:
    """Its machine is the one it has always had, and it is told that it has no screen. It moves as any other."""

    async def story() -> None:
        source = await rig.resumed()
        await source.stop(rig.id, grace_seconds=0.0)
        folder = GuestFolder(rig.base / "host1" / "guests", rig.id)
        record = folder.read()
        assert record is not None
        older = msgspec.structs.replace(record.guest, screen=False)
        folder.write(msgspec.structs.replace(record, guest=older))
        await source.start(rig.id)
        with pytest.raises(DriverError, match="NO_SCREEN"):
            await source.open_screen(rig.id, "one")
        assert b"VGA" not in Path(f"/proc/{rig.process('host1')}/cmdline").read_bytes()
        destination = await rig.open("host2")
        await source.start_copy(rig.id, await prepared(source, destination, older, PARAMETERS), PARAMETERS)
        await follow(source, rig.id)
        await destination.resume_destination(rig.id)
        assert b"VGA" not in Path(f"/proc/{rig.process('host2')}/cmdline").read_bytes()
        await source.close()
        await destination.close()

    asyncio.run(story())
