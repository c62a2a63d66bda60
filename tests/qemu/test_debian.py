"""The image that `cumulet image build debian` makes: booted on a network, logged in to by a key over a floating IP.

It takes some minutes and hundreds of megabytes of packages, so it is asked for: `make debian`.
"""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

import cumulet.testing
from cumulet.drivers.qemu.facts import QemuFacts
from cumulet.image import debian
from cumulet.testing import Client, TestCloud
from tests.linux_network.lab import problem
from tests.linux_network.stacks import Stack
from tests.qemu.test_floating_ips import machine, routed_network

__all__ = ["machine"]

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.skipif(problem() is not None, reason=problem() or ""),
    pytest.mark.skipif(not os.environ.get("CUMULET_DEBIAN"), reason="takes some minutes: make debian"),
]
NETWORK = "/network/v2.0"
PATIENCE_SECONDS = 1200
QUESTIONS = """
hostname
df -m --output=size / | tail -1
python3 -c '
import json, urllib.request
address = "http://169.254.169.254/openstack/latest/meta_data.json"
print(json.load(urllib.request.urlopen(address))["public_keys"]["mine"].strip())'
"""


@pytest.fixture(scope="module")
def image_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CUMULET_DEBIAN is one that is there already, or anything else for a new one."""
    there = Path(os.environ["CUMULET_DEBIAN"])
    if there.is_file():
        return there
    target = tmp_path_factory.mktemp("debian") / "debian.qcow2"
    done = subprocess.run(
        [sys.executable, "-m", "cumulet", "image", "build", "debian", "--output", str(target)], check=False
    )
    assert done.returncode == 0
    return target


def uploaded(cloud: TestCloud, member: Client, file: Path) -> str:
    wanted = {"name": "debian", "disk_format": "qcow2", "container_format": "bare", "min_disk": debian.SIZE_GIB}
    image: str = member.request("POST", "/image/v2/images", wanted)["id"]
    with open(file, "rb") as content:
        headers = {"X-Auth-Token": member.token or "", "Content-Type": "application/octet-stream"}
        path = f"{cloud.url.rstrip('/')}/image/v2/images/{image}/file"
        trusted = ssl.create_default_context(cafile=str(cloud.cacert))
        answer = httpx.put(path, content=content, headers=headers, verify=trusted, timeout=600, trust_env=False)
    assert answer.status_code == 204, answer.text
    return image


def test_one_logs_in_by_key_over_a_floating_ip(
    facts: QemuFacts, machine: Stack, image_file: Path, tmp_path: Path
) -> None:
    del facts
    machine.run_in(lambda: story(image_file, tmp_path), seconds=2.0 * PATIENCE_SECONDS)


def story(image_file: Path, folder: Path) -> None:
    key = folder / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    with cumulet.testing.cloud(hosts=1, driver="qemu", machine_on_public=True) as cloud:
        member = cloud.persona("admin")
        public = member.request("GET", f"{NETWORK}/networks?name=public")["networks"][0]["id"]
        network, _ = routed_network(member, public)
        groups = member.request("GET", f"{NETWORK}/security-groups?name=default&project_id={member.project_id}")[
            "security_groups"
        ]
        rule = {"security_group_id": groups[0]["id"], "direction": "ingress", "protocol": "tcp"}
        rule |= {"port_range_min": 22, "port_range_max": 22}
        assert member.request("POST", f"{NETWORK}/security-group-rules", {"security_group_rule": rule}).status == 201
        keypair = {"name": "mine", "type": "ssh", "public_key": key.with_suffix(".pub").read_text()}
        assert member.compute("POST", "/os-keypairs", {"keypair": keypair}).status == 201
        flavor = next(one for one in member.compute("GET", "/flavors")["flavors"] if one["name"] == "m1.small")
        wanted = {"name": "one", "flavorRef": flavor["id"], "imageRef": uploaded(cloud, member, image_file)}
        wanted |= {"networks": [{"uuid": network}], "key_name": "mine", "config_drive": False}
        server = member.compute("POST", "/servers", {"server": wanted})["server"]["id"]
        member.wait_for_status(server, "ACTIVE", seconds=300)
        (port,) = member.request("GET", f"{NETWORK}/ports?device_id={server}")["ports"]
        asked = {"floatingip": {"floating_network_id": public, "port_id": port["id"]}}
        assert member.request("POST", f"{NETWORK}/floatingips", asked).status == 201
        logged_in_to(cloud, member, server, key)
        assert member.compute("DELETE", f"/servers/{server}").status == 204


def logged_in_to(cloud: TestCloud, person: Client, server: str, key: Path) -> None:
    """By `openstack server ssh`, as anybody would: it answers with the name, the key and the disk that it was given."""
    line = [str(Path(sys.executable).with_name("openstack")), "--os-cloud", "cumulet", "server", "ssh", server, "--"]
    line += ["-l", "debian", "-i", str(key), "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no"]
    line += ["-o", f"UserKnownHostsFile={key.with_name('known')}", "sh", "-s"]
    environment = os.environ | {"OS_CLIENT_CONFIG_FILE": str(cloud.clouds_yaml)}
    began = time.monotonic()
    while True:
        done = subprocess.run(
            line, input=QUESTIONS, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
        if done.returncode == 0 and len(done.stdout.splitlines()) >= 3:
            break
        printed = str(person.action(server, {"os-getConsoleOutput": {}})["output"])
        assert time.monotonic() - began < PATIENCE_SECONDS, f"{done.stderr[-500:]}\n{printed[-3000:]}"
        time.sleep(5)
    sys.stdout.write(f"logged in {time.monotonic() - began:.0f} s after the server was ACTIVE:\n{done.stdout}")
    name, size_mib, known_key = done.stdout.strip().splitlines()[-3:]
    assert name == "one"
    assert int(size_mib) > (debian.SIZE_GIB + 1) * 1024, "the file system has grown to the flavor's disk"
    assert known_key.split()[:2] == key.with_suffix(".pub").read_text().split()[:2], "as the metadata service says"
