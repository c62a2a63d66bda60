"""With packets: what a host is told of a server is heard by its guest, and what the guest posts by the host."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

from cumulet.agent.agent import Agent
from cumulet.agent.fence import Mark, MemoryFence
from cumulet.drivers.linux_network.network import LinuxNetwork
from cumulet.drivers.qemu import adoption, telling
from cumulet.drivers.qemu.driver import QemuDriver
from cumulet.drivers.qemu.host import QemuHost
from cumulet.drivers.qemu.record import GuestRecord, Intent, Role
from cumulet.host import messages as m
from cumulet.host.driver import DriveFile, Guest, Nic
from cumulet.host.telling import META_DATA, PASSWORD, Heard, Told
from cumulet.host.telling_messages import TellMetadata
from tests.drivers.qemu_host import qemu_host
from tests.linux_network.lab import lab, needs_packets
from tests.linux_network.test_metadata import Call, wire
from tests.linux_network.wirings import port

SERVER = "3f1b6a1e-6f0e-4b51-9d0e-1c2f5a7c9e10"
PATH = "/openstack/latest/password"


def meta(**items: str) -> bytes:
    return json.dumps({"uuid": SERVER, "name": "one", "meta": items}).encode()


def described(port_id: str) -> Guest:
    drive = (DriveFile(paths=("openstack/latest/meta_data.json",), content=meta(colour="blue")),)
    nic = Nic(port_id=port_id, network_id="n", mac="fa:16:3e:00:00:05", slot=0)
    return Guest(
        server_id=SERVER, name="one", vcpus=1, memory_mib=64, disk_gib=1, image=None, nics=(nic,), config_drive=drive
    )


def with_agent(folder: Path, network: LinuxNetwork) -> tuple[QemuHost, Agent]:
    """Another start of a host's agent."""
    host = qemu_host(folder, network)
    assert network.posts is not None
    network.posts.take = partial(telling.post, host)
    fence = MemoryFence()
    fence.set_mark(SERVER, Mark(3, 1))
    return host, Agent(name="host1", driver=QemuDriver(host), fence=fence)


def said(revision: int, *, password: str = "", taken: str = "", generation: int = 3, **items: str) -> TellMetadata:
    documents = {META_DATA: meta(**items), PASSWORD: password.encode()}
    told = Told(revision=revision, documents=documents, taken=taken)
    return TellMetadata(server_id=SERVER, generation=generation, told=told)


@needs_packets
async def test_a_changed_item_is_heard_by_the_guest_and_a_password_that_it_posts_by_the_host(tmp_path: Path) -> None:
    async with lab(["host1"]) as place:
        network, own = place.networks["host1"], port("10.0.0.5")
        host, agent = with_agent(tmp_path, network)
        folder = host.folder(SERVER)
        folder.path.mkdir(parents=True)
        folder.write(GuestRecord(guest=described(own.id), uid=None, role=Role.OWN, intent=Intent.RUNNING))
        await wire(place, "host1", own)
        guest = await place.plug("host1", own)
        await host.tell_ports(described(own.id))
        numbers = iter(range(40_001, 40_100))

        async def items() -> object:
            status, body = await Call(guest, next(numbers)).get("/openstack/latest/meta_data.json")
            assert status == 200
            return json.loads(body)["meta"]

        async def password(post: bytes | None = None) -> tuple[int, bytes]:
            if post is None:
                return await Call(guest, next(numbers)).get(PATH)
            more = f"Content-Length: {len(post)}\r\n"
            return await Call(guest, next(numbers)).get(PATH, method="POST", more=more, body=post)

        assert await items() == {"colour": "blue"}
        assert await agent.handle(said(7, colour="red")) == Heard(revision=7)
        assert await items() == {"colour": "red"}
        assert await agent.handle(said(6, colour="late")) == Heard(revision=8)
        with pytest.raises(m.StaleGeneration):
            await agent.handle(said(9, generation=2, colour="of a guest that was made anew"))
        assert await items() == {"colour": "red"}

        assert await password() == (200, b"")
        assert await password(b"x" * 1021) == (400, b"Request is too large.")
        assert await password(b"c2VjcmV0") == (200, b"")
        assert await password(b"another") == (409, b"")
        assert await password() == (200, b"c2VjcmV0")

        host, agent = with_agent(tmp_path, network)
        await host.tell_ports(described(own.id))
        assert await items() == {"colour": "red"}, "its agent has started anew"
        assert await password() == (200, b"c2VjcmV0")
        (report,) = await adoption.reports(host)
        heard = await agent.handle(said(8, colour="red"))
        assert heard.posted is not None
        assert (heard.posted.id, heard.posted.content) == (report.posted, "c2VjcmV0")
        await agent.handle(said(9, colour="red", taken=report.posted))
        assert await password() == (200, b""), "its owner has cleared it"
        assert await password(b"the next") == (200, b"")
