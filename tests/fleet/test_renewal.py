"""Where hosts on other machines connect, certificates are renewed without a restart: the door, the bus, its client."""

from __future__ import annotations

import asyncio
import datetime
import ssl
from pathlib import Path

import pytest
from cryptography import x509

from cumulet.bus.nats import NatsBus
from cumulet.bus.nats_connection import SERVER_NAME
from cumulet.ca import CertificateAuthority
from cumulet.db import schema
from cumulet.db.engine import opened
from cumulet.host.joining import DOOR_NAME
from cumulet.processes.bus import bus_alone
from cumulet.processes.remote_hosts import RemoteHosts
from cumulet.settings import Settings
from cumulet.testing import AdvanceableClock
from tests.bus.nats_cloud import needs_nats
from tests.fleet.joined import JoinableCloud, agent_of, join, membership, tell, until
from tests.identity.test_postgresql import database_url

__all__ = ["database_url"]
pytestmark = needs_nats
DAY = 86_400


def trusting(state: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(state / "ca" / "ca-cert.pem"))


async def shown_by_door(port: int, context: ssl.SSLContext) -> bytes | None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=DOOR_NAME)
    found: bytes | None = writer.get_extra_info("ssl_object").getpeercert(True)
    writer.transport.abort()
    await asyncio.gather(reader.read(), return_exceptions=True)
    return found


async def shown_by_bus(port: int, context: ssl.SSLContext) -> bytes | None:
    """A NATS server speaks first, and then waits for the handshake."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    await reader.readline()
    await writer.start_tls(context, server_hostname=SERVER_NAME)
    found: bytes | None = writer.get_extra_info("ssl_object").getpeercert(True)
    writer.transport.abort()
    return found


def shown_to_bus(client: ssl.SSLContext, authority: CertificateAuthority) -> bytes | None:
    """What a server with `SERVER_NAME` is shown by a client."""
    issued = authority.issue_bus(SERVER_NAME)
    listens = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(issued.authority))
    listens.verify_mode = ssl.CERT_REQUIRED
    listens.load_cert_chain(issued.certificate, issued.key)
    there, here = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = listens.wrap_bio(there, here, server_side=True)
    ends = (client.wrap_bio(here, there, server_hostname=SERVER_NAME), server)
    for _ in range(4):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return server.getpeercert(True)


def test_the_door_the_bus_and_its_client_show_new_certificates_without_a_restart(tmp_path: Path) -> None:
    clock = AdvanceableClock()

    async def story(cloud: JoinableCloud) -> None:
        machine = membership(tmp_path / "rack1")
        made = await cloud.invite("rack1")
        await join(machine, made)
        authority = cloud.cloud.authority
        door = cloud.cloud.context.door
        assert door is not None
        remote = getattr(door.changed, "__self__")  # noqa: B009
        assert isinstance(remote, RemoteHosts)
        assert isinstance(remote._bus, NatsBus)
        assert remote._server is not None
        context = trusting(tmp_path / "cloud")
        client, port = remote._bus._connection._tls(), remote._server.port

        async def shown() -> tuple[bytes | None, ...]:
            return (
                await shown_by_door(int(made["join"].rpartition(":")[2]), context),
                await shown_by_bus(port, context),
                shown_to_bus(client, authority),
            )

        first = await shown()
        assert None not in first
        async with agent_of(machine, "first") as agent:
            await until(lambda: cloud.up("rack1"))
            clock.advance(366 * DAY)
            await remote._certificates.round()
            assert await shown() == first, "31 days are left"
            clock.advance(2 * DAY)
            last = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=368 + 390)

            async def all_are_new() -> bool:
                found = [x509.load_der_x509_certificate(one or b"") for one in await shown()]
                return all(one.not_valid_after_utc > last for one in found)

            await until(all_are_new)
            assert agent.is_connected
            assert remote.bus_state() == "connected", "connections go on"
            assert remote._server._process is not None
            lost = [end._connection.client for end in (remote._bus, agent)]
            remote._server._process.kill()
            while not all(client is not None and client.is_closed for client in lost):
                await shown_by_door(int(made["join"].rpartition(":")[2]), context)
            await remote._bus.connected()
            await agent.connected()
            assert (await cloud.cloud.hosts.facts("rack1")).session == "first"

    tell(tmp_path, story, clock)


@pytest.mark.postgres
def test_the_process_of_a_bus_has_its_server_read_the_new_certificate(database_url: str, tmp_path: Path) -> None:
    """Another process of the cloud may have renewed it."""
    clock = AdvanceableClock()
    with opened(database_url) as database:
        schema.prepare(database)
    settings = Settings(state_dir=tmp_path, database_url=database_url, listen_address="127.0.0.1", bus_port=0)

    async def story() -> None:
        async with asyncio.timeout(60), bus_alone(settings, tmp_path / "own", clock=clock) as server:
            context = trusting(tmp_path)
            first = await shown_by_bus(server.port, context)
            clock.advance(368 * DAY)
            CertificateAuthority.load_or_create(tmp_path / "ca", clock).issue_bus(SERVER_NAME)
            while await shown_by_bus(server.port, context) == first:
                pass

    asyncio.run(story())
