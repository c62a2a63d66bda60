"""A fleet of an earlier commit is brought to this one, a process at a time, while guests tick and one of them moves.

The earlier source comes from this repository's own history; what it needs is the same. Told like `make fleet`.
"""

from __future__ import annotations

import argparse
import io
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from cumulet.cli.client import Persona, Unexpected
from cumulet.cli.demo.consoles import Watcher
from cumulet.cli.demo.evidence import Evidence
from cumulet.host.joining import PROTOCOL
from cumulet.host.uneven_memory import FEATURE
from cumulet.testing import JsonObject
from tests.fleet.machines import ROOT, Program, fleet_of, inside, reason_not
from tests.fleet.story import (
    SERVERS,
    Fleet,
    administrator,
    control_planes,
    ended,
    host_of,
    is_up,
    join,
    start,
    two_servers,
)
from tests.told import told, until

OLD = "afa8ba0"
"""The first commit whose control planes do not mix up each other's keys at their start: agents of protocol 1, schema
0016."""


def source_of(revision: str, folder: Path) -> Path:
    """The sources of a commit. Unexpected: the history is not here."""
    packed = subprocess.run(["git", "archive", revision, "src"], cwd=ROOT, check=False, capture_output=True)
    if packed.returncode != 0:
        raise Unexpected(f"no commit {revision}: {packed.stderr.decode().strip()}")
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
        archive.extractall(folder)
    return folder / "src"


UNEVEN = (
    ("drivers/qemu/command_line.py", '"size": guest.memory_mib << 20', '"size": (guest.memory_mib << 20) + 8192'),
    ("drivers/qemu/command_line.py", 'f"size={guest.memory_mib}M"', 'f"size={(guest.memory_mib << 10) + 8}K"'),
    ("drivers/qemu/driver.py", '"local-disk",', f'"local-disk", "{FEATURE}",'),
    ("host/driver.py", "    nic_slots: int = 0\n", "    nic_slots: int = 0\n    uneven_memory: bool = True\n"),
)
"""In the old sources: a file below `cumulet`, what is in it once, and what is to be there."""


def with_uneven_memory(source: Path) -> None:
    """Give the old version's guests the 8 KiB of `host.uneven_memory`, which it did not know: without these, emulated
    guests lose memory in some of its moves, and whether an upgrade keeps them could not be seen."""
    for name, before, after in UNEVEN:
        file = source / "cumulet" / name
        text = file.read_text(encoding="utf-8")
        if text.count(before) != 1:
            raise Unexpected(f"{name} of commit {OLD} does not have {before!r} once")
        file.write_text(text.replace(before, after), encoding="utf-8")


def build_image(source: Path) -> None:
    """The guests' image as these sources make it, in the user's cache. The machines of a fleet reach no packages."""
    build = "from cumulet.image import tiny; tiny.build()"
    of_old = dict(os.environ, PYTHONPATH=str(source))
    made = subprocess.run([sys.executable, "-c", build], env=of_old, check=False, capture_output=True, text=True)
    if made.returncode != 0:
        raise Unexpected(f"no image for guests of commit {OLD}: {made.stderr.strip()}")


def tell(evidence: Evidence, folder: Path) -> None:
    old = source_of(OLD, folder / "old")
    with_uneven_memory(old)
    build_image(old)
    with (
        fleet_of(folder, "operator", "data", "control1", "control2", "rack1", "rack2") as machines,
        ExitStack() as stack,
    ):
        fleet = Fleet(evidence, machines, folder / "shared")
        for machine in machines.values():
            machine.source = old
        evidence.chapter(f"A fleet of commit {OLD}")
        stack.enter_context(inside(machines["operator"]))
        control_planes(fleet)
        admin = administrator(fleet, "control1")
        join(fleet, admin, ["rack1", "rack2"])
        servers = two_servers(fleet, admin)
        for machine in machines.values():
            machine.source = None
        Upgrade(fleet, servers).all()


class Upgrade:
    """From the old processes of a fleet to new ones."""

    def __init__(self, fleet: Fleet, servers: list[str]) -> None:
        self.fleet = fleet
        self.servers = servers

    def all(self) -> None:
        fleet, evidence = self.fleet, self.fleet.evidence
        evidence.chapter("The database is brought forward while all that runs is old")
        upgrade = fleet.machines["data"].cumulet("database", "upgrade", "--database", fleet.database, log="upgrade")
        evidence.claim("the schema is the new one", True, upgrade.wait_for("the schema is"))
        for name in ("control1", "control2"):
            seen = administrator(fleet, name).get(SERVERS)["servers"]
            evidence.claim(f"the old API at {name} goes on", len(seen) == 2, f"{len(seen)} servers")
        for what, machine, role, asked_at in (
            ("a conductor", "control2", "conductor", "control1"),
            ("an API", "control2", "api", "control1"),
            ("the first control plane", "control1", "up", "control2"),
            ("the bus", "data", "bus", "control2"),
        ):
            self.moved_meanwhile(what, fleet.machines[machine].newest(role), partial(start, fleet, role), asked_at)
        self.agents()

    def moved_meanwhile(self, what: str, old: Program, begin: Callable[[], Program], asked_at: str) -> None:
        """A move has begun when the old process is told to end; the new one starts at once."""
        evidence, server, admin = self.fleet.evidence, self.servers[0], administrator(self.fleet, asked_at)
        evidence.chapter(f"{what[0].upper()}{what[1:]} is replaced in the middle of a move")
        source = host_of(admin, server)
        destination = "rack2" if source == "rack1" else "rack1"
        with Watcher(admin, server) as watcher:
            watcher.wait_for_more(2, 60)
            answer = admin.act(server, {"os-migrateLive": {"host": destination, "block_migration": "auto"}})
            if answer.status != 202:
                raise Unexpected(f"the move was refused: {answer.message}")
            until("the move runs", lambda: admin.get(f"{SERVERS}/{server}/migrations")["migrations"], 60)
            begun = time.monotonic()
            old.stop()
            begin().wait_for("ready")
            until("the move comes to its end", lambda: ended(admin, server), 150)
            on = watcher.wait_for_more(3, 90)
        where = host_of(admin, server)
        evidence.claim(
            f"{what} is new, the move has one known end, and the guest never stopped counting",
            on and watcher.uninterrupted and where in (source, destination),
            f"on {where}, {time.monotonic() - begun:.1f} s after the old process was told to end",
        )
        until("hosts are up", lambda: all(is_up(admin, name) for name in ("rack1", "rack2")), 90)
        # A host that counted as down, as without a bus, keeps what waited for the guest until a reconciler finds it.
        until("the other machine has nothing left of it", lambda: self.machines_with(server) == [where], 60)
        running = self.machines_with(server)
        evidence.claim("it runs on exactly that one machine", running == [where], f"a QEMU of it on {running}")

    def machines_with(self, server: str) -> list[str]:
        """Where a QEMU of it is, whether the guest runs in it or not."""
        return [name for name in ("rack1", "rack2") if server in self.fleet.machines[name].guests()]

    def agents(self) -> None:
        fleet, evidence = self.fleet, self.fleet.evidence
        admin = administrator(fleet, "control2")
        evidence.chapter("Agents of the version before are spoken to, and are replaced last")
        known = {one["name"]: one["protocol"] for one in control_plane(admin)["hosts"]}
        evidence.claim("they have spoken protocol 1 all the time", set(known.values()) == {1}, str(known))
        for name in ("rack1", "rack2"):
            machine = fleet.machines[name]
            before = machine.guests()
            machine.newest("agent").stop()
            agent = machine.cumulet("agent", "--state", str(machine.folder / "state"), "--emulated", log="agent2")
            agent.wait_for("ready")
            until("it is known", partial(self.speaks, admin, name), 60)
            evidence.claim(f"{name} has a new agent and the guests it had", machine.guests() == before, str(before))
        source = host_of(admin, self.servers[0])
        destination = "rack2" if source == "rack1" else "rack1"
        with Watcher(admin, self.servers[0]) as watcher:
            admin.act(self.servers[0], {"os-migrateLive": {"host": destination, "block_migration": "auto"}})
            until("the move ends", lambda: host_of(admin, self.servers[0]) == destination, 120)
            on = watcher.wait_for_more(3, 60)
        evidence.claim(
            "a guest moves between new agents", on and watcher.uninterrupted, f"from {source} to {destination}"
        )
        shown = sorted((one["role"], one["version"]) for one in control_plane(admin)["processes"])
        evidence.claim(
            "all processes are shown", [role for role, _ in shown] == ["api", "bus", "conductor", "up"], str(shown)
        )

    def speaks(self, admin: Persona, name: str) -> bool:
        return any(one["name"] == name and one["protocol"] == PROTOCOL for one in control_plane(admin)["hosts"])


def control_plane(admin: Persona) -> JsonObject:
    found: dict[str, object] = admin.get("/compute/v2.1/cumulet/control-plane")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", action="store_true", help="keep the folder with all logs")
    chosen = parser.parse_args()
    return told("upgrade", tell, why_not=reason_not(), keep=chosen.keep)


if __name__ == "__main__":
    sys.exit(main())
