"""A fleet to be struck: what it is made of, what can befall it, and what is demanded of it afterwards."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from enum import StrEnum
from pathlib import Path
from typing import Any

import httpx
import msgspec

from cumulet.cli.client import Unexpected
from cumulet.cli.demo.evidence import Evidence
from cumulet.cli.screen import screen
from tests.fleet.machines import (
    Machine,
    Program,
    children_of,
    fleet_of,
    inside,
    kill,
    processes_of,
    restart_postgresql,
    unplugged,
)
from tests.fleet.story import FAST, Fleet, administrator, control_planes, join, start
from tests.qemu.crash_cloud import CrashCloud

RACKS = ("rack1", "rack2")
LONG_SECONDS = (4.0, 9.0)
"""How long what is not killed is away: longer than the leases of this fleet (3 s), at both ends of it."""
MOVE_SECONDS = 8.0
"""Within so long after a move was asked for it is struck; on the machine of the runs it takes 5 to 15 s."""
SETTLED_SECONDS = 180.0
LAST_LINES, LONGEST_WORDS = 15, 600
"""Of what each program has said, when a run fails."""


class Blow(StrEnum):
    """What befalls a fleet."""

    POSTGRESQL_KILLED = "PostgreSQL killed"
    COMMIT_LOST = "PostgreSQL's answers lost, then it is killed"
    NATS_KILLED = "NATS killed"
    CONDUCTOR_STOPPED = "the conductor that leads stopped beyond its lease"
    OTHER_STOPPED = "the other conductor stopped beyond its lease"
    API_CUT_OFF = "a control plane cut off"
    SOURCE_CUT_OFF = "the source's machine cut off"
    DESTINATION_CUT_OFF = "the destination's machine cut off"
    DATA_CUT_OFF = "PostgreSQL and NATS cut off"
    CONTROL_PLANE_KILLED = "a control plane killed"
    FENCED = "a machine cut off, fenced, and its servers evacuated"


WHILE_A_GUEST_MOVES = tuple(blow for blow in Blow if blow is not Blow.FENCED)
FENCE_SECONDS = 8.0
FENCING = tuple(
    word
    for setting in (
        "lease_seconds=2.5",
        "host_silent_seconds=3",
        f"host_lease_seconds={FENCE_SECONDS}",
        "fence_silent_hosts=true",
    )
    for word in ("--set", setting)
)
"""Settings of a fleet whose silent hosts end their guests."""


class Run(msgspec.Struct, frozen=True):
    """Decided by its seed: each blow that falls while a guest moves in turn, at a moment and for a time of its own."""

    seed: int
    blow: Blow
    after_s: float
    lasts_s: float

    @classmethod
    def of(cls, seed: int) -> Run:
        chance = random.Random(seed)
        after, lasts = chance.uniform(0.0, MOVE_SECONDS), chance.uniform(*LONG_SECONDS)
        return cls(seed, WHILE_A_GUEST_MOVES[seed % len(WHILE_A_GUEST_MOVES)], round(after, 2), round(lasts, 2))


class Result(msgspec.Struct, kw_only=True):
    """A line of `docs/crash-runs-fleet.jsonl`."""

    seed: int
    blow: Blow
    after_s: float
    lasts_s: float
    struck_at: str = ""
    """What the API had said of the move when the blow fell."""
    move: str = ""
    """What the API says has become of it."""
    settled_s: float = 0.0
    """From the request until everything agreed again."""
    verdict: str = ""
    at: str = ""
    commit: str = ""


class FleetCloud(CrashCloud):
    """The servers of a fleet, asked for at its second control plane, and the folders of its hosts."""

    hosts = RACKS

    def __init__(self, fleet: Fleet) -> None:
        super().__init__(fleet.state.parent)
        self.fleet = fleet
        self.admin = administrator(fleet, "control2")

    def place(self, host: str) -> Path:
        return self.fleet.machines[host].folder / "state"

    def start_agent(self, host: str) -> None:
        """As systemd does when the host's watchdog has killed it."""
        machine = self.fleet.machines[host]
        assert machine.newest("agent").process.wait(30) == -signal.SIGKILL
        machine.cumulet("agent", "--state", str(self.place(host)), "--emulated", log="agent").wait_for("ready")

    def lease_held(self, host: str) -> bool:
        known = self.admin.get("/compute/v2.1/cumulet/control-plane")["hosts"]
        return any(one["name"] == host and one["lease_held"] for one in known)

    def last_words(self) -> str:
        """The last lines of every program on every machine."""
        said = []
        for name, machine in self.fleet.machines.items():
            for log in sorted(machine.folder.glob("*.log")):
                lines = [line for line in log.read_text(errors="replace").splitlines() if "cumulet.access" not in line]
                said += [f"{name} {log.stem}: {line[:LONGEST_WORDS]}" for line in lines[-LAST_LINES:]]
        return "\n".join(said)

    def move(self, server_id: str, destination: str) -> str:
        """Ask for a live migration; the number of its record comes later."""
        answer = self.admin.act(server_id, {"os-migrateLive": {"host": destination, "block_migration": "auto"}})
        assert answer.status == 202, answer.message
        return ""

    def asked(self, what: Callable[[], object]) -> Any:
        """What the API answers; in words why not, while something it needs is away."""
        try:
            return what()
        except (Unexpected, AssertionError, httpx.HTTPError) as problem:
            return [f"the API: {problem}"]

    def settle(self, server_id: str) -> None:
        """Until nobody is at work and all agree; in bounded time."""
        deadline = time.monotonic() + SETTLED_SECONDS
        while problems := self.asked(lambda: self.problems(server_id)):
            assert time.monotonic() < deadline, (problems, self.last_words())
            time.sleep(0.3)


@contextlib.contextmanager
def fleet_to_strike(folder: Path, settings: tuple[str, ...] = FAST) -> Iterator[Fleet]:
    """Two control planes, PostgreSQL and NATS on a machine of their own, two hosts that have joined."""
    with fleet_of(folder, "operator", "data", "control1", "control2", *RACKS) as machines, ExitStack() as stack:
        fleet = Fleet(Evidence(screen()), machines, folder / "shared", settings=settings)
        stack.enter_context(inside(machines["operator"]))
        control_planes(fleet)
        join(fleet, administrator(fleet, "control1"), list(RACKS))
        yield fleet


def strike(fleet: Fleet, wanted: Run, *, source: str, destination: str) -> None:
    """Returns when what was struck is as before, or has been started again."""
    machines = fleet.machines
    control1, control2, data = machines["control1"], machines["control2"], machines["data"]
    match wanted.blow:
        case Blow.POSTGRESQL_KILLED:
            kill_postgresql(data)
            time.sleep(wanted.lasts_s / 4)
            restart_postgresql(data)
        case Blow.COMMIT_LOST:
            with answers_lost(data):
                time.sleep(wanted.lasts_s / 2)
                kill_postgresql(data)
            restart_postgresql(data)
        case Blow.NATS_KILLED:
            [server] = [pid for pid in children_of(data.newest("bus").process.pid) if is_a(pid, b"nats-server")]
            os.kill(server, signal.SIGKILL)
        case Blow.CONDUCTOR_STOPPED:
            stopped(control1.newest("up"), wanted.lasts_s)
        case Blow.OTHER_STOPPED:
            stopped(control2.newest("conductor"), wanted.lasts_s)
        case Blow.CONTROL_PLANE_KILLED:
            control1.newest("up").kill()
            time.sleep(wanted.lasts_s / 2)
            start(fleet, "up").wait_for("ready")
        case _:
            cut_off = {
                Blow.API_CUT_OFF: control1,
                Blow.SOURCE_CUT_OFF: machines[source],
                Blow.DESTINATION_CUT_OFF: machines[destination],
                Blow.DATA_CUT_OFF: data,
            }
            with unplugged(cut_off[wanted.blow]):
                time.sleep(wanted.lasts_s)


def stopped(program: Program, seconds: float) -> None:
    os.kill(program.process.pid, signal.SIGSTOP)
    try:
        time.sleep(seconds)
    finally:
        os.kill(program.process.pid, signal.SIGCONT)


def kill_postgresql(data: Machine) -> None:
    """All of it: its processes are in sessions of their own, and begin others until the first one is dead."""
    data.newest("postgresql").kill()
    while left := [pid for pid in processes_of(data.namespace) if is_a(pid, b"postgres")]:
        kill(left)


def is_a(pid: int, program: bytes) -> bool:
    """Whether it is a process of this program that lives."""
    with contextlib.suppress(OSError):
        words = Path("/proc", str(pid), "cmdline").read_bytes()
        return program in words.split(b"\0")[0] and not words.startswith(b"python")
    return False


@contextlib.contextmanager
def answers_lost(data: Machine) -> Iterator[None]:
    """What PostgreSQL is told arrives, and is done; nobody hears of it."""

    def nft(*words: str) -> None:
        subprocess.run(["nsenter", f"--net=/run/netns/{data.namespace}", "nft", *words], check=True)

    nft("add", "table", "inet", "lost")
    nft("add chain inet lost out { type filter hook output priority 0; policy accept; }")
    nft("add rule inet lost out tcp sport 5432 drop")
    try:
        yield
    finally:
        nft("delete", "table", "inet", "lost")
