"""A real cloud to be killed: `cumulet up` with real guests as a child process, its parts by process number, its API."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from cumulet.agent.watchdog import AGENT_LOCK
from cumulet.cli.client import Answer, Persona, credentials_of, https, log_in
from cumulet.fleet.local_networks import LocalNetworks
from cumulet.host.driver import MigrationPhase
from cumulet.testing import JsonObject

HOSTS = ("host1", "host2")
SERVERS = "/compute/v2.1/servers"
START_SECONDS = 90.0
BOOT_SECONDS = 120.0
POLL_SECONDS = 0.05
ENDED = ("completed", "done", "confirmed", "reverted", "error", "cancelled")
"""What the API calls migrations of each kind that have come to their end."""
USER_DATA = b"disk_writer=1\ndirty_mib_s=20\n"
GATEWAY = 1
"""The last part of the address that guests with a network ping all the time: their router's."""


def until(what: str, seconds: float, condition: Callable[[], object], *, pause: float = POLL_SECONDS) -> Any:
    """Ask again until it holds: what other processes do tells nobody here."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what}")
        time.sleep(pause)
    return found


@dataclass(frozen=True, slots=True)
class Sight:
    """An operation as its row says: which step of its saga it is at."""

    status: str
    position: int

    @property
    def ended(self) -> bool:
        return self.status in ("done", "unwound")

    @property
    def unwinding(self) -> bool:
        return self.status == "unwinding"


class CrashCloud:
    """Started, killed and started again on one state folder, with the same options."""

    hosts: tuple[str, ...] = HOSTS

    def __init__(self, base: Path, *options: str) -> None:
        self.state = base / "state"
        self.options = options
        self._ready = base / "ready"
        self.log = base / "up.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.admin: Persona
        self.network: str | None = None
        """What servers are on, if any."""
        self.problems_beside: Callable[[], list[str]] = list
        """What else differs."""
        self._reader: sqlite3.Connection | None = None

    def place(self, host: str) -> Path:
        """The folder of a host."""
        return self.state / "hosts" / host

    # -- its processes

    def start(self) -> None:
        self._ready.unlink(missing_ok=True)
        command = [sys.executable, "-m", "cumulet", "up", "--driver", "qemu", "--listen", "127.0.0.1:0"]
        command += ["--state", str(self.state), "--ready-file", str(self._ready), *self.options]
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        until("`cumulet up` serves", START_SECONDS, self._serves)
        self._keep_states()
        credentials, authority = credentials_of(self.state / "clouds.yaml", "cumulet")
        http = https(self._ready.read_text().strip(), authority)
        self.admin = log_in(http, "admin", credentials)

    def _serves(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.last_words()
        return self._ready.exists()

    def last_words(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()
        return "\n".join([line for line in lines if '"cumulet.access"' not in line][-40:])

    def start_again(self) -> None:
        """After it was killed."""
        assert self.process is not None
        self.process.wait()
        self.start()

    def _keep_states(self) -> None:
        """An operation that has ended keeps no state: the database itself keeps the last one for us."""
        with contextlib.closing(sqlite3.connect(self.state / "cumulet.db", timeout=30)) as database:
            database.executescript(
                "CREATE TABLE IF NOT EXISTS crash_states (id TEXT PRIMARY KEY, state TEXT);"
                "CREATE TRIGGER IF NOT EXISTS crash_states AFTER UPDATE OF state ON operations "
                "WHEN OLD.state != '{}' BEGIN INSERT OR REPLACE INTO crash_states VALUES (OLD.id, OLD.state); END;"
            )

    @property
    def pid(self) -> int:
        """Of the control plane."""
        assert self.process is not None
        return self.process.pid

    def agent(self, host: str, *, other_than: int = 0) -> int:
        """The number of a host's agent process."""
        place = str(self.place(host))

        def found() -> int:
            for pid, words in commands():
                if b"agent" in words and place.encode() in words and pid != other_than:
                    return pid
            return 0

        pid: int = until(f"an agent of {host}", 30.0, found, pause=0.01)
        return pid

    @contextlib.contextmanager
    def dead(self, host: str, server_ids: Iterable[str]) -> Iterator[None]:
        """A host's agent and its guests are killed, and no agent comes up there until the end of the block."""
        with self.without_agent(host):
            for server_id in server_ids:
                kill(self.guests(server_id)[host], signal.SIGKILL)
            yield

    @contextlib.contextmanager
    def without_agent(self, host: str) -> Iterator[None]:
        """A host's agent is killed, and the next one, which waits for its lock, gets it at the end of the block."""
        with open(self.place(host) / AGENT_LOCK) as lock:
            kill(self.agent(host), signal.SIGKILL)
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def guests(self, server_id: str) -> dict[str, int]:
        """Every living QEMU of this server that a host has noted, host -> process number; `strays` finds any other."""
        return {host: pid for host in self.hosts if is_qemu(pid := self._noted(host, server_id))}

    def strays(self, known: set[int]) -> list[int]:
        """QEMU processes of this cloud's guests that are none of `known`."""
        ids = {path.name for host in self.hosts for path in self._fences(host)}
        return [
            pid
            for pid, words in commands()
            if b"qemu-system" in words[0]
            and pid not in known
            and any(server_id.encode() in b" ".join(words) for server_id in ids)
        ]

    def _fences(self, host: str) -> Iterator[Path]:
        yield from (self.place(host) / "fence").glob("*-*")

    def folder(self, host: str, server_id: str) -> Path:
        return self.place(host) / "qemu" / "guests" / server_id

    def _noted(self, host: str, server_id: str) -> int:
        with contextlib.suppress(OSError, msgspec.DecodeError):
            note = msgspec.json.decode((self.folder(host, server_id) / "process.json").read_bytes())
            return int(note["pid"])
        return -1

    def stop(self) -> None:
        """Remove every guest, then end in good order."""
        for server_id in self.servers():
            self.delete(server_id)
        self.terminate()

    def terminate(self) -> None:
        """As Ctrl-C does."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(60) == 0, self.last_words()

    def destroy(self) -> None:
        """Whatever is left of it, by process number: nothing may stay behind on the machine."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        for host in self.hosts:
            for pid, words in commands():
                if b"agent" in words and str(self.place(host)).encode() in words:
                    kill(pid, signal.SIGKILL)
            for path in self._fences(host):
                for pid in self.guests(path.name).values():
                    kill(pid, signal.SIGKILL)
        # Hosts that were given no network of their own have been given namespaces, which stay with `--leave-guests`.
        LocalNetworks(self.state.absolute(), self.hosts).remove()

    # -- its servers

    def create(self, count: int) -> list[str]:
        """So many servers from one request, each of which has begun to write and to tick; their ids."""
        image = self.admin.get("/image/v2/images?name=cumulet-tiny")["images"][0]["id"]
        settings = USER_DATA + (b"" if self.network is None else f"peer={GATEWAY}\n".encode())
        wanted = {
            "name": "victim",
            "imageRef": image,
            "min_count": count,
            "flavorRef": self.flavor("m1.nano"),
            "networks": "none" if self.network is None else [{"uuid": self.network}],
            "user_data": base64.b64encode(settings).decode(),
            "return_reservation_id": True,
        }
        answer = self.admin.must("POST", SERVERS, {"server": wanted})
        found = self.admin.get(f"{SERVERS}?reservation_id={answer['reservation_id']}")["servers"]
        ids = [str(server["id"]) for server in found]
        assert len(ids) == count
        for server_id in ids:
            until(f"{server_id} writes and ticks", BOOT_SECONDS, partial(self._writes, server_id), pause=0.25)
        return ids

    def _writes(self, server_id: str) -> bool:
        return self.show(server_id)["status"] == "ACTIVE" and "seq 5" in self.console(server_id)

    def servers(self) -> list[str]:
        return [str(server["id"]) for server in self.admin.get(SERVERS)["servers"]]

    def show(self, server_id: str) -> JsonObject:
        server: dict[str, object] = self.admin.get(f"{SERVERS}/{server_id}")["server"]
        return server

    def host(self, server_id: str) -> str:
        return str(self.show(server_id)["OS-EXT-SRV-ATTR:host"])

    def console(self, server_id: str) -> str:
        answer = self.admin.act(server_id, {"os-getConsoleOutput": {"length": 200}})
        return str(answer.json["output"]) if answer.status == 200 else ""

    def delete(self, server_id: str) -> None:
        self.admin.must("DELETE", f"{SERVERS}/{server_id}")
        gone = f"{SERVERS}/{server_id}"
        until(f"{server_id} is gone", 60.0, lambda: self.admin.ask("GET", gone).status == 404)

    def move(self, server_id: str, destination: str) -> str:
        """Ask for a live migration; its operation."""
        body = {"os-migrateLive": {"host": destination, "block_migration": "auto"}}
        assert self.admin.act(server_id, body).status == 202
        return str(self._row("SELECT id FROM operations WHERE subject = ? ORDER BY created_at_us DESC", server_id)[0])

    def abort(self, server_id: str) -> None:
        """Ask the running move of a server to go back. Whether it is in time, its operation tells."""
        moves = self.admin.get(f"{SERVERS}/{server_id}/migrations")["migrations"]
        for move in moves:
            answer = self.admin.ask("DELETE", f"{SERVERS}/{server_id}/migrations/{move['id']}")
            assert answer.status in (202, 400, 404), answer

    def force(self, server_id: str) -> None:
        """Ask the running move of a server to complete, whatever it takes."""
        for move in self.admin.get(f"{SERVERS}/{server_id}/migrations")["migrations"]:
            path = f"{SERVERS}/{server_id}/migrations/{move['id']}/action"
            answer = self.admin.ask("POST", path, {"force_complete": None})
            assert answer.status in (202, 400, 404, 409), answer

    def was_post_copy(self, operation: str) -> bool:
        """Whether, at the commit, some of the memory was still at the source."""
        state = msgspec.json.decode(self._row("SELECT state FROM crash_states WHERE id = ?", operation)[0])
        # Where the rest never came, what is kept of the copy is how it was at the commit.
        at_commit = (state["progress"] or {}).get("phase")
        return bool(state["rest_follows"] or at_commit == MigrationPhase.POST_COPY_READY)

    def moved(self, server_id: str) -> str:
        """What the API says has become of the newest move of a server."""
        moves = self.admin.get(f"/compute/v2.1/os-migrations?instance_uuid={server_id}")["migrations"]
        return str(max(moves, key=lambda move: int(move["id"]))["status"])

    def flavor(self, name: str) -> str:
        flavors = self.admin.get("/compute/v2.1/flavors")["flavors"]
        return str(next(one["id"] for one in flavors if one["name"] == name))

    def resize(self, server_id: str, flavor: str) -> Answer:
        return self.admin.act(server_id, {"resize": {"flavorRef": self.flavor(flavor)}})

    def lease_held(self, host: str) -> bool:
        """Whether the record says that a watchdog would end the host's guests, were it not heard."""
        with contextlib.closing(sqlite3.connect(self.state / "cumulet.db", timeout=30)) as database:
            (facts,) = database.execute("SELECT facts FROM hosts WHERE name = ?", (host,)).fetchone()
        return bool(json.loads(facts).get("lease_held"))

    def service(self, host: str) -> JsonObject:
        """A host's service, as the API shows it."""
        services = self.admin.get("/compute/v2.1/os-services?binary=nova-compute")["services"]
        found: dict[str, object] = next(one for one in services if one["host"] == host)
        return found

    def force_down(self, host: str, *, down: bool) -> None:
        self.admin.must("PUT", f"/compute/v2.1/os-services/{self.service(host)['id']}", {"forced_down": down})

    def evacuate(self, server_id: str) -> Answer:
        """In the newest version in which the server is started where it comes to."""
        return self.admin.act(server_id, {"evacuate": {}}, version="2.94")

    def sight(self, operation: str) -> Sight:
        """The operation as its row says, read beside the control plane."""
        status, position = self._row("SELECT status, position FROM operations WHERE id = ?", operation)
        return Sight(status, position)

    def _row(self, statement: str, *values: str) -> tuple[Any, ...]:
        if self._reader is None:
            self._reader = sqlite3.connect(f"file:{self.state / 'cumulet.db'}?mode=ro", uri=True)
        row: tuple[object, ...] = self._reader.execute(statement, values).fetchone()
        return row

    # -- what every part of it says of a server

    def problems(self, server_id: str) -> list[str]:
        """Where record, machine, disks, placement and bindings differ; empty when all tell the same."""
        server = self.show(server_id)
        host, status = server["OS-EXT-SRV-ATTR:host"], server["status"]
        found = []
        if server["OS-EXT-STS:task_state"] is not None:
            found.append(f"it is {server['OS-EXT-STS:task_state']}")
        found += [f"operation {one}" for one in self.admin.get("/compute/v2.1/cumulet/operations")["operations"]]
        services = self.admin.get("/compute/v2.1/os-services?binary=nova-compute")["services"]
        found += [f"{one['host']} is {one['state']}" for one in services if one["state"] != "up"]
        expected = {host} if status == "ACTIVE" else set()
        guests = self.guests(server_id)
        if set(guests) != expected:
            found.append(f"{status} on {host}, but its processes are {guests}")
        found += [f"process {pid} is nobody's" for pid in self.strays(self._all_guests())]
        disks = [one for one in self.hosts if self.folder(one, server_id).exists()]
        if disks != [host]:
            found.append(f"{status} on {host}, but there are disks on {disks}")
        found += self._unplaced(server_id, host)
        return found + self.problems_beside()

    def _all_guests(self) -> set[int]:
        return {pid for server_id in self.servers() for pid in self.guests(server_id).values()}

    def _unplaced(self, server_id: str, host: str) -> list[str]:
        providers = {
            one["uuid"]: one["name"] for one in self.admin.get("/placement/resource_providers")["resource_providers"]
        }
        held = [providers[one] for one in self.admin.get(f"/placement/allocations/{server_id}")["allocations"]]
        found = [] if held == [host] else [f"it belongs to {host}, but holds shares of {held}"]
        for move in self.admin.get(f"/compute/v2.1/os-migrations?instance_uuid={server_id}")["migrations"]:
            if self.admin.get(f"/placement/allocations/{move['uuid']}")["allocations"]:
                found.append(f"migration {move['id']} ({move['status']}) still holds a share")
            if move["status"] not in ENDED:
                found.append(f"migration {move['id']} is {move['status']}")
        bound = {
            one["binding:host_id"] for one in self.admin.get(f"/network/v2.0/ports?device_id={server_id}")["ports"]
        }
        return found if bound <= {host} else [*found, f"it belongs to {host}, but ports are bound to {bound}"]


def commands() -> Iterator[tuple[int, list[bytes]]]:
    """Every process of this machine that lives, and its words."""
    for name in filter(str.isdecimal, os.listdir("/proc")):
        try:
            words = Path("/proc", name, "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue  # It ended while we looked.
        if words and words[0]:  # A zombie has none.
            yield int(name), words


def is_qemu(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return b"qemu-system" in Path("/proc", str(pid), "cmdline").read_bytes().split(b"\0")[0]
    return False


def kill(pid: int, number: signal.Signals) -> None:
    assert pid > 0
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
