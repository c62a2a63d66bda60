"""Code with the rights of a guest's process, while another project's guest moves between the same two hosts.

It may have taken over both QEMU processes of its own guest, whose move gave them keys, and read whatever they can.
"""

from __future__ import annotations

import asyncio
import datetime
import os
import socket
import ssl
import struct
import subprocess
import uuid
from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest

from cumulet.ca import CertificateAuthority
from cumulet.drivers.qemu import guest_files, live_migration_destination, move_authority
from cumulet.drivers.qemu.driver import QemuDriver
from cumulet.drivers.qemu.record import Authority, GuestFolder
from cumulet.host.driver import Guest, GuestState, MigrationPhase
from cumulet.host.endpoint import Endpoint
from cumulet.testing.moving import prepared

from .conftest import PARAMETERS, SLOW, Rig, follow, runs_on, wire

Files = Mapping[str, bytes]
PATIENCE_SECONDS = 20.0


@pytest.fixture
def lent(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Files]]:
    """By guest, all that its QEMU processes were ever lent."""
    kept: dict[str, list[Files]] = {}
    write_folder = guest_files.write_folder

    def keep(folder: GuestFolder, name: str, files: Files, *, uid: int | None) -> None:
        kept.setdefault(folder.server_id, []).append(files)
        write_folder(folder, name, files, uid=uid)

    monkeypatch.setattr(guest_files, "write_folder", keep)
    return kept


@pytest.mark.skipif(os.geteuid() != 0, reason="without root guests run as the user itself")
def test_code_with_a_guest_s_rights_reaches_no_other_guest_s_move(rig: Rig, lent: dict[str, list[Files]]) -> None:
    async def story() -> None:
        source, destination = await rig.resumed(), await rig.open("host2")
        hostile = await source.create(
            Guest(server_id=str(uuid.uuid4()), name="hostile", vcpus=1, memory_mib=64, disk_gib=1, image=None)
        )
        endpoints = []
        for guest in (rig.guest, hostile):
            endpoints.append(await prepared(source, destination, guest, SLOW))
            await source.start_copy(guest.server_id, endpoints[-1], SLOW)
        its_own = endpoints.pop()
        victim = endpoints.pop()
        for driver in (source, destination):
            hypervisor = driver._host.running_hypervisor(hostile.server_id)
            for port in ports(victim):
                assert await asyncio.to_thread(from_within, hypervisor.process.pid, port) == "OSError: 101", "no route"
        assert len(lent[hostile.server_id]) >= 2
        for files in lent[hostile.server_id]:
            # Even if it had the host's network, what it holds opens nothing but its own move.
            for port in ports(victim):
                assert not await asyncio.to_thread(lets_in, port, files, rig.base)
        keys = [files for files in lent[hostile.server_id] if "client-key.pem" in files]
        assert await asyncio.to_thread(lets_in, ports(its_own)[1], keys[-1], rig.base), "else this test tells nothing"
        await source.force_complete(rig.id)
        assert (await follow(source, rig.id)).phase is MigrationPhase.COMPLETED
        await destination.resume_destination(rig.id)
        await runs_on(destination, rig.id)
        await source.close()
        await destination.close()

    asyncio.run(story())


def test_new_credentials_cost_a_destination_next_to_no_time(rig: Rig) -> None:
    """By the processor's time of its QEMU, which does nothing else. Numbers of its own would take it seconds."""

    async def story() -> None:
        source, destination = await rig.resumed(), await rig.open("host2")
        await prepared(source, destination, rig.guest, PARAMETERS)
        host = destination._host
        record, hypervisor = host.record(rig.id), host.running_hypervisor(rig.id)
        assert record.incoming is not None
        before = processor_seconds(hypervisor.process.pid)
        for _ in range(8):
            await live_migration_destination._lend(host, hypervisor, record, record.incoming, move_authority.LENT)
        assert processor_seconds(hypervisor.process.pid) - before < 0.4
        await source.close()
        await destination.close()

    asyncio.run(story())


def processor_seconds(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def from_within(process: int, port: int) -> str:
    """What comes of a connection by code in the process's network, as its user, without the filter of its calls."""
    uid = os.stat(f"/proc/{process}").st_uid
    connect = (
        "import socket\n"
        f"try: socket.create_connection(('127.0.0.1', {port}), 10); print('connected')\n"
        "except OSError as refused: print('OSError:', refused.errno)\n"
    )
    enter = [
        "nsenter",
        f"--net=/proc/{process}/ns/net",
        "setpriv",
        f"--reuid={uid}",
        f"--regid={uid}",
        "--clear-groups",
    ]
    done = subprocess.run([*enter, "/usr/bin/python3", "-c", connect], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def ports(endpoint: Endpoint) -> tuple[int, int]:
    assert endpoint.nbd_port is not None
    return endpoint.port, endpoint.nbd_port


@pytest.mark.parametrize(
    "key", ["another authority's of the same names", "the other end's", "one that has ended", "the host's own"]
)
def test_only_a_key_of_this_move_s_source_opens_its_destination(rig: Rig, key: str) -> None:
    async def story() -> None:
        source, destination = await rig.resumed(), await rig.open("host2")
        endpoint = await prepared(source, destination, rig.guest, PARAMETERS)
        authority = source._host.offered[rig.id]
        right, wrong = client(authority), wrong_key(rig, destination, authority, key)
        assert endpoint.nbd_port is not None
        for port in ports(endpoint):
            assert not await asyncio.to_thread(lets_in, port, wrong, rig.base)
        assert await destination.observe(rig.id) is GuestState.INCOMING
        assert await asyncio.to_thread(lets_in, endpoint.nbd_port, right, rig.base)
        await source.start_copy(rig.id, endpoint, PARAMETERS)
        assert (await follow(source, rig.id)).phase is MigrationPhase.COMPLETED
        await source.close()
        await destination.close()

    asyncio.run(story())


def wrong_key(rig: Rig, destination: QemuDriver, authority: Authority, key: str) -> Files:
    if key == "another authority's of the same names":
        return client(move_authority.new_authority("source", authority.move))
    if key == "the other end's":
        incoming = destination._host.record(rig.id).incoming
        assert incoming is not None
        other = move_authority.lent(incoming.authority, "destination", move_authority.LENT)
        return {"client-cert.pem": other.certificate, "client-key.pem": other.key}
    if key == "one that has ended":
        return client(authority, datetime.timedelta(seconds=-1))
    folder = CertificateAuthority.load_or_create(rig.base / "ca").issue_host("host1")
    return {name: (folder / name).read_bytes() for name in ("client-cert.pem", "client-key.pem")}


def client(authority: Authority, lifetime: datetime.timedelta = move_authority.LENT) -> Files:
    own = move_authority.lent(authority, "source", lifetime)
    return {"client-cert.pem": own.certificate, "client-key.pem": own.key}


def lets_in(port: int, files: Files, scratch: Path) -> bool:
    """Whether what listens at `port` talks to whoever shows this key. An NBD server is asked what it has."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    certificate, key = sorted(name for name in files if not name.startswith(("ca-", "dh-")))
    for name in (certificate, key):
        (scratch / name).write_bytes(files[name])
    context.load_cert_chain(scratch / certificate, scratch / key)
    try:
        with socket.create_connection(("127.0.0.1", port), PATIENCE_SECONDS) as plain:
            plain.settimeout(1.0)
            try:
                greeting = plain.recv(18, socket.MSG_WAITALL)
            except TimeoutError:
                greeting = b""  # Memory is sent without a word before.
            plain.settimeout(PATIENCE_SECONDS)
            if greeting.startswith(b"NBDMAGIC"):
                plain.sendall(struct.pack(">I", 3) + option(5))
                plain.recv(20, socket.MSG_WAITALL)
            with context.wrap_socket(plain) as encrypted:
                encrypted.sendall(option(3))
                return encrypted.recv(8) != b""
    except (ssl.SSLError, ConnectionError):
        return False


def option(number: int) -> bytes:
    """NBD_OPT_STARTTLS (5), NBD_OPT_LIST (3)"""
    return b"IHAVEOPT" + struct.pack(">II", number, 0)


def test_a_disk_that_takes_longer_than_a_key_lasts_is_followed_by_the_memory(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, lent: dict[str, list[Files]]
) -> None:
    """Its connection is made when both ends were lent new ones."""
    monkeypatch.setattr(move_authority, "LENT", datetime.timedelta(seconds=4))

    async def story() -> None:
        source, destination = await rig.resumed(), await rig.open("host2")
        loop = asyncio.get_running_loop()
        endpoint = await prepared(source, destination, rig.guest, PARAMETERS)
        begun = loop.time()
        assert endpoint.nbd_port is not None
        async with wire(endpoint.nbd_port, bytes_s=3e6) as slow:
            through = msgspec.structs.replace(endpoint, nbd_port=slow.port)
            await source.start_copy(rig.id, through, PARAMETERS)
            progress = await follow(source, rig.id)
            assert progress.phase is MigrationPhase.COMPLETED, progress
        assert loop.time() > begun + 5.0, "else this test tells nothing"
        assert len(lent[rig.id]) >= 4
        await destination.resume_destination(rig.id)
        await runs_on(destination, rig.id)
        await source.close()
        await destination.close()

    asyncio.run(story())


def test_what_was_lent_when_the_agent_died_is_taken_away_by_the_next(rig: Rig) -> None:
    async def story() -> None:
        source = await rig.resumed()
        await source.close()
        folder = GuestFolder(rig.base / "host1" / "guests", rig.id)
        guest_files.write_folder(folder, "tls", {"client-key.pem": b"lent"}, uid=None)
        source = await rig.open("host1")
        assert {entry.name for entry in folder.vm.iterdir()} == {guest_files.DISK, guest_files.CONFIG_DRIVE}
        await runs_on(source, rig.id)
        await source.close()

    asyncio.run(story())
