"""Hosts fetch images by content, with their certificates, and only what is theirs."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest

from cumulet.agent.images import ImagesOfControlPlane
from cumulet.ca import CertificateAuthority
from cumulet.errors import NotFound
from cumulet.fleet import image_door
from cumulet.fleet.image_door import ImageDoor
from cumulet.host.driver import DriverError, Image

T = TypeVar("T")
CONTENT = b"an image" * 500_000
SHA512 = hashlib.sha512(CONTENT).hexdigest()
SOCKET = Path("images.sock")


@pytest.fixture(autouse=True)
def _in_the_tests_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # A socket's name must be short.


def image(sha512: str = SHA512) -> Image:
    size = len(CONTENT)
    return Image(id="i", disk_format="raw", size_bytes=size, virtual_size_bytes=size, sha512=sha512)


IMAGE_ID = "00000000-0000-4000-8000-000000000001"


def with_door(story: Callable[[CertificateAuthority], Awaitable[T]], taken: list[bytes] | None = None) -> T:
    """Run beside a door at which `host1` and `host3` get one image, and `host1` brings another, to `taken`."""

    async def receive(host: str, image_id: str, size: int, pieces: AsyncIterator[bytes]) -> None:
        if (host, image_id) != ("host1", IMAGE_ID):
            raise NotFound("it is not there")
        if taken is not None:
            taken.append(b"".join([piece async for piece in pieces]))
            assert len(taken[-1]) == size

    async def find(host: str, sha512: str) -> Path | None:
        return Path("image") if host in ("host1", "host3") and sha512 == SHA512 else None

    async def run() -> T:
        Path("image").write_bytes(CONTENT)
        authority = CertificateAuthority.load_or_create(Path("ca"))
        door = ImageDoor(find, receive, authority.issue_server(Path("api"), ("localhost",), ()))
        await door.listen(SOCKET)
        try:
            return await story(authority)
        finally:
            await door.close()

    return asyncio.run(run())


async def fetch(tls: Path, wanted: Image) -> bytes:
    return b"".join([piece async for piece in ImagesOfControlPlane(SOCKET, tls).stream(wanted)])


def test_a_host_gets_the_image_of_its_guest() -> None:
    assert with_door(lambda authority: fetch(authority.issue_host("host1"), image())) == CONTENT


def test_only_so_many_images_travel_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_door, "MOST_TRANSFERS", 2)
    under_way, most = 0, 0
    send = ImageDoor._send

    async def counted(self: ImageDoor, host: str, sha512: str, writer: asyncio.StreamWriter) -> None:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await send(self, host, sha512, writer)
        under_way -= 1

    async def story(authority: CertificateAuthority) -> None:
        tls = authority.issue_host("host1")
        assert await asyncio.gather(*(fetch(tls, image()) for _ in range(6))) == [CONTENT] * 6

    monkeypatch.setattr(ImageDoor, "_send", counted)
    with_door(story)
    assert most == 2


@pytest.mark.parametrize(("host", "sha512"), [("host2", SHA512), ("host1", "0" * 128)])
def test_what_is_not_the_hosts_is_not_there(host: str, sha512: str) -> None:
    with pytest.raises(DriverError, match="IMAGE_UNREADABLE"):
        with_door(lambda authority: fetch(authority.issue_host(host), image(sha512)))


def test_another_authoritys_certificate_is_refused() -> None:
    async def story(authority: CertificateAuthority) -> bytes:
        other = CertificateAuthority.load_or_create(Path("other")).issue_host("host1")
        mixed = Path("mixed")
        mixed.mkdir()
        for name in ("client-cert.pem", "client-key.pem"):
            (mixed / name).write_bytes((other / name).read_bytes())
        (mixed / "ca-cert.pem").write_bytes(authority.certificate_file.read_bytes())
        return await fetch(mixed, image())

    with pytest.raises(DriverError, match="IMAGE_UNREADABLE"):
        with_door(story)


@pytest.mark.parametrize(
    "request_",
    [
        f"GET /images/../ca/ca-key.pem?{SHA512} HTTP/1.1\r\n\r\n",
        f"POST /images/{SHA512} HTTP/1.1\r\n\r\n",
        f"PUT /images/{SHA512} HTTP/1.1\r\nContent-Length: 1\r\n\r\n",
        f"PUT /images/{IMAGE_ID} HTTP/1.1\r\n\r\n",
        f"PUT /images/{IMAGE_ID} HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        f"GET /images/{SHA512} HTTP/1.1\r\nX: {'x' * 8192}\r\n\r\n",
        f"GET /images/{SHA512.upper()} HTTP/1.1\r\n\r\n",
        f"GET /images/{SHA512}\n HTTP/1.1\r\n\r\n",
        "\r\n\r\n",
    ],
)
def test_any_other_request_is_404(request_: str) -> None:
    async def story(authority: CertificateAuthority) -> bytes:
        tls = authority.issue_host("host1")
        context = ssl.create_default_context(cafile=str(tls / "ca-cert.pem"))
        context.load_cert_chain(tls / "client-cert.pem", tls / "client-key.pem")
        reader, writer = await asyncio.open_unix_connection(str(SOCKET), ssl=context, server_hostname="localhost")
        writer.write(request_.encode())
        answer = await reader.read()
        writer.close()
        return answer

    assert with_door(story).startswith(b"HTTP/1.1 404 ")


async def bring(tls: Path, image_id: str, content: bytes, *, broken: bool = False) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield content
        if broken:
            raise DriverError("CUT_SHORT")

    size = 2 * len(content) if broken else len(content)
    await ImagesOfControlPlane(SOCKET, tls).send(image_id, size, pieces())


def test_a_host_brings_the_image_of_its_guests_disk() -> None:
    taken: list[bytes] = []
    with_door(lambda authority: bring(authority.issue_host("host1"), IMAGE_ID, CONTENT), taken)
    assert taken == [CONTENT]


@pytest.mark.parametrize(("host", "image_id"), [("host2", IMAGE_ID), ("host1", IMAGE_ID.replace("4", "5"))])
def test_what_nobody_waits_for_is_not_taken(host: str, image_id: str) -> None:
    taken: list[bytes] = []
    with pytest.raises(DriverError, match="IMAGE_NOT_TAKEN"):
        with_door(lambda authority: bring(authority.issue_host(host), image_id, b"content"), taken)
    assert taken == []


def test_what_ends_early_is_not_taken() -> None:
    taken: list[bytes] = []
    with pytest.raises(DriverError, match="CUT_SHORT"):
        with_door(lambda authority: bring(authority.issue_host("host1"), IMAGE_ID, b"half", broken=True), taken)
    assert taken == []
