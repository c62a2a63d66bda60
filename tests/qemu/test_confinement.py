"""What a guest's QEMU may not do, looked up in the kernel's own account of the process."""

from __future__ import annotations

import asyncio
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest

from cumulet.drivers.qemu.room import file_bytes
from cumulet.drivers.qemu.sandbox import UIDS, Sandbox
from cumulet.host.driver import DriverError, GuestState
from cumulet.host.limits import USUAL_LIMITS
from cumulet.testing.moving import prepared

from .conftest import PARAMETERS, Rig, follow, until

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give guests users of their own")


def status(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


@needs_root
def test_a_guest_has_a_user_of_its_own_and_no_power(rig: Rig) -> None:
    async def story() -> None:
        driver = await rig.resumed()
        pid = rig.process("host1")
        facts = status(pid)
        uid = int(facts["Uid"].split()[0])
        assert uid in UIDS
        assert facts["Uid"].split() == [str(uid)] * 4
        assert facts["Gid"].split() == [str(uid)] * 4
        assert facts["Groups"] == ""
        assert {facts[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
        assert facts["NoNewPrivs"] == "1"
        assert facts["Seccomp"] == "2"
        await driver.close()

    asyncio.run(story())


@needs_root
def test_a_guest_sees_its_own_folder_and_programs_and_nothing_else_of_the_host(rig: Rig) -> None:
    async def story() -> None:
        driver = await rig.resumed()
        root = Path(f"/proc/{rig.process('host1')}/root")
        seen = {entry.name for entry in root.iterdir()}
        assert seen <= {"usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "etc", "dev", "vm"}
        assert {entry.name for entry in (root / "etc").iterdir()} <= {"ld.so.cache"}
        assert {entry.name for entry in (root / "vm").iterdir()} == {"disk.qcow2", "config.iso"}
        assert os.stat(root / "vm").st_ino == os.stat(rig.base / "host1" / "guests" / rig.id / "vm").st_ino
        mounts = Path(f"/proc/{rig.process('host1')}/mounts").read_text().splitlines()
        writable = {line.split()[1] for line in mounts if "rw" in line.split()[3].split(",")}
        assert {path for path in writable if not path.startswith("/dev/")} == {"/vm"}
        await driver.close()

    asyncio.run(story())


def test_a_guest_has_a_limit_of_file_size_and_of_disk_requests(rig: Rig) -> None:
    async def story() -> None:
        driver = await rig.resumed()
        limits = Path(f"/proc/{rig.process('host1')}/limits").read_text()
        largest = next(line.split()[3] for line in limits.splitlines() if line.startswith("Max file size"))
        assert int(largest) == file_bytes(rig.guest.disk_gib << 30)
        hypervisor = driver._host.running_hypervisor(rig.id)
        blocks: Any = await hypervisor.ask("query-block")
        (disk,) = [block["inserted"] for block in blocks if "virtio0" in block.get("qdev", "")]
        assert disk["bps"] == USUAL_LIMITS.disk_mib_per_second << 20
        assert disk["iops"] == USUAL_LIMITS.disk_requests_per_second
        await driver.close()

    asyncio.run(story())


def test_nothing_a_user_wrote_is_on_the_command_line(rig: Rig) -> None:
    async def story() -> None:
        driver = await rig.resumed()
        line = Path(f"/proc/{rig.process('host1')}/cmdline").read_bytes()
        assert rig.guest.name.encode() not in line
        assert b"rm -rf" not in line
        assert b"-nodefaults" in line
        assert b"elevateprivileges=deny" in line
        await driver.close()

    asyncio.run(story())


def test_keys_are_lent_for_a_move_only_and_nothing_listens_before_or_after(rig: Rig) -> None:
    async def story() -> None:
        source, destination = await rig.resumed(), await rig.open("host2")
        assert listening(rig.process("host1")) == set()
        endpoint = await prepared(source, destination, rig.guest, PARAMETERS)
        assert listening(rig.process("host2")) == {endpoint.port, endpoint.nbd_port}
        files = [path for host in ("host1", "host2") for path in (rig.base / host).rglob("*.pem")]
        assert files == []
        await source.start_copy(rig.id, endpoint, PARAMETERS)
        records = [rig.base / host / "guests" / rig.id / "record.json" for host in ("host1", "host2")]
        assert [b"PRIVATE KEY" in path.read_bytes() for path in records] == [True, True]
        await follow(source, rig.id)
        await destination.resume_destination(rig.id)
        assert listening(rig.process("host2")) == set()
        assert await destination.observe(rig.id) is GuestState.RUNNING

        async def forgotten() -> bool:
            return not any(b"PRIVATE KEY" in path.read_bytes() for path in records)

        await until(forgotten, "both ends forget their keys")
        assert await destination._host.running_hypervisor(rig.id).objects() == {"type", "memory0", "rng0"}
        await source.close()
        await destination.close()

    asyncio.run(story())


def listening(pid: int) -> set[int]:
    """TCP ports on which a process listens, in this network: with sockets that it was handed."""
    sockets = set()
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        try:
            sockets.add(os.readlink(fd))
        except FileNotFoundError:
            continue
    ports = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
            ports.add(int(fields[1].rpartition(":")[2], 16))
    return ports


@needs_root
def test_an_image_tool_has_no_network_and_cannot_write_elsewhere(tmp_path: Path) -> None:
    async def story() -> None:
        sandbox = Sandbox("test")
        await sandbox.probe()
        if not sandbox.own_root:
            pytest.skip("this machine lets root make no mount namespaces")
        root, vm = tmp_path / "root", tmp_path / "vm"
        root.mkdir()
        vm.mkdir()
        os.chown(vm, UIDS[0], UIDS[0])

        async def run(script: str) -> None:
            await sandbox.run_tool(
                ["/bin/sh", "-c", script], uid=UIDS[0], root=root, binds=[(vm, "/vm", "rw")], timeout_s=10.0
            )

        await run("echo ok > /vm/file")
        for script in ("echo no > /file", "echo no > /usr/file", "cat /etc/passwd", "exec 3<>/dev/tcp/127.0.0.1/1"):
            with pytest.raises(DriverError, match="TOOL_FAILED"):
                await run(script)
        with pytest.raises(DriverError, match="TOOL_FAILED"):
            await run("head -c 3000000 /dev/zero > /vm/large")
        with pytest.raises(DriverError, match="TOOL_TIMEOUT"):
            await sandbox.run_tool(
                ["/bin/sleep", "60"], uid=UIDS[0], root=root, binds=[(vm, "/vm", "rw")], timeout_s=0.2
            )

    asyncio.run(story())


THREADS = """
import ctypes, resource, threading
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
there = threading.Barrier(65)
def work():
    libc.malloc(1000)
    there.wait(60)
for _ in range(64):
    threading.Thread(target=work).start()
there.wait(60)
"""
"""In half of the memory that it may have: with more cores the C library would make more arenas, one a thread."""


@needs_root
def test_an_image_tool_has_room_for_the_threads_that_it_begins_on_a_slow_disk(tmp_path: Path) -> None:
    async def story() -> None:
        sandbox = Sandbox("test")
        await sandbox.probe()
        root, vm = tmp_path / "root", tmp_path / "vm"
        root.mkdir()
        vm.mkdir()
        command = ["/usr/bin/python3", "-c", THREADS]
        await sandbox.run_tool(command, uid=UIDS[0], root=root, binds=[(vm, "/vm", "rw")], timeout_s=120.0)

    asyncio.run(story())


@needs_root
def test_without_root_guests_run_as_the_user_itself() -> None:
    """The driver's own check as an unprivileged user: a guest comes up there, confined by QEMU's sandbox alone."""
    script = Path(__file__).with_name("unprivileged.py")
    interpreter = "/usr/bin/python3"
    packages = ":".join((str(Path(__file__).parents[2] / "src"), *_site_packages()))
    reason = _unreachable(65_533, interpreter, packages)
    if reason is not None:
        pytest.skip(f"another user cannot run this: {reason}")
    # Not below `tmp_path`: pytest closes its folders to other users, also while another run of it goes on.
    with tempfile.TemporaryDirectory(prefix="cumulet-unprivileged-") as state:
        os.chown(state, 65_533, 65_533)
        done = subprocess.run(
            ["setpriv", "--reuid", "65533", "--regid", "65533", "--clear-groups", interpreter, str(script), state],
            env={"PYTHONPATH": packages, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": state},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "uid 65533 running" in done.stdout


def _site_packages() -> list[str]:
    import msgspec

    return [str(Path(msgspec.__file__).parents[1])]


def _unreachable(uid: int, interpreter: str, packages: str) -> str | None:
    probe = subprocess.run(
        [
            "setpriv",
            "--reuid",
            str(uid),
            "--regid",
            str(uid),
            "--clear-groups",
            interpreter,
            "-c",
            "import cumulet.drivers.qemu.driver",
        ],
        env={"PYTHONPATH": packages, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return None if probe.returncode == 0 else probe.stderr.strip().splitlines()[-1]
