"""Tempest's tests of moves, snapshots, rescue, shelving, rebuilding and consoles, on QEMU guests that are logged in to.

    python -m benchmarks.suites.real RUNNER [--image FILE --user NAME] [--only REGEX]

As root. The cloud, its guests and Tempest are in a network namespace of their own, so that floating IPs are reached and
nothing on the machine is in their way. Guests run the tiny image, or another, such as the one that
`cumulet image build debian` makes (`--user debian`). Results go to .build/tempest/compute-real.json, where
`make suites-page` finds them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from openstack.config import OpenStackConfig
from openstack.connection import Connection

from benchmarks.suites.results import ROOT, commit
from cumulet.drivers.linux_network import namespaces
from cumulet.drivers.linux_network.probe import probe
from cumulet.image import debian, tiny

SUITE = "compute-real"
LEFT = ROOT / ".build" / "tempest"
TESTS = (
    r"^tempest\.(serial_tests\.)?(api\.compute|scenario)\."
    r"(?!.*([Vv]olume|cinder|qos_placement)).*"
    r"(live_migrat|cold_migrat|rescue|snapshot|shelve|rebuild|console|novnc|create_backup|compute\.images\.)"
)
"""By the names of tests. What is about volumes or bandwidth in Placement needs services that this cloud has not."""
SETTINGS = {
    "validation.connect_timeout": "60",
    "compute.migration_source_host": "host1",
    "compute.migration_dest_host": "host2",
    "compute-feature-enabled.stable_rescue": "true",
    "compute-feature-enabled.change_password": "false",
}
"""Nobody logs in by SSH with a password. Serial consoles are left out: Tempest 47 speaks no TLS to an address that
begins with `wss:`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Guests:
    """What the guests run, who logs in to them, and what they need."""

    image: Path
    user: str
    memory_mib: tuple[int, int]
    disk_gib: int
    settings: Mapping[str, str]


def tiny_guests() -> Guests:
    waiting = {"validation.ssh_timeout": "300", "validation.ping_timeout": "300"}
    settings = waiting | {"scenario.dhcp_client": "udhcpc", "scenario.target_dir": "/mnt"}
    return Guests(image=tiny.build(print), user="cumulet", memory_mib=(128, 192), disk_gib=1, settings=settings)


def other_guests(image: Path, user: str) -> Guests:
    """Emulated, a full system takes minutes until one can log in."""
    waiting = {"validation.ssh_timeout": "900", "validation.ping_timeout": "600"}
    settings = waiting | {"scenario.dhcp_client": "dhclient"}
    return Guests(image=image, user=user, memory_mib=(512, 640), disk_gib=debian.SIZE_GIB + 1, settings=settings)


START_SECONDS = 120.0
BUILD_SECONDS, RUN_SECONDS = 900, 14_400


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runner", type=Path, help="the script that sets Tempest up and runs it")
    parser.add_argument("--image", type=Path, help="instead of the tiny one")
    parser.add_argument("--user", default="debian", help="who logs in to guests of that image")
    parser.add_argument("--concurrency", type=int, default=2, help="how many tests at once")
    parser.add_argument("--only", default=TESTS, help="tests whose names match this")
    parser.add_argument("--name", default=SUITE, help="what the page calls them")
    given = parser.parse_args()
    problem = "it takes root" if os.geteuid() != 0 else probe().problem
    if problem or not given.runner.is_file():
        print(problem or f"there is no runner {given.runner}: make tempest-real TEMPEST_RUN=path", file=sys.stderr)
        return 2
    left = LEFT / f"{given.name}.json"
    runner = [sys.executable, str(given.runner.resolve())]
    environment = {name: of for name, of in os.environ.items() if not name.startswith("OS_") and "_CA_" not in name}
    # It makes its environment from PyPI, which the namespace does not reach.
    subprocess.run([*runner, "--list-only", "--regex", given.only], env=environment, check=True)
    guests = tiny_guests() if given.image is None else other_guests(given.image, given.user)
    with (
        tempfile.TemporaryDirectory(prefix="cumulet-real-") as folder,
        _cloud(Path(folder), environment, left.with_suffix(".log")) as clouds,
    ):
        settings = _furnished(clouds, guests)
        line = [*runner, "--clouds", str(clouds), "--cloud", "cumulet", "--regex", given.only, "--json", str(left)]
        line += ["--ssh", "--ssh-user", guests.user, "--image", "real", "--flavor", "real.a", "--flavor-alt", "real.b"]
        line += ["--build-timeout", str(BUILD_SECONDS), "--http-timeout", "120", "--timeout", str(RUN_SECONDS)]
        line += ["--concurrency", str(given.concurrency)]
        for name, value in settings.items():
            line += ["--set", f"{name}={value}"]
        left.unlink(missing_ok=True)
        # Tests of consoles open their pages as a browser does, on a machine that trusts the cloud.
        trusting = environment | {"SSL_CERT_FILE": str(Path(folder) / "state" / "ca" / "ca-cert.pem")}
        ended = subprocess.run(line, env=trusting, check=False).returncode
    if left.exists():
        said = json.loads(left.read_text())
        left.write_text(json.dumps(said | {"suites": [given.name]}, indent=1))
        left.with_suffix(".commit").write_text(commit())
    return ended


@contextlib.contextmanager
def _cloud(folder: Path, environment: dict[str, str], log: Path) -> Iterator[Path]:
    """A cloud with two hosts of QEMU guests; its clouds.yaml. The calling thread is in a new namespace afterwards."""
    namespaces.enter_new()
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    ready = folder / "ready"
    log.parent.mkdir(parents=True, exist_ok=True)
    line = [sys.executable, "-m", "cumulet", "up", "--state", str(folder / "state"), "--listen", "127.0.0.1:0"]
    line += ["--driver", "qemu", "--ready-file", str(ready)]
    with open(log, "w") as said, subprocess.Popen(line, env=environment, stdout=said, stderr=said) as cloud:
        try:
            until = time.monotonic() + START_SECONDS
            while not ready.exists():
                if cloud.poll() is not None or time.monotonic() > until:
                    raise SystemExit(log.read_text())
                time.sleep(0.1)
            yield folder / "state" / "clouds.yaml"
        finally:
            cloud.terminate()


def _furnished(clouds: Path, guests: Guests) -> dict[str, str]:
    """Give the cloud the image, twice, and two flavors; Tempest's settings."""
    named = OpenStackConfig(config_files=[str(clouds)], load_envvars=False).get_one("cumulet")
    cloud = Connection(config=named)
    with contextlib.closing(cloud):
        for name, mib in zip(("real.a", "real.b"), guests.memory_mib, strict=True):
            cloud.create_flavor(name, ram=mib, vcpus=1, disk=guests.disk_gib)
        for name in ("real", "real-alt"):
            cloud.create_image(
                name, filename=str(guests.image), disk_format="qcow2", container_format="bare", visibility="public",
                wait=True, timeout=600,
            )  # fmt: skip
        found = cloud.get_image_id("real-alt")
    return {**SETTINGS, **guests.settings, "compute.image_ref_alt": str(found)}


if __name__ == "__main__":
    sys.exit(main())
