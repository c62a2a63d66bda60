"""Machines for a fleet on one real one: network namespaces joined by a switch in another, made and removed by root.

What runs in one sees its own interfaces only; it has a folder of its own. Everything is found again by its names, and
ended by its process number: by another process, which waits for the end of this one, however it ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cumulet.cli.client import Unexpected
from cumulet.drivers.qemu.process import alive
from cumulet.drivers.qemu.record import GuestFolder

ROOT = Path(__file__).parents[2]
READY_SECONDS = 90.0
STOP_SECONDS = 20.0
NETWORK = "10.77.0"
METADATA = ("169.254.169.254%", "[fe80::a9fe:a9fe]%")
"""Ports of services for guests, on their own bridges only: `ss` does not know a new bridge's name yet."""
CLONE_NEWNET = 0x40000000


class NotReady(Unexpected):
    """A process ended, or was not ready in time. Has its last words."""


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@dataclass
class Program:
    """A process on a machine; its output is in `log`."""

    process: subprocess.Popen[bytes]
    log: Path

    def lines(self) -> list[str]:
        return self.log.read_text(errors="replace").splitlines()

    def wait_for(self, beginning: str, seconds: float = READY_SECONDS) -> str:
        """The first line that begins so."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            found = next((line for line in self.lines() if line.startswith(beginning)), None)
            if found is not None:
                return found
            if self.process.poll() is not None:
                break
            time.sleep(0.02)
        raise NotReady(f"no {beginning!r} in {self.log}: {' | '.join(self.lines()[-4:])}")

    def kill(self) -> None:
        """At once, as a power failure does."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(STOP_SECONDS)
        self.kill()


@dataclass
class Machine:
    """One namespace, its address, its folder."""

    name: str
    namespace: str
    address: str
    folder: Path
    programs: list[Program] = field(default_factory=list)
    source: Path | None = None
    """The folder of the Cumulet that runs here; None: this one."""

    def start(self, *command: str, log: str, user: str | None = None) -> Program:
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.folder / f"{log}.log"
        inside = ["nsenter", f"--net=/run/netns/{self.namespace}"]
        if user is not None:
            inside += ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups"]
        with open(file, "wb") as output:
            process = subprocess.Popen(
                [*inside, *command], stdin=subprocess.DEVNULL, stdout=output, stderr=output, process_group=0
            )
        program = Program(process, file)
        self.programs.append(program)
        return program

    def cumulet(self, *arguments: str, log: str) -> Program:
        where = () if self.source is None else ("env", f"PYTHONPATH={self.source}")
        return self.start(*where, sys.executable, "-m", "cumulet", *arguments, log=log)

    def newest(self, log: str) -> Program:
        """What was started last with this log."""
        return next(one for one in reversed(self.programs) if one.log.stem == log)

    def guests(self) -> dict[str, int]:
        """The servers whose QEMU runs here, with its process number."""
        return guests_of(self.folder)

    def listeners(self) -> list[str]:
        """TCP addresses and ports that other machines reach: without loopback and services for guests."""
        output = run("nsenter", f"--net=/run/netns/{self.namespace}", "ss", "-Hltn")
        return [
            where
            for where in (line.split()[3] for line in output.splitlines())
            if not where.startswith(("127.", "[::1]", *METADATA))
        ]


def guests_of(folder: Path) -> dict[str, int]:
    """By the notes of the agent whose machine has this folder, as QEMU has no network."""
    guests = folder / "state" / "qemu" / "guests"
    known = (GuestFolder(guests, path.name) for path in (guests.iterdir() if guests.exists() else ()))
    noted = {one.server_id: one.read_process() for one in known}
    return {server: process.pid for server, process in noted.items() if process is not None and alive(process)}


@contextmanager
def fleet_of(folder: Path, *names: str) -> Iterator[dict[str, Machine]]:
    """Machines by their names, on one switch; all they run is ended in the end."""
    prefix = f"cf{os.getpid()}"
    switch = f"{prefix}-switch"
    with _removed_in_the_end(prefix, folder), ExitStack() as stack:
        run("ip", "netns", "add", switch)
        run("ip", "-n", switch, "link", "add", "wire", "type", "bridge")
        run("ip", "-n", switch, "link", "set", "wire", "up")
        machines = {}
        for number, name in enumerate(names, start=10):
            namespace, port = f"{prefix}-{name}", f"port{number}"
            run("ip", "netns", "add", namespace)
            run("ip", "-n", switch, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", namespace)
            run("ip", "-n", switch, "link", "set", port, "master", "wire", "up")
            address = f"{NETWORK}.{number}"
            run("ip", "-n", namespace, "address", "add", f"{address}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                run("ip", "-n", namespace, "link", "set", device, "up")
            machines[name] = machine = Machine(name, namespace, address, folder / name)
            stack.callback(_stop, machine)
        yield machines


def _stop(machine: Machine) -> None:
    for program in reversed(machine.programs):
        program.stop()


@contextmanager
def _removed_in_the_end(prefix: str, folder: Path) -> Iterator[None]:
    """Also where this process is killed: the other one reads from it until it is no more."""
    command = [sys.executable, "-m", "tests.fleet.machines", prefix, str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, start_new_session=True) as other:
        yield
    assert other.returncode == 0


def remove(prefix: str, folder: Path) -> None:
    """End what still runs on the machines of a fleet - guests outlive their agents - and the machines."""
    namespaces = [line.split()[0] for line in run("ip", "netns", "list").splitlines() if line.startswith(f"{prefix}-")]
    while left := [pid for namespace in namespaces for pid in processes_of(namespace)] + [
        pid for place in (folder.iterdir() if folder.exists() else ()) for pid in guests_of(place).values()
    ]:
        kill(left)
    for namespace in namespaces:
        run("ip", "netns", "del", namespace)


def processes_of(namespace: str) -> list[int]:
    return [int(pid) for pid in run("ip", "netns", "pids", namespace).split()]


def kill(pids: list[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    time.sleep(0.05)  # Some start others until they are dead.


@contextmanager
def inside(machine: Machine) -> Iterator[None]:
    """This thread, and threads it starts, have that machine's network."""
    libc = ctypes.CDLL(None, use_errno=True)
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    other = os.open(f"/run/netns/{machine.namespace}", os.O_RDONLY)
    try:
        if libc.setns(other, CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")
        yield
    finally:
        libc.setns(own, CLONE_NEWNET)
        os.close(own)
        os.close(other)


def start_postgresql(machine: Machine) -> str:
    """A PostgreSQL server of its own on the machine; its URL."""
    data = machine.folder / "postgresql"
    data.mkdir(parents=True)
    for folder in (machine.folder, *machine.folder.parents[:2]):
        if folder.owner() == "root" and folder != Path("/tmp"):
            folder.chmod(0o755)
    shutil.chown(data, "postgres")
    as_postgres = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"]
    run(*as_postgres, str(_postgresql("initdb")), "-D", str(data), "-A", "trust", "-U", "cumulet", "--no-sync")
    (data / "pg_hba.conf").write_text(f"host all cumulet {NETWORK}.0/24 trust\nlocal all all trust\n")
    serve_postgresql(machine)
    return f"postgresql://cumulet@{machine.address}/postgres"


def _postgresql(program: str) -> Path:
    return sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{program}"))[-1]


def serve_postgresql(machine: Machine) -> None:
    """Returns when it takes connections."""
    data = machine.folder / "postgresql"
    server = machine.start(
        str(_postgresql("postgres")),
        "-D",
        str(data),
        "-c",
        f"listen_addresses={machine.address}",
        "-c",
        "fsync=off",
        "-c",
        f"unix_socket_directories={data}",
        log="postgresql",
        user="postgres",
    )
    deadline = time.monotonic() + READY_SECONDS
    while not any("ready to accept" in line for line in server.lines()):
        if server.process.poll() is not None or time.monotonic() > deadline:
            raise NotReady(f"PostgreSQL: {server.lines()[-3:]}")
        time.sleep(0.05)


def restart_postgresql(machine: Machine) -> None:
    """Start it again after it was killed; it recovers."""
    (machine.folder / "postgresql" / "postmaster.pid").unlink(missing_ok=True)  # All of it was killed.
    serve_postgresql(machine)


def children_of(pid: int) -> list[int]:
    """Its own, and theirs."""
    found: list[int] = []
    for one in Path("/proc", str(pid), "task").glob("*/children"):
        for child in map(int, one.read_text().split()):
            found += [child, *children_of(child)]
    return found


@contextmanager
def unplugged(machine: Machine) -> Iterator[None]:
    """Cut the machine off at the switch."""
    prefix = machine.namespace.removesuffix(f"-{machine.name}")
    port = f"port{machine.address.rpartition('.')[2]}"
    run("ip", "-n", f"{prefix}-switch", "link", "set", port, "down")
    try:
        yield
    finally:
        run("ip", "-n", f"{prefix}-switch", "link", "set", port, "up")


def reason_not() -> str | None:
    """Why no fleet can be run here."""
    if os.geteuid() != 0:
        return "only root makes network namespaces"
    missing = [
        program for program in ("ip", "ss", "nsenter", "setpriv", "qemu-system-x86_64") if not shutil.which(program)
    ]
    if not shutil.which("nats-server", path="/usr/bin:/usr/sbin:/usr/local/bin:/usr/local/sbin"):
        missing.append("nats-server")
    if not list(Path("/usr/lib/postgresql").glob("*/bin/postgres")):
        missing.append("postgres")
    if missing:
        return f"not installed: {', '.join(missing)}"
    try:
        run("ip", "netns", "add", f"cf{os.getpid()}-try")
        run("ip", "netns", "del", f"cf{os.getpid()}-try")
    except subprocess.CalledProcessError as error:
        return f"no network namespaces: {error.stderr.strip()}"
    return None


if __name__ == "__main__":
    sys.stdin.read()
    remove(sys.argv[1], Path(sys.argv[2]))
