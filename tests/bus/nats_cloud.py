"""A real NATS server on a free port, with an authority of its own. Without nats-server, tests are skipped with the
reason."""

from __future__ import annotations

import shutil
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from cumulet.bus.nats import NatsAgent, NatsBus
from cumulet.bus.nats_connection import SERVER_NAME
from cumulet.ca import CertificateAuthority, Issued
from cumulet.fleet.nats_server import CONTROL_PLANE, BusUser, NatsServer
from cumulet.host.link import Answers

needs_nats = pytest.mark.skipif(
    shutil.which("nats-server", path="/usr/bin:/usr/local/bin:/usr/sbin:/usr/local/sbin") is None,
    reason="no nats-server here: Debian has it as a package of this name",
)


def tls_of(issued: Issued) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(issued.authority))
    context.load_cert_chain(issued.certificate, issued.key)
    return context


def user(host: str) -> BusUser:
    return BusUser(identity=f"cumulet://host/{host}", host=host)


@dataclass
class NatsCloud:
    """A server with some hosts as users, and its clients."""

    authority: CertificateAuthority
    folder: Path
    server: NatsServer

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.server.port}"

    def bus(self) -> NatsBus:
        return NatsBus([self.url], tls_of(self.authority.issue_client(CONTROL_PLANE)), name="control-plane")

    def tls_of_host(self, host: str) -> ssl.SSLContext:
        """As a host's agent has it."""
        other = CertificateAuthority.load_or_create(self.folder / "ca")
        other._folder = self.folder / "keys" / host
        return tls_of(other.issue_client(user(host).identity))

    def agent(self, host: str, answers: Answers, *, incarnation: str = "first") -> NatsAgent:
        tls = self.tls_of_host(host)
        return NatsAgent(answers, name=host, servers=[self.url], tls=lambda: tls, incarnation=incarnation)


@asynccontextmanager
async def nats_cloud(folder: Path, *hosts: str) -> AsyncIterator[NatsCloud]:
    authority = CertificateAuthority.load_or_create(folder / "ca")
    server = NatsServer(folder / "bus", authority.issue_bus(SERVER_NAME), address="127.0.0.1", port=-1)
    await server.start([user(host) for host in hosts])
    try:
        yield NatsCloud(authority, folder, server)
    finally:
        await server.stop()
