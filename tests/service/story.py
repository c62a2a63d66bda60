"""`make service`: the life of a cloud on a machine with systemd, in ten minutes. Exit status 0 only if all of it held.

Root, with Debian's packages mmdebstrap and systemd-container: a fresh Debian in a folder, booted as a container with a
network of its own. The commands are those that docs/operating.md shows, read from the page.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from cumulet.cli.client import Unexpected
from cumulet.cli.demo.evidence import Evidence
from tests.told import told, until

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "operating.md").read_text()
PLACE, REPOSITORY = "/usr/local/lib/cumulet", "/srv/cumulet.git"
CLOUD = "export OS_CLIENT_CONFIG_FILE=/var/lib/cumulet/clouds.yaml OS_CLOUD=cumulet"
PACKAGES = "systemd,systemd-sysv,dbus,git,python3,python3-venv,ca-certificates,curl,procps,iproute2"
ENVIRONMENT = {
    "HOME": "/root",
    "PATH": f"{PLACE}/.venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    **{name: value for name, value in os.environ.items() if name.startswith(("PIP_", "UV_"))},
}
OURS = ("/etc/pip.conf", "/etc/apt/apt.conf.d", "/etc/ssl/certs/ca-certificates.crt")
"""How this machine finds packages, which the new one needs to know as well."""


def block(heading: str) -> str:
    """The first lines of shell below a heading of the page."""
    found = re.search(rf"^## {re.escape(heading)}\n.*?```sh\n(.*?)```", PAGE, re.DOTALL | re.MULTILINE)
    assert found is not None, heading
    return found[1]


def missing() -> str | None:
    if os.geteuid() != 0:
        return "only root can boot a machine in a folder"
    for program, package in (("mmdebstrap", "mmdebstrap"), ("systemd-nspawn", "systemd-container")):
        if shutil.which(program) is None:
            return f"{program} is missing: install Debian's package {package}"
    return None


@dataclass(frozen=True, slots=True)
class Ran:
    """How a script ended, and what it said."""

    status: int
    said: str


class Machine:
    """A Debian in a folder."""

    def __init__(self, root: Path, log: Path) -> None:
        self.root = root
        self._log = log
        self._booted: subprocess.Popen[bytes] | None = None

    def make(self) -> None:
        options = [f"--aptopt={path}" for path in sorted(Path("/etc/apt/apt.conf.d").glob("*"))]
        command = ["mmdebstrap", "--variant=minbase", *options, f"--include={PACKAGES}", "bookworm", str(self.root)]
        with open(self._log, "ab") as log:
            subprocess.run(command, check=True, stdout=log, stderr=log)
        for path in OURS:
            if os.path.exists(path):
                subprocess.run(["cp", "-aT", path, f"{self.root}{path}"], check=True)
        shutil.copyfile("/etc/resolv.conf", self.root / "etc" / "resolv.conf")
        subprocess.run(["git", "clone", "-q", "--bare", str(ROOT), f"{self.root}{REPOSITORY}"], check=True)

    def prepare(self, script: str) -> None:
        """Run a script there before it is booted, in this machine's network: packages come from outside."""
        command = ["systemd-nspawn", "-q", "-D", str(self.root), "--register=no", "--keep-unit", "--resolv-conf=off"]
        given = [f"--setenv={name}={value}" for name, value in ENVIRONMENT.items()]
        with open(self._log, "ab") as log:
            subprocess.run([*command, *given, "bash", "-ec", script], check=True, stdout=log, stderr=log)

    def boot(self) -> None:
        command = ["systemd-nspawn", "-D", str(self.root), "--boot", "--register=no", "--keep-unit", "--capability=all"]
        options = ["--private-network", "--bind=/dev/net/tun", "--resolv-conf=off", "--kill-signal=SIGRTMIN+3"]
        with open(self._log, "ab") as log:
            self._booted = subprocess.Popen(
                [*command, *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | {"SYSTEMD_NSPAWN_API_VFS_WRITABLE": "yes"},
            )
        until("systemd has started", lambda: self.run("systemctl is-system-running --wait").status in (0, 1))

    def off(self) -> None:
        if self._booted is not None:
            self.run("systemctl poweroff")
            try:
                self._booted.wait(120)
            finally:
                self._booted.kill()
                self._booted.wait()
                self._booted = None

    def run(self, script: str, seconds: float = 300.0) -> Ran:
        """Run a script in the booted machine."""
        if (leader := self._leader()) is None:
            return Ran(255, "the machine is not up")
        inside = ["nsenter", "-t", leader, "-m", "-u", "-i", "-p", "-n", "-r", "-w"]
        words = [f"{name}={value}" for name, value in ENVIRONMENT.items()]
        done = subprocess.run(
            [*inside, "env", "-i", *words, "bash", "-c", script],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
            check=False,
        )
        with open(self._log, "a") as log:
            log.write(f"\n$ {script}\n{done.stdout}")
        return Ran(done.returncode, done.stdout.strip())

    def must(self, script: str, seconds: float = 300.0) -> str:
        ran = self.run(script, seconds)
        if ran.status != 0:
            raise Unexpected(f"`{script}` ended with {ran.status}: {ran.said[-600:]}")
        return ran.said

    def _leader(self) -> str | None:
        if self._booted is None:
            return None
        children = Path(f"/proc/{self._booted.pid}/task/{self._booted.pid}/children")
        return next(iter(children.read_text().split()), None) if children.exists() else None


def client(machine: Machine, words: str) -> str:
    return machine.must(f"{CLOUD}; openstack {words}")


def status_of(machine: Machine, name: str) -> str:
    return machine.run(f"{CLOUD}; openstack server show {name} -f value -c status").said


def guests(machine: Machine) -> list[str]:
    """Processes of QEMU."""
    return machine.run("pgrep -f ^/usr/bin/qemu-system").said.split()


def tell(evidence: Evidence, machine: Machine, *, made: bool) -> None:
    if not made:
        evidence.chapter("A machine, and the program on it")
        machine.make()
        fetch = block("Install as a service").splitlines()[0]
        machine.prepare(fetch.replace("REPOSITORY", REPOSITORY))
    evidence.chapter("Installed as a service, as the page says")
    machine.boot()
    _, *rest = block("Install as a service").splitlines()
    said = machine.must("\n".join(rest))
    hosts = [line.strip() for line in said.splitlines() if line.startswith(" host") and " up " in line]
    evidence.claim("the service is active, its hosts are up", len(hosts) == 2, hosts[-1] if hosts else said[-200:])
    watched = block("Monitoring").replace("journalctl -u", "journalctl -n 3 --no-pager -u")
    ran = machine.run(f"set -e\n{CLOUD}\n{watched}")
    evidence.claim("each command for monitoring works", ran.status == 0, f"{len(watched.splitlines())} lines")
    first_server(evidence, machine)
    restarts(evidence, machine)
    wrong_settings(evidence, machine)
    saved(evidence, machine)


def first_server(evidence: Evidence, machine: Machine) -> None:
    evidence.chapter("A server with a key, user data and a network, which moves")
    client(machine, "keypair create operator > ~/operator.key")
    machine.must("printf 'tick_ms=200\\n' > ~/user-data")
    wanted = "--flavor m1.nano --image cumulet-tiny --network private --key-name operator --user-data ~/user-data"
    client(machine, f"server create {wanted} --config-drive true --wait first")
    evidence.claim("it is ACTIVE", status_of(machine, "first") == "ACTIVE", "ACTIVE")
    [address] = re.findall(r"\d+\.\d+\.\d+\.\d+", client(machine, "server show first -f value -c addresses"))
    has = f"cumulet-tiny: eth0 has {address}"
    until("its address", lambda: has in machine.run(f"{CLOUD}; openstack console log show first").said)
    evidence.claim("its guest was told its address", True, has)
    before = client(machine, "server show first -f value -c OS-EXT-SRV-ATTR:host")
    client(machine, "server migrate --live-migration --wait first")
    after = client(machine, "server show first -f value -c OS-EXT-SRV-ATTR:host")
    evidence.claim("it moved while it ran", before != after, f"from {before} to {after}")


def restarts(evidence: Evidence, machine: Machine) -> None:
    evidence.chapter("Stopped, upgraded, restarted; then the machine itself")
    [guest] = guests(machine)
    machine.must("systemctl stop cumulet")
    evidence.claim("the guest goes on while the service is stopped", guests(machine) == [guest], f"process {guest}")
    machine.must("systemctl start cumulet")
    evidence.claim("and is found again", status_of(machine, "first") == "ACTIVE", "ACTIVE")
    upgrade = block("Upgrade").replace(f"{PLACE}/scripts/setup.sh qemu", f"test -x {PLACE}/scripts/setup.sh")
    machine.must("mkdir -p /backups\n" + upgrade)
    evidence.claim("an upgrade leaves it alone", guests(machine) == [guest], f"process {guest}")
    machine.off()
    machine.boot()
    until("the cloud serves", lambda: machine.run("systemctl is-active cumulet").said == "active")
    until("the guest runs again", lambda: status_of(machine, "first") == "ACTIVE" and guests(machine) != [])
    events = client(machine, "server event list first -f value -c Action").split()
    evidence.claim("after a reboot it was started again, and its events say so", "start" in events, ", ".join(events))


def wrong_settings(evidence: Evidence, machine: Machine) -> None:
    evidence.chapter("A wrong setting")
    running = guests(machine)
    machine.must("cp /etc/cumulet/cumulet.toml ~/right.toml; echo 'hosts = \"x\"' >> /etc/cumulet/cumulet.toml")
    refused = machine.run("systemctl restart cumulet")
    said = machine.must("journalctl -u cumulet -o cat --no-pager | grep '^cumulet: error' | tail -1")
    right = refused.status != 0 and "cumulet.toml line" in said and "hosts" in said
    evidence.claim("is told in a sentence with its line, and nothing is started", right, said)
    evidence.claim("guests go on meanwhile", guests(machine) == running, " ".join(running))
    machine.must("cp ~/right.toml /etc/cumulet/cumulet.toml; systemctl reset-failed cumulet; systemctl start cumulet")


def saved(evidence: Evidence, machine: Machine) -> None:
    evidence.chapter("Saved, and restored where there is nothing")
    machine.must(block("Backup and restore").splitlines()[0])
    client(machine, "server delete --wait first")
    machine.must("systemctl stop cumulet; mv /var/lib/cumulet ~/lost; mkdir -m 0700 /var/lib/cumulet")
    machine.must(block("Backup and restore").splitlines()[1])
    machine.must("systemctl start cumulet")
    until("the lost guest is noticed", lambda: status_of(machine, "first") == "ERROR")
    [found] = [line for line in machine.must(f"{CLOUD}; cumulet status").splitlines() if "guest-missing" in line]
    evidence.claim("its server is in the records, and status says that the guest is missing", True, found)
    client(machine, "server rebuild --wait first")
    evidence.claim("a rebuild gives it a disk again", status_of(machine, "first") == "ACTIVE", "ACTIVE")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, help="a machine that an earlier run with --keep has made")
    parser.add_argument("--keep", action="store_true", help="keep the folder with the machine and the log")
    chosen = parser.parse_args()
    made: Path | None = chosen.root

    def story(evidence: Evidence, folder: Path) -> None:
        machine = Machine(made or folder / "root", folder / "log")
        try:
            tell(evidence, machine, made=made is not None)
        finally:
            machine.off()

    return told("service", story, why_not=missing(), keep=chosen.keep)


if __name__ == "__main__":
    sys.exit(main())
