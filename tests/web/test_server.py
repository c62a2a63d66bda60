"""The listener: TLS always, a free port on request, a clear error when the port is taken, no slow clients."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from cumulet.testing import JsonObject
from cumulet.web import bodies, protocols, transport
from cumulet.web import server as listener
from cumulet.web.app import App
from cumulet.web.context import Cloud
from cumulet.web.server import AddressTaken, Server, serve
from tests.web.widgets import SERVICES


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(minutes=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .sign(key, hashes.SHA256())
    )
    paths = tmp_path / "certificate.pem", tmp_path / "key.pem"
    paths[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return paths


def serving(
    cloud: Cloud,
    paths: tuple[Path, Path],
    test: Callable[[Server, ssl.SSLContext], Awaitable[None]],
    **bounds: int,
) -> None:
    async def run() -> None:
        app = App(cloud, SERVICES)
        running = await serve(
            app, address="127.0.0.1", port=0, certificate=paths[0], key=paths[1], listening=None, turns=None, **bounds
        )
        try:
            await test(running, ssl.create_default_context(cafile=str(paths[0])))
        finally:
            await running.stop()

    asyncio.run(run())


def test_requests_are_answered_over_tls(cloud: Cloud, certificate: tuple[Path, Path]) -> None:
    async def test(running: Server, context: ssl.SSLContext) -> None:
        async with httpx.AsyncClient(verify=context, base_url=f"https://127.0.0.1:{running.port}") as client:
            root = await client.get("/")
            hrefs = [link["href"] for s in root.json()["services"] for link in s["links"]]
            assert hrefs[0] == f"https://127.0.0.1:{running.port}/compute/v2.1"
            created = await client.post(
                "/compute/v2.1/widgets", json={"widget": {"name": "é"}}, headers={"X-Auth-Token": "member"}
            )
            assert (created.status_code, created.json()) == (202, {"widget": {"name": "é"}})
            for _ in range(3):
                again = await client.get("/compute/v2.1/widgets/w1", headers={"X-Auth-Token": "member"})
                assert again.status_code == 200
            gone = await client.delete("/compute/v2.1/widgets/w1", headers={"X-Auth-Token": "member"})
            assert (gone.status_code, gone.content) == (204, b"")

    serving(cloud, certificate, test)


def test_an_answer_is_sent_in_one_piece_and_in_the_pass_in_which_it_is_there(
    cloud: Cloud, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is sent in the request's own task, and not later on the event loop, after other turns."""
    in_task: list[bool] = []
    flush = transport.Gathering.flush

    def noted(gathering: transport.Gathering) -> None:
        if gathering._pieces:
            in_task.append(asyncio.current_task() is not None)
        flush(gathering)

    monkeypatch.setattr(transport.Gathering, "flush", noted)

    async def test(running: Server, context: ssl.SSLContext) -> None:
        async with httpx.AsyncClient(verify=context, base_url=f"https://127.0.0.1:{running.port}") as client:
            for _ in range(3):
                found = await client.get("/compute/v2.1/widgets/w1", headers={"X-Auth-Token": "member"})
                assert found.status_code == 200

    serving(cloud, certificate, test)
    assert in_task == [True] * 3


def test_without_tls_there_is_no_answer(cloud: Cloud, certificate: tuple[Path, Path]) -> None:
    async def test(running: Server, context: ssl.SSLContext) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        answer = b""
        with contextlib.suppress(ConnectionError):
            answer = await reader.read()
        assert not answer.startswith(b"HTTP/")
        writer.close()

    serving(cloud, certificate, test)


def test_old_tls_is_refused(cloud: Cloud, certificate: tuple[Path, Path]) -> None:
    context = listener.tls_context(*certificate)
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2


def test_a_taken_port_is_a_clear_error(cloud: Cloud, certificate: tuple[Path, Path]) -> None:
    async def test(running: Server, context: ssl.SSLContext) -> None:
        with pytest.raises(AddressTaken, match=f"127.0.0.1:{running.port} is taken"):
            await serve(
                App(cloud, SERVICES),
                address="127.0.0.1",
                port=running.port,
                certificate=certificate[0],
                key=certificate[1],
            )

    serving(cloud, certificate, test)


def test_an_address_that_is_not_ours_is_a_clear_error(cloud: Cloud, certificate: tuple[Path, Path]) -> None:
    async def run() -> None:
        app = App(cloud, SERVICES)
        with pytest.raises(AddressTaken, match=r"cannot listen on 192\.0\.2\.1"):
            await serve(app, address="192.0.2.1", port=0, certificate=certificate[0], key=certificate[1])

    asyncio.run(run())


def test_an_endless_head_is_cut_off(cloud: Cloud, certificate: tuple[Path, Path]) -> None:
    async def test(running: Server, context: ssl.SSLContext) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port, ssl=context)
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n")
        for n in range(80):
            writer.write(b"x-%d: " % n + b"y" * 1000 + b"\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.1 431 ")
        writer.close()

    serving(cloud, certificate, test)


def test_an_overlong_head_in_one_piece_is_refused(cloud: Cloud, certificate: tuple[Path, Path]) -> None:
    async def test(running: Server, context: ssl.SSLContext) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port, ssl=context)
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\nx-long: " + b"y" * 70_000 + b"\r\n\r\n")
        assert (await reader.readline()).split()[1] in (b"400", b"431")
        writer.close()

    serving(cloud, certificate, test)


def test_pipelined_requests_are_answered_in_order(cloud: Cloud, certificate: tuple[Path, Path]) -> None:
    async def test(running: Server, context: ssl.SSLContext) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port, ssl=context)
        ask = b"GET /compute/v2.1/widgets/%s HTTP/1.1\r\nhost: x\r\nx-auth-token: member\r\n\r\n"
        writer.write(ask % b"w1" + ask % b"w2")
        statuses = []
        for _ in range(2):
            head = await reader.readuntil(b"\r\n\r\n")
            statuses.append(head.split()[1])
            await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split()[0]))
        assert statuses == [b"200", b"404"]
        writer.close()

    serving(cloud, certificate, test)


def test_large_answers_arrive_whole(cloud: Cloud, certificate: tuple[Path, Path]) -> None:
    async def test(running: Server, context: ssl.SSLContext) -> None:
        async with httpx.AsyncClient(verify=context, base_url=f"https://127.0.0.1:{running.port}") as client:
            answer = await client.get("/compute/v2.1/widgets/w1/large", headers={"X-Auth-Token": "member"})
            assert answer.content == b"0123456789abcdef" * 4096 * 64

    serving(cloud, certificate, test)


def test_a_slow_head_is_cut_off(cloud: Cloud, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocols, "HEAD_SECONDS", 0.05)

    async def test(running: Server, context: ssl.SSLContext) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port, ssl=context)
        writer.write(b"GET / HTTP/1.1\r\n")
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()

    serving(cloud, certificate, test)


def test_a_slow_body_is_408(cloud: Cloud, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "BODY_SECONDS", 0.05)

    async def test(running: Server, context: ssl.SSLContext) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port, ssl=context)
        writer.write(b"POST /compute/v2.1/widgets HTTP/1.1\r\nhost: x\r\nx-auth-token: member\r\n")
        writer.write(b"content-length: 100\r\n\r\n{")
        assert (await asyncio.wait_for(reader.readline(), 5)).startswith(b"HTTP/1.1 408 ")
        writer.close()

    serving(cloud, certificate, test)


def test_garbage_is_400_and_closes(cloud: Cloud, certificate: tuple[Path, Path]) -> None:
    async def test(running: Server, context: ssl.SSLContext) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port, ssl=context)
        writer.write(b"\x00\x01\x02 nonsense\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
        writer.close()

    serving(cloud, certificate, test)


@pytest.mark.parametrize(("version", "status"), [(b"1.1", b"400"), (b"1.0", b"200")])
def test_a_request_of_http_1_1_names_its_host(
    cloud: Cloud, certificate: tuple[Path, Path], version: bytes, status: bytes
) -> None:
    async def test(running: Server, context: ssl.SSLContext) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port, ssl=context)
        writer.write(b"GET / HTTP/%s\r\nconnection: close\r\n\r\n" % version)
        answer = await reader.read()
        assert answer.split()[1] == status
        assert (b"The header host is missing." in answer) == (status == b"400")
        writer.close()

    serving(cloud, certificate, test)


def test_keystoneauth_discovers_every_service_behind_its_path(cloud: Cloud, certificate: tuple[Path, Path]) -> None:
    from keystoneauth1 import discover, session

    found: JsonObject = {}

    async def test(running: Server, context: ssl.SSLContext) -> None:
        def ask() -> None:
            client = session.Session(verify=str(certificate[0]))
            for path in ("/compute/v2.1", "/compute", "/network"):
                document = discover.Discover(client, f"https://127.0.0.1:{running.port}{path}/")
                found[path] = document.version_data()[-1]

        await asyncio.get_running_loop().run_in_executor(None, ask)
        assert found["/compute/v2.1"]["version"] == (2, 1)
        assert found["/compute/v2.1"]["max_microversion"] == (2, 104)
        assert found["/compute"]["url"] == f"https://127.0.0.1:{running.port}/compute/v2.1/"
        assert found["/network"]["version"] == (2, 0)

    serving(cloud, certificate, test)
