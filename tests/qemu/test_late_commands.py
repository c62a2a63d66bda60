"""A slice of `tests/every_saga/test_late_commands.py` with real guests: what comes late or twice changes nothing.

The whole way is real: control plane, sockets, agents as processes of their own, fences on disk, QEMU.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

import cumulet.testing
from cumulet.drivers.qemu.facts import QemuFacts
from cumulet.host import messages as m
from cumulet.host.driver import GuestState, Image
from cumulet.testing import Client, JsonObject, TestCloud
from tests.api.servers import image_and_flavor
from tests.every_saga.faults import Fault, Place
from tests.every_saga.late import Guests, Repeating, Told

WAIT_SECONDS = 120.0
LIFE: tuple[tuple[dict[str, object], str], ...] = (
    ({"os-migrateLive": {"host": None, "block_migration": "auto"}}, "ACTIVE"),
    ({"migrate": None}, "VERIFY_RESIZE"),
    ({"revertResize": None}, "ACTIVE"),
)


def test_what_comes_late_or_twice_changes_nothing(facts: QemuFacts, image: Image) -> None:
    """A server is moved as it runs, once in vain; stopped, moved, and brought back; deleted."""
    with cumulet.testing.cloud(hosts=2, driver="qemu") as cloud:
        hosts, admin = cloud.embedded.hosts, cloud.persona("admin")
        links = {name: hosts.link(name) for name in hosts.names}

        async def look(server_id: str) -> Guests:
            """What each hypervisor says, and which process it is."""
            found: Guests = {}
            for name, link in links.items():
                state = await link.send(m.Observe(server_id=server_id))
                if state is not GuestState.ABSENT:
                    found[name] = {"state": state, "process": process_of(cloud, name, server_id)}
            return found

        told = Told(look)
        with told.listening(hosts):
            saga = cloud.embedded.runner.sagas["live-migration"]
            last = Place("live-migration", len(saga.steps) - 1)
            script = Repeating(kill=cloud.kill_conductor, planned={last: Fault.FAILS_AFTER}, told=told)
            cloud.embedded.runner.sagas = script.sagas()
            server_id = create(admin)
            admin.wait_for_status(server_id, "ACTIVE", seconds=WAIT_SECONDS)
            for action, status in (LIFE[0], *LIFE):
                assert admin.action(server_id, action, version="2.55").status == 202
                cloud.idle()
                admin.wait_for_status(server_id, status, seconds=WAIT_SECONDS)
                assert told.broken == []
            assert not script.planned
            assert admin.compute("DELETE", f"/servers/{server_id}").status == 204
            cloud.idle()
            cloud.await_(told.repeat("at the end"))
            assert told.broken == []
            assert cloud.await_(look(server_id)) == {}


def create(client: Client) -> str:
    wanted = {"name": "one", "networks": "none", **image_and_flavor(client)}
    answer = client.compute("POST", "/servers", {"server": wanted})
    assert answer.status == 202, answer.text
    server_id: str = answer["server"]["id"]
    return server_id


def process_of(cloud: TestCloud, host: str, server_id: str) -> int | None:
    """The number of the guest's process there, if it has one."""
    folder = cloud.embedded.settings.state_dir / "hosts" / host / "qemu" / "guests" / server_id
    note = Path(folder, "process.json")
    return msgspec.json.decode(note.read_bytes(), type=JsonObject)["pid"] if note.exists() else None
