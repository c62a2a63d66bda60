"""`make fleet`: several machines on this one, told like the demo. Exit status 0 only if all that is claimed held.

PostgreSQL and NATS on a machine of their own; two control planes, each with an API and a conductor; hosts with real
QEMU, each with its own state. Joining, servers, live moves between machines, a control plane killed in the middle.
"""

from __future__ import annotations

import argparse
import base64
import re
import shutil
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from cumulet.cli.client import Persona, Unexpected, credentials_of, https, log_in
from cumulet.cli.demo.consoles import Watcher, console_lines, newest_tick
from cumulet.cli.demo.evidence import Evidence
from cumulet.testing import JsonObject
from tests.fleet.machines import Machine, Program, fleet_of, inside, reason_not, start_postgresql
from tests.told import told, until

API, DOOR, BUS = 8774, 8775, 4222
SERVERS = "/compute/v2.1/servers"
FAST = ("--set", "lease_seconds=3", "--set", "host_silent_seconds=3")


@dataclass
class Fleet:
    """What the story is told with."""

    evidence: Evidence
    machines: dict[str, Machine]
    state: Path
    """What control planes share."""
    database: str = ""
    settings: tuple[str, ...] = FAST
    listening: dict[str, list[str]] = field(default_factory=dict)
    """What listened on each host's machine once it had joined."""

    @property
    def bus(self) -> str:
        return f"nats://{self.machines['data'].address}:{BUS}"

    @property
    def shared(self) -> tuple[str, ...]:
        return ("--state", str(self.state), "--database", self.database, *self.settings)


def tell(evidence: Evidence, folder: Path, *, hosts: int, short: bool) -> None:
    names = [f"rack{number}" for number in range(1, hosts + 1)]
    with fleet_of(folder, "operator", "data", "control1", "control2", *names) as machines, ExitStack() as stack:
        fleet = Fleet(evidence, machines, folder / "shared")
        evidence.chapter("Machines: network namespaces on one switch")
        for machine in machines.values():
            evidence.tell(f"{machine.name} at {machine.address}")
        stack.enter_context(inside(machines["operator"]))
        control_planes(fleet)
        admin = administrator(fleet, "control1")
        if not short:
            names.append("control1")  # The cloud's own machine may be a host as any other.
        join(fleet, admin, names)
        servers = two_servers(fleet, admin)
        move(fleet, admin, servers, 0, "rack1", "rack2")
        if not short:
            move(fleet, administrator(fleet, "control2"), servers, 1, "rack1", "control1")
            move(fleet, administrator(fleet, "control2"), servers, 1, "control1", f"rack{hosts}")
        survivor = killed_in_the_middle(fleet, admin, servers[0])
        leave(fleet, survivor, servers, names)


def control_planes(fleet: Fleet) -> None:
    evidence = fleet.evidence
    evidence.chapter("Two control planes on one PostgreSQL and one NATS")
    fleet.database = start_postgresql(fleet.machines["data"])
    begun = time.monotonic()
    start(fleet, "up").wait_for("ready")
    for program in [start(fleet, role) for role in ("bus", "api", "conductor")]:
        program.wait_for("ready")
    evidence.claim(
        "two APIs and two conductors serve", True, f"{time.monotonic() - begun:.1f} s after the first was started"
    )


def start(fleet: Fleet, role: str) -> Program:
    """One of the processes of the control planes, on the machine where it belongs."""
    data, control1, control2 = (fleet.machines[name] for name in ("data", "control1", "control2"))
    machine, more = {
        "up": (control1, ("--hosts", "0", "--driver", "qemu", "--leave-guests")),
        "bus": (data, ("--own", str(data.folder / "bus"))),
        "api": (control2, ("--own", str(control2.folder / "own"))),
        "conductor": (control2, ()),
    }[role]
    port = {"up": API, "api": API, "bus": BUS}.get(role)
    listen = () if port is None else ("--listen", f"{machine.address}:{port}")
    bus = () if role == "bus" else ("--bus", fleet.bus)
    return machine.cumulet(role, *fleet.shared, *bus, *more, *listen, log=role)


def administrator(fleet: Fleet, control: str) -> Persona:
    """At the API of one control plane. Everything here is asked from the control plane's own namespace."""
    address = fleet.machines[control].address
    credentials, authority = credentials_of(fleet.state / "clouds.yaml", "cumulet")
    http = https(f"https://{address}:{API}", authority)
    return log_in(http, f"admin at {control}", credentials)


def join(fleet: Fleet, admin: Persona, names: list[str]) -> None:
    evidence = fleet.evidence
    evidence.chapter("Machines join as hosts: one command each, with a token that is good once")
    for name in names:
        machine = fleet.machines[name]
        made = admin.must("POST", "/compute/v2.1/cumulet/hosts", {"host": {"name": name}})["host"]
        begun = time.monotonic()
        # The second control plane's door: the first one will be killed.
        url = f"https://{fleet.machines['control2'].address}:{DOOR}"
        command = (
            "agent",
            "--join",
            url,
            "--token",
            made["token"],
            "--ca-fingerprint",
            made["ca_fingerprint"],
            "--state",
            str(machine.folder / "state"),
            "--emulated",
        )
        until("the door opens", partial(listens_at, fleet.machines["control2"], DOOR))
        machine.cumulet(*command, log="agent").wait_for("ready")
        until(f"{name} is a host", partial(is_up, admin, name))
        evidence.claim(f"{name} is a host", True, f"{time.monotonic() - begun:.1f} s after its command was run")
    fleet.listening = {name: fleet.machines[name].listeners() for name in names}
    racks = {name: found for name, found in fleet.listening.items() if name.startswith("rack")}
    evidence.claim("hosts listen to nothing", not any(racks.values()), str(racks))
    copy = fleet.machines[names[0]]
    shutil.copytree(copy.folder / "state" / "bus", copy.folder / "copy" / "bus")
    shutil.copy(copy.folder / "state" / "joined.json", copy.folder / "copy" / "joined.json")
    refused = copy.cumulet("agent", "--no-networks", "--state", str(copy.folder / "copy"), log="copy")
    line = refused.wait_for("cumulet: error")
    evidence.claim(
        "a copy of a machine is refused", "seems to be a copy" in line, line.removeprefix("cumulet: error: ")
    )


def listens_at(machine: Machine, port: int) -> bool:
    return f"{machine.address}:{port}" in machine.listeners()


def is_up(admin: Persona, host: str) -> bool:
    return host in hosts_up(admin)


def is_active(admin: Persona, server: str) -> bool:
    return bool(show(admin, server)["status"] == "ACTIVE")


def ticks(admin: Persona, server: str) -> bool:
    return newest_tick(console_lines(admin, server, 5), server) is not None


def hosts_up(admin: Persona) -> set[str]:
    found = admin.get("/compute/v2.1/os-services?binary=nova-compute")["services"]
    return {one["host"] for one in found if one["state"] == "up"}


def two_servers(fleet: Fleet, admin: Persona) -> list[str]:
    evidence = fleet.evidence
    evidence.chapter("Two servers on the first host")
    flavors = {one["name"]: one["id"] for one in admin.get("/compute/v2.1/flavors")["flavors"]}
    image = admin.get("/image/v2/images?name=cumulet-tiny")["images"][0]["id"]
    network = made_of(admin, "network", {"name": "lab"})
    made_of(admin, "subnet", {"network_id": network, "cidr": "10.9.0.0/24", "ip_version": 4, "gateway_ip": None})
    made: list[str] = []
    begun = time.monotonic()
    for number in (1, 2):
        peer = f"peer={address_of(admin, made[0]).rpartition('.')[2]}\n" if made else ""
        body = {
            "name": f"server{number}",
            "flavorRef": flavors["m1.nano"],
            "imageRef": image,
            "networks": [{"uuid": network}],
            "host": "rack1",
            "user_data": base64.b64encode(peer.encode()).decode(),
        }
        made.append(str(admin.must("POST", SERVERS, {"server": body})["server"]["id"]))
        until("a server is ACTIVE", partial(is_active, admin, made[-1]))
    for server in made:
        until("its guest ticks", partial(ticks, admin, server), 240)
    until("a guest answers the other", lambda: pongs(admin, made[1]) > 0, 60)
    evidence.claim(
        "two guests run, tick and reach each other",
        True,
        f"{time.monotonic() - begun:.1f} s, their image fetched from a control plane",
    )
    return made


def made_of(admin: Persona, kind: str, values: dict[str, object]) -> str:
    return str(admin.must("POST", f"/network/v2.0/{kind}s", {kind: values})[kind]["id"])


def address_of(admin: Persona, server: str) -> str:
    (addresses,) = show(admin, server)["addresses"].values()
    return str(addresses[0]["addr"])


def pongs(admin: Persona, server: str) -> int:
    """How many answers to its pings a guest has printed."""
    found = re.findall(r"pong (\d+) ", console_lines(admin, server, 200))
    return int(found[-1]) if found else 0


def show(admin: Persona, server: str) -> JsonObject:
    found: dict[str, object] = admin.get(f"{SERVERS}/{server}")["server"]
    if found["status"] == "ERROR":
        raise Unexpected(f"{server} is in ERROR: {found.get('fault')}")
    return found


def host_of(admin: Persona, server: str) -> str:
    return str(show(admin, server)["OS-EXT-SRV-ATTR:host"])


def move(fleet: Fleet, admin: Persona, servers: list[str], which: int, source: str, destination: str) -> None:
    evidence, server = fleet.evidence, servers[which]
    where = admin.name.removeprefix("admin at ")
    evidence.chapter(f"A server moves, live, from {source} to {destination}, asked at {where}")
    begun = time.monotonic()
    with Watcher(admin, server) as watcher:
        watcher.wait_for_more(3, 60)
        order = {"os-migrateLive": {"host": destination, "block_migration": "auto"}}
        answer = admin.act(server, order)
        if answer.status != 202:
            raise Unexpected(f"the move was refused: {answer.message}")
        until("the move ends", lambda: ended(admin, server) and host_of(admin, server) == destination, 120)
        on = watcher.wait_for_more(5, 60)
    evidence.claim(
        f"it runs on {destination} and never stopped counting",
        on and watcher.uninterrupted and host_of(admin, server) == destination,
        f"{time.monotonic() - begun:.1f} s; longest silence {watcher.longest_gap_ms:.0f} ms",
    )
    before = pongs(admin, servers[1])
    until("pings over the switch are answered", lambda: pongs(admin, servers[1]) > before + 3, 60)
    between = " and ".join(host_of(admin, one) for one in servers)
    evidence.claim("its packets have followed it", True, f"pings between {between} are answered")
    now = {name: set(fleet.machines[name].listeners()) for name in (source, destination)}
    left = {name: sorted(found - set(fleet.listening[name])) for name, found in now.items()}
    evidence.claim("nothing listens for it any more", not any(left.values()), str(left))


def ended(admin: Persona, server: str) -> bool:
    return show(admin, server)["OS-EXT-STS:task_state"] is None


def killed_in_the_middle(fleet: Fleet, admin: Persona, server: str) -> Persona:
    evidence = fleet.evidence
    evidence.chapter("The first control plane is killed in the middle of a move back")
    survivor = administrator(fleet, "control2")
    with Watcher(survivor, server) as watcher:
        watcher.wait_for_more(3, 60)
        answer = admin.act(server, {"os-migrateLive": {"host": "rack1", "block_migration": "auto"}})
        if answer.status != 202:
            raise Unexpected(f"the move was refused: {answer.message}")
        until("the move runs", lambda: survivor.get(f"{SERVERS}/{server}/migrations")["migrations"], 30)
        fleet.machines["control1"].newest("up").kill()
        begun = time.monotonic()
        evidence.tell("kill -9 of its API and conductor at once")
        until("the move comes to its end", lambda: ended(survivor, server), 120)
        where = host_of(survivor, server)
        on = watcher.wait_for_more(5, 90)
    evidence.claim(
        "the other one brought it to one known end",
        on and where in ("rack1", "rack2") and watcher.uninterrupted,
        f"on {where}, {time.monotonic() - begun:.1f} s after the kill; the guest never stopped counting",
    )
    running = [name for name in ("rack1", "rack2") if server in fleet.machines[name].guests()]
    evidence.claim("it runs on exactly that one machine", running == [where], f"a QEMU of it on {running}")
    until("hosts are up", lambda: set(fleet.listening) <= hosts_up(survivor), 60)
    evidence.claim("the hosts are looked after by the other one", True, ", ".join(sorted(hosts_up(survivor))))
    return survivor


def leave(fleet: Fleet, admin: Persona, servers: list[str], names: list[str]) -> None:
    evidence = fleet.evidence
    evidence.chapter("A host leaves")
    for server in servers:
        admin.must("DELETE", f"{SERVERS}/{server}")
    until("the servers are gone", lambda: not admin.get(SERVERS)["servers"])
    left = {name: fleet.machines[name].guests() for name in names}
    evidence.claim("no guest is left anywhere", not any(left.values()), ", ".join(names))
    last = next(name for name in reversed(names) if name.startswith("rack"))
    admin.must("DELETE", f"/compute/v2.1/cumulet/hosts/{last}")
    line = fleet.machines[last].newest("agent").wait_for("cumulet: error", 60)
    evidence.claim("a host that was removed is cut off and says so", "was removed" in line, line)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hosts", type=int, default=3)
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--keep", action="store_true", help="keep the folder with all logs")
    chosen = parser.parse_args()
    return told("fleet", partial(tell, hosts=chosen.hosts, short=chosen.short), why_not=reason_not(), keep=chosen.keep)


if __name__ == "__main__":
    sys.exit(main())
