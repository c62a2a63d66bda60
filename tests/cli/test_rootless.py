"""A cloud that a user starts who is not root: guests have networks all the same, and nothing of the machine's changes.

The user is one that this machine has for the length of a command: in a mount namespace whose /etc/passwd names it, and
whose /dev/net/tun anybody may open, as Debian has it.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from cumulet import rootless
from cumulet.cli.client import Persona, credentials_of, https, log_in
from cumulet.fleet.local_networks import LocalNetworks
from cumulet.fleet.public_network import leg_name
from cumulet.image import tiny

USER, FIRST_MORE = 61_500, 3_000_000
PATIENCE_SECONDS = 180
SERVERS, NETWORK = "/compute/v2.1/servers", "/network/v2.0"

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can have a user for a test"),
    pytest.mark.skipif(shutil.which("qemu-system-x86_64") is None, reason="QEMU is not installed"),
    pytest.mark.skipif(tiny.available() is not None, reason="the tiny image cannot be built here"),
]

AS_USER = """
set -e
mount -t tmpfs none "$1/tun"; mknod -m 666 "$1/tun/tun" c 10 200
mount --bind "$1/tun/tun" /dev/net/tun
mount --bind "$1/etc" /etc
if [ "${2#"$3"/}" != "$2" ]; then  # Where root keeps the interpreter at home.
    mount --bind "$2" "$1/interpreter"; mount -t tmpfs -o mode=755 none "$3"
    mkdir -p "$2"; mount --bind "$1/interpreter" "$2"
fi
mount --bind "$1/home" /home; cd /home
shift 3
set -- env -i HOME=/home PATH=/usr/bin:/bin:/usr/sbin:/sbin "$@"
exec setpriv --reuid "$USER_ID" --regid "$USER_ID" --clear-groups "$@"
"""


@dataclass(frozen=True, slots=True)
class Machine:
    """One that has a user."""

    folder: Path
    more_users: bool

    def command(self, *words: str) -> list[str]:
        line = ["bash", "-c", AS_USER, "as-user", str(self.folder), sys.base_prefix, str(Path.home()), *words]
        return ["env", f"USER_ID={USER}", "unshare", "--mount", *line]

    def cumulet(self, *words: str) -> list[str]:
        return self.command(sys.executable, "-m", "cumulet", *words)

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.cumulet(*words), capture_output=True, text=True, timeout=120, check=False)

    def enter(self, *words: str) -> int:
        """Run a command inside the cloud's namespaces; returns its exit status."""
        return self.run("enter", "--state", "/home/state", *words).returncode

    @contextmanager
    def up(self, *options: str) -> Iterator[subprocess.Popen[str]]:
        """A cloud that serves. Its process is who was started, however often it has become another program."""
        log = self.folder / "log"
        words = ["up", "--state", "/home/state", "--listen", "127.0.0.1:0", "--driver", "qemu", *options]
        with open(log, "a") as err:
            process = subprocess.Popen(self.cumulet(*words), stdout=subprocess.PIPE, stderr=err, text=True)
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("ready "), log.read_text()
            yield process
        finally:
            process.kill()
            process.wait()

    def said(self) -> str:
        return (self.folder / "log").read_text()

    def administrator(self) -> Persona:
        credentials, _ = credentials_of(self.folder / "home" / "state" / "clouds.yaml", "cumulet")
        authority = self.folder / "home" / "state" / "ca" / "ca-cert.pem"
        clouds = yaml.safe_load((self.folder / "home" / "state" / "clouds.yaml").read_text())["clouds"]
        url = str(clouds["cumulet"]["auth"]["auth_url"]).removesuffix("/identity/v3")
        return log_in(https(url, authority), "cumulet", credentials)


@pytest.fixture(params=[True, False], ids=["with-more-users", "with-one-user"])
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Machine:
    more_users = bool(request.param)
    if more_users and shutil.which("newuidmap") is None:
        pytest.skip("newuidmap is not installed (Debian package: uidmap)")
    if shutil.which("ping") is None:
        pytest.skip("ping is not installed (Debian package: iputils-ping)")
    home = tmp_path / "home"
    images = home / ".cache" / "cumulet" / "images"
    images.mkdir(parents=True)
    shutil.copytree("/etc", tmp_path / "etc", symlinks=True)
    for name in ("tun", "interpreter"):
        (tmp_path / name).mkdir()
    shutil.copy(tiny.build(), images)
    for path in (home, *home.rglob("*")):
        os.chown(path, USER, USER)
    (tmp_path / "etc" / "passwd").write_text(f"root:x:0:0::/root:/bin/sh\nsomebody:x:{USER}:{USER}::/home:/bin/sh\n")
    for name in ("subuid", "subgid"):
        (tmp_path / "etc" / name).write_text(f"somebody:{FIRST_MORE}:65536\n" if more_users else "")
    made = Machine(tmp_path, more_users)
    reads = subprocess.run(made.command(sys.executable, "-c", "import cumulet"), capture_output=True, check=False)
    if reads.returncode != 0:
        pytest.skip(f"another user cannot read this clone: {reads.stderr.decode()[-200:]}")
    return made


def wait(what: str, holds: Callable[[], bool]) -> None:
    """What goes on in other processes."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < deadline, f"not within {PATIENCE_SECONDS} s: {what}"
        time.sleep(0.2)


def server_with_a_floating_ip(admin: Persona) -> tuple[str, str]:
    flavor = next(one["id"] for one in admin.get("/compute/v2.1/flavors")["flavors"] if one["name"] == "m1.nano")
    image = admin.get("/image/v2/images")["images"][0]["id"]
    public = next(one["id"] for one in admin.get(f"{NETWORK}/networks")["networks"] if one["name"] == "public")
    network = admin.must("POST", f"{NETWORK}/networks", {"network": {"name": "mine"}})["network"]["id"]
    wanted = {"network_id": network, "ip_version": 4, "cidr": "10.9.0.0/24"}
    subnet = admin.must("POST", f"{NETWORK}/subnets", {"subnet": wanted})["subnet"]["id"]
    gateway = {"external_gateway_info": {"network_id": public}}
    router = admin.must("POST", f"{NETWORK}/routers", {"router": gateway})["router"]["id"]
    admin.must("PUT", f"{NETWORK}/routers/{router}/add_router_interface", {"subnet_id": subnet})
    group = admin.must("POST", f"{NETWORK}/security-groups", {"security_group": {"name": "pings"}})["security_group"]
    rule = {"security_group_id": group["id"], "direction": "ingress", "protocol": "icmp"}
    admin.must("POST", f"{NETWORK}/security-group-rules", {"security_group_rule": rule})
    described = {"name": "one", "flavorRef": flavor, "imageRef": image, "networks": [{"uuid": network}]}
    described |= {"security_groups": [{"name": "pings"}]}
    server = admin.must("POST", SERVERS, {"server": described})["server"]["id"]
    wait("the server", lambda: shown(admin, server)["status"] == "ACTIVE")
    port = admin.get(f"{NETWORK}/ports?device_id={server}")["ports"][0]["id"]
    asked = {"floating_network_id": public, "port_id": port}
    address = admin.must("POST", f"{NETWORK}/floatingips", {"floatingip": asked})["floatingip"]["floating_ip_address"]
    return server, address


def shown(admin: Persona, server: str) -> dict[str, object]:
    found: dict[str, object] = admin.get(f"{SERVERS}/{server}")["server"]
    assert found["status"] != "ERROR", found
    return found


def guests(server: str) -> list[int]:
    """The processes that run it, wherever they are."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"qemu-system" in words[0] and server.encode() in words:
            found.append(int(path.parent.name))
    return found


def test_a_user_has_guests_with_networks_that_move_and_leave_nothing(machine: Machine) -> None:
    leg = leg_name(LocalNetworks(Path("/home/state"), ()))
    with machine.up() as cloud:
        wait("what this is", lambda: "in namespaces of your own" in machine.said())
        admin = machine.administrator()
        server, address = server_with_a_floating_ip(admin)
        wait("an answer", lambda: machine.enter("ping", "-c1", address) == 0)
        _is_confined(server, more_users=machine.more_users)
        if not machine.more_users:  # The rest is the same.
            return
        assert not Path(f"/sys/class/net/{leg}").exists(), "the machine's own network is as it was"
        refused = admin.ask("POST", "/compute/v2.1/cumulet/hosts", {"host": {"name": "rack1"}})
        assert (refused.status, "no other machine reaches it" in refused.text) == (409, True)
        before = shown(admin, server)["OS-EXT-SRV-ATTR:host"]
        move = {"os-migrateLive": {"host": None, "block_migration": "auto"}}
        admin.must("POST", f"{SERVERS}/{server}/action", move)
        wait("the move", lambda: shown(admin, server)["OS-EXT-SRV-ATTR:host"] != before)
        wait("an answer", lambda: machine.enter("ping", "-c1", address) == 0)
        assert machine.enter("--relay", f"{address}:9") == 1, "nobody listens there"
        cloud.send_signal(signal.SIGKILL)
        wait("its guests to end with it", lambda: not guests(server))
    assert machine.enter("true") == 1
    with machine.up() as cloud:
        admin = machine.administrator()
        wait("the guest again", lambda: bool(guests(server)) and shown(admin, server)["status"] == "ACTIVE")
        wait("an answer", lambda: machine.enter("ping", "-c1", address) == 0)
        cloud.send_signal(signal.SIGTERM)
        assert cloud.wait(60) == 0
    assert not guests(server)


def _is_confined(server: str, *, more_users: bool) -> None:
    (guest,) = guests(server)
    facts = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{guest}/status").read_text().splitlines() if ":\t" in line
    )
    first, last = (FIRST_MORE + uid - rootless.FIRST_UID for uid in (rootless.FIRST_GUEST_UID, rootless.LAST_UID))
    uids = {int(uid) for uid in facts["Uid"].split()}
    assert uids <= set(range(first, last + 1)) if more_users else uids == {USER}
    assert {facts[name].strip() for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert facts["NoNewPrivs"].strip() == "1"
    for kind in ("net", "mnt", "user", "pid"):
        assert os.readlink(f"/proc/{guest}/ns/{kind}") != os.readlink(f"/proc/self/ns/{kind}")
    assert {entry.name for entry in Path(f"/proc/{guest}/root/").iterdir()} >= {"vm", "usr"}
    assert not Path(f"/proc/{guest}/root/home").exists()


@pytest.mark.parametrize("machine", [False], indirect=True, ids=["with-one-user"])
def test_what_goes_with_no_networks_is_said_at_the_start_and_by_doctor(machine: Machine) -> None:
    with machine.up("--set", "rootless_networks=false", "--bare") as cloud:
        wait("why there are none", lambda: "`networks: none`): the setting rootless_networks is off" in machine.said())
        admin = machine.administrator()
        hosts = admin.get("/compute/v2.1/os-hypervisors/detail")["hypervisors"]
        assert len(hosts) == 2
        cloud.send_signal(signal.SIGTERM)
        assert cloud.wait(60) == 0
    doctor = machine.run("doctor")
    assert "namespaces of your own" in doctor.stdout
    assert "guests share your user" in doctor.stdout
    forbidden = machine.command("setpriv", "--no-new-privs", sys.executable, "-m", "cumulet", "enter", "true")
    done = subprocess.run(forbidden, capture_output=True, text=True, check=False)
    assert (done.returncode, "no cloud without root runs" in done.stderr) == (1, True)
    both = machine.run("up", "--state", "/home/state", "--driver", "qemu", "--public-interface", "eth0")
    assert (both.returncode, "only root can give an interface away" in both.stderr) == (2, True)


@pytest.mark.parametrize(
    ("text", "found"),
    [("somebody:100000:65536\n", (100_000, 65_536)), (f"{os.getuid()}:7:8\n", (7, 8)), ("other:1:2\nx\n", None)],
)
def test_further_users_are_looked_up_by_name_and_by_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, found: tuple[int, int] | None
) -> None:
    import pwd

    own = pwd.getpwuid(os.getuid())
    named = pwd.struct_passwd(("somebody", *own[1:]))
    monkeypatch.setattr(pwd, "getpwuid", lambda _: named)
    (tmp_path / "subuid").write_text(text)
    assert rootless.subordinate(tmp_path / "subuid") == found
