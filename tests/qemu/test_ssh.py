"""The tiny guest is logged in to by SSH over a floating IP: with its key pair's key, and with no other."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

import cumulet.testing
from cumulet.testing import Client, TestCloud
from tests.linux_network.lab import problem
from tests.linux_network.stacks import Stack, pings
from tests.qemu.test_floating_ips import machine, routed_network
from tests.qemu.test_networks import boot, console

__all__ = ["machine"]

pytestmark = [pytest.mark.qemu, pytest.mark.skipif(problem() is not None, reason=problem() or "")]
NETWORK = "/network/v2.0"
SECONDS = 600


def test_one_logs_in_by_key_over_a_floating_ip(machine: Stack, tmp_path: Path) -> None:
    machine.run_in(lambda: story(tmp_path), seconds=3.0 * SECONDS)


def story(folder: Path) -> None:
    for name in ("mine", "another"):
        new_key = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(new_key, check=True)
    with cumulet.testing.cloud(hosts=1, driver="qemu", machine_on_public=True) as cloud:
        admin = cloud.persona("admin")
        public = admin.request("GET", f"{NETWORK}/networks?name=public")["networks"][0]["id"]
        let_in(admin)
        keypair = {"name": "mine", "type": "ssh", "public_key": (folder / "mine.pub").read_text()}
        assert admin.compute("POST", "/os-keypairs", {"keypair": keypair}).status == 201
        network, _ = routed_network(admin, public)
        server, _ = boot(admin, network, "tick_ms=0\n", key_name="mine")
        outside = floating_ip(admin, public, server)
        began = time.monotonic()
        admin.wait("its SSH server", lambda: "SSH as cumulet" in console(admin, server), seconds=SECONDS)
        logged_in = by_openstack(cloud, admin, server, folder)
        sys.stdout.write(f"logged in {time.monotonic() - began:.1f} s after the server was ACTIVE\n")
        assert logged_in.splitlines() == ["one", "/home/cumulet", "0"]
        refused = by_ssh(outside, folder, "another", "true")
        assert refused.returncode == 255
        assert "Permission denied (publickey)" in refused.stderr
        files_outlast_a_reboot(admin, server, outside, folder)
        keyless_runs_no_sshd(admin, network, public)
        assert admin.compute("DELETE", f"/servers/{server}").status == 204


def let_in(admin: Client) -> None:
    path = f"{NETWORK}/security-groups?name=default&project_id={admin.project_id}"
    (group,) = admin.request("GET", path)["security_groups"]
    rule = {"security_group_id": group["id"], "direction": "ingress", "ethertype": "IPv4"}
    for what in ({"protocol": "icmp"}, {"protocol": "tcp", "port_range_min": 22, "port_range_max": 22}):
        made = admin.request("POST", f"{NETWORK}/security-group-rules", {"security_group_rule": rule | what})
        assert made.status == 201


def floating_ip(admin: Client, public: str, server: str) -> str:
    (port,) = admin.request("GET", f"{NETWORK}/ports?device_id={server}")["ports"]
    wanted = {"floatingip": {"floating_network_id": public, "port_id": port["id"]}}
    made = admin.request("POST", f"{NETWORK}/floatingips", wanted)["floatingip"]
    address: str = made["floating_ip_address"]
    return address


def options(folder: Path, key: str) -> list[str]:
    given = ["-i", str(folder / key), "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-o", "ConnectTimeout=60"]
    return [*given, "-o", "StrictHostKeyChecking=accept-new", "-o", f"UserKnownHostsFile={folder / 'known'}"]


def by_ssh(address: str, folder: Path, key: str, command: str) -> subprocess.CompletedProcess[str]:
    line = ["ssh", *options(folder, key), f"cumulet@{address}", command]
    environment = {name: of for name, of in os.environ.items() if name != "SSH_AUTH_SOCK"}
    return subprocess.run(line, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False)


def by_openstack(cloud: TestCloud, admin: Client, server: str, folder: Path) -> str:
    """As anybody would; what the shell is told first is what Tempest tells it."""
    openstack = str(Path(sys.executable).with_name("openstack"))
    line = [openstack, "--os-cloud", "cumulet", "server", "ssh", server, "--", "-l", "cumulet"]
    line += [*options(folder, "mine"), "sh", "-s"]
    commands = "set -eu -o pipefail; hostname; pwd; sudo id -u"
    environment = os.environ | {"OS_CLIENT_CONFIG_FILE": str(cloud.clouds_yaml)}
    done = subprocess.run(
        line, input=commands, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.stdout, f"{done.stderr}\n{console(admin, server)}"
    return done.stdout


def files_outlast_a_reboot(admin: Client, server: str, outside: str, folder: Path) -> None:
    """Those in /mnt do, and the host's key: `known` has it."""
    written = by_ssh(outside, folder, "mine", "cat /proc/sys/kernel/random/boot_id | sudo tee /mnt/boot; sync")
    assert written.returncode == 0, written.stderr
    before = written.stdout
    assert admin.action(server, {"reboot": {"type": "HARD"}}).status == 202
    admin.wait_for_status(server, "ACTIVE")

    def again() -> bool:
        found = by_ssh(outside, folder, "mine", "cat /mnt/boot /proc/sys/kernel/random/boot_id")
        assert "HOST IDENTIFICATION HAS CHANGED" not in found.stderr
        return found.returncode == 0 and found.stdout.startswith(before) and found.stdout != before * 2

    admin.wait("a login after the reboot", again, seconds=SECONDS)


def keyless_runs_no_sshd(admin: Client, network: str, public: str) -> None:
    server, _ = boot(admin, network, "tick_ms=0\n")
    outside = floating_ip(admin, public, server)
    admin.wait("a ping", lambda: pings(outside), seconds=SECONDS)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((outside, 22), timeout=SECONDS)
    assert admin.compute("DELETE", f"/servers/{server}").status == 204
