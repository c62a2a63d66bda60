"""What changes after a guest was described is told by its metadata service: the same by both drivers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import cast

import msgspec
import pytest

from cumulet.clock import SystemClock
from cumulet.drivers.linux_network.network import LinuxNetwork
from cumulet.drivers.qemu import adoption, telling
from cumulet.drivers.qemu.driver import QemuDriver
from cumulet.drivers.qemu.record import GuestRecord, Intent, Role
from cumulet.drivers.simulated.driver import SimulatedDriver, World
from cumulet.host.driver import DriveFile, Guest
from cumulet.host.telling import EC2, META_DATA, PASSWORD, Heard, Posted, Told
from cumulet.settings import Settings
from tests.drivers.qemu_host import qemu_host
from tests.drivers.test_config_drive import nic
from tests.drivers.test_told_when_plugged import SERVER, Network

REMOVALS = 300
"""A few dozen of them are removed while something is written."""


def drive(name: str) -> tuple[DriveFile, ...]:
    meta = {"uuid": SERVER, "name": name, "admin_pass": "secret", "devices": []}
    files = {"openstack/latest/meta_data.json": meta, "ec2/latest/meta-data.json": {"hostname": name, "ami-id": "a"}}
    found = [DriveFile(paths=(path,), content=json.dumps(content).encode()) for path, content in files.items()]
    return (*found, DriveFile(paths=("openstack/latest/user_data",), content=b"#!"))


GUEST = Guest(
    server_id=SERVER,
    name="first",
    vcpus=1,
    memory_mib=64,
    disk_gib=1,
    image=None,
    nics=(nic(0),),
    nic_slots=16,
    config_drive=drive("first"),
)


def told(revision: int, name: str, *, password: str = "", taken: str = "") -> Told:
    meta = {"uuid": SERVER, "name": name, "meta": {"colour": name}, "devices": []}
    documents = {META_DATA: json.dumps(meta).encode(), EC2: json.dumps({"hostname": name}).encode()}
    return Told(revision=revision, documents={**documents, PASSWORD: password.encode()}, taken=taken)


class Place:
    """A host of one of the drivers, with a guest. `again` is what another start of its agent finds."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    async def begin(self) -> None: ...
    async def tell(self, said: Told, server_id: str = SERVER) -> Heard:
        raise NotImplementedError

    async def again(self) -> None:
        raise NotImplementedError

    async def made_anew(self, name: str) -> None:
        raise NotImplementedError

    def tells(self) -> Mapping[str, bytes]:
        raise NotImplementedError

    async def post(self, content: str) -> bool:
        raise NotImplementedError

    async def reported(self) -> str:
        raise NotImplementedError

    def name(self) -> str:
        found: str = json.loads(self.tells()[META_DATA])["name"]
        return found


class Simulated(Place):
    async def begin(self) -> None:
        await self.again()
        await self.driver.create(GUEST)

    async def again(self) -> None:
        settings = Settings(state_dir=self.folder, database_url="sqlite://")
        self.driver = SimulatedDriver(
            name="host1", world=World(), clock=SystemClock(), settings=settings, directory=self.folder / "guests"
        )

    async def made_anew(self, name: str) -> None:
        await self.driver.destroy(SERVER)
        await self.driver.create(_named(name))

    async def tell(self, said: Told, server_id: str = SERVER) -> Heard:
        return await self.driver.tell(server_id, said)

    def tells(self) -> Mapping[str, bytes]:
        return self.driver.tells(SERVER)

    async def post(self, content: str) -> bool:
        return self.driver.post_password(SERVER, content)

    async def reported(self) -> str:
        return (await self.driver.guests())[0].posted


class Real(Place):
    """Without a process and without packets."""

    async def begin(self) -> None:
        await self.again()
        await self.made_anew("first")

    async def again(self) -> None:
        self.network = Network()
        self.host = qemu_host(self.folder, cast("LinuxNetwork", self.network))
        self.driver = QemuDriver(self.host)
        if (record := self.host.folder(SERVER).read()) is not None:
            await self.host.tell_ports(record.guest)

    async def made_anew(self, name: str) -> None:
        folder = self.host.folder(SERVER)
        folder.remove()
        folder.path.mkdir(parents=True)
        folder.write(GuestRecord(guest=_named(name), uid=None, role=Role.OWN, intent=Intent.STOPPED))
        await self.host.tell_ports(_named(name))

    async def tell(self, said: Told, server_id: str = SERVER) -> Heard:
        return await self.driver.tell(server_id, said)

    def tells(self) -> Mapping[str, bytes]:
        return self.network.told["p0"] or {}

    async def post(self, content: str) -> bool:
        return await telling.post(self.host, SERVER, content)

    async def reported(self) -> str:
        return (await adoption.reports(self.host))[0].posted


def _named(name: str) -> Guest:
    return msgspec.structs.replace(GUEST, name=name, config_drive=drive(name))


Story = Callable[[Place], Awaitable[None]]


@pytest.fixture(params=[Simulated, Real])
def play(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Story], None]:
    def run(story: Story) -> None:
        async def whole() -> None:
            place = request.param(tmp_path)
            await place.begin()
            await story(place)

        asyncio.run(whole())

    return run


def test_it_tells_what_it_was_told_and_the_rest_as_it_was(play: Callable[[Story], None]) -> None:
    async def story(place: Place) -> None:
        assert place.name() == "first"
        assert await place.tell(told(7, "second")) == Heard(revision=7)
        files = place.tells()
        meta = json.loads(files[META_DATA])
        assert (meta["name"], meta["meta"]) == ("second", {"colour": "second"})
        assert json.loads(files[EC2]) == {"hostname": "second", "local-ipv4": ""}
        assert files["user_data"] == b"#!"
        assert PASSWORD not in files
        await place.again()
        assert place.name() == "second", "its agent has started anew"

    play(story)


def test_what_comes_late_or_twice_changes_nothing(play: Callable[[Story], None]) -> None:
    async def story(place: Place) -> None:
        await place.tell(told(7, "second"))
        assert await place.tell(told(7, "second")) == Heard(revision=7)
        assert await place.tell(told(6, "late")) == Heard(revision=8)
        assert await place.tell(told(7, "another of the same number")) == Heard(revision=8)
        assert place.name() == "second"
        assert await place.tell(told(8, "third")) == Heard(revision=8)
        assert place.name() == "third"

    play(story)


def test_a_guest_that_is_not_there_is_told_nothing(play: Callable[[Story], None]) -> None:
    async def story(place: Place) -> None:
        other = SERVER.replace("3f1b", "0000")
        assert await place.tell(told(7, "second"), other) == Heard(revision=0)
        assert place.name() == "first"

    play(story)


def test_a_guest_that_is_made_anew_is_told_its_new_description(play: Callable[[Story], None]) -> None:
    async def story(place: Place) -> None:
        await place.tell(told(7, "second"))
        await place.made_anew("third")
        assert place.name() == "third"

    play(story)


def test_a_password_waits_with_the_guest_until_it_is_on_record(play: Callable[[Story], None]) -> None:
    async def story(place: Place) -> None:
        assert await place.reported() == ""
        assert await place.post("encrypted")
        assert not await place.post("another")
        assert place.tells()[PASSWORD] == b"encrypted"
        await place.again()
        assert place.tells()[PASSWORD] == b"encrypted", "its agent has started anew"
        waiting = await place.reported()
        assert waiting
        heard = await place.tell(told(1, "first"))
        assert heard == Heard(revision=1, posted=Posted(id=waiting, content="encrypted"))
        assert place.tells()[PASSWORD] == b"encrypted"
        assert await place.tell(told(2, "first", password="encrypted", taken=waiting)) == Heard(revision=2)
        assert await place.reported() == ""
        assert place.tells()[PASSWORD] == b"encrypted"
        assert not await place.post("another")
        await place.tell(told(3, "first", taken=waiting))
        assert PASSWORD not in place.tells(), "its owner has cleared it"
        assert await place.post("the next")

    play(story)


def test_a_password_that_was_cleared_before_its_host_knew_does_not_come_back(play: Callable[[Story], None]) -> None:
    async def story(place: Place) -> None:
        await place.post("encrypted")
        waiting = await place.reported()
        assert await place.tell(told(1, "first", taken=waiting)) == Heard(revision=1)
        assert PASSWORD not in place.tells()
        assert await place.reported() == ""

    play(story)


def test_a_real_guest_is_removed_while_all_is_told_and_posted(tmp_path: Path) -> None:
    """A rebuild and a deletion failed at a file that was listed, and renamed a moment later."""

    async def story() -> None:
        place = Real(tmp_path)
        await place.again()
        for _ in range(REMOVALS):
            await place.made_anew("first")
            removing = asyncio.create_task(asyncio.to_thread(place.host.folder(SERVER).remove))
            revision = 0
            while not removing.done():
                revision += 1
                await place.tell(told(revision, f"name {revision}"))
                await place.post("c2VjcmV0")
                await asyncio.sleep(0)
            await removing
            assert not place.host.folder(SERVER).path.exists()
            assert await place.tell(told(1, "late")) == Heard(revision=0)
            assert not await place.post("bGF0ZQ==")

    asyncio.run(story())
