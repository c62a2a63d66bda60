"""Where machines join and their agents ask: HTTPS on a port of its own, with the cloud's own certificate.

``GET /authority`` answers the certificate of the cloud's authority, whose fingerprint a joining machine was told.
``POST /join`` redeems a one-time token and gives a certificate. Everything else needs that certificate: ``POST
/claim``, ``POST /renew``, and images as in `fleet.image_door`. It names the host, which has to be a member.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import socket
import ssl
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

from cumulet.ca import Issued
from cumulet.fleet.image_door import CONTENT_LENGTH, HEAD_SECONDS, PIECE_BYTES, ImageDoor, say
from cumulet.fleet.places import Busy, Places
from cumulet.host.images import Find, Receive
from cumulet.host.joining import Admitted, Claim, Granted, Join, Refused, Renew
from cumulet.host.record import NOT_UNDERSTOOD

log = logging.getLogger(__name__)

PORT = 8775
MOST_BODY_BYTES = 32 * 1024
MOST_ASKING = 256
"""Claims and renewals that are worked on at once; one of a host."""
MOST_WAITING_OF_ONE = 2
"""Claims and renewals of one host that wait; more are refused, as is one that waits for longer than `ASKING_SECONDS`:
an agent gives up after 30."""
ASKING_SECONDS = 20.0
_POST = re.compile(rb"POST /(join|claim|renew) HTTP/1\.[01]\r\n", re.ASCII)
_STATUS = {"TRY_LATER": b"429 Too Many Requests", "NO_MEMBER": b"403 Forbidden", "OTHER_MEMBER": b"403 Forbidden"}
AskedT = TypeVar("AskedT", Join, Claim, Renew)


class Membership(Protocol):
    """Decides who may join and who is a member. Raises Refused."""

    async def join(self, asked: Join, address: str) -> Admitted:
        """`address`: where whoever asks is, for those who are told of it."""
        ...

    async def member(self, identity: str, key_sha256: str) -> str:
        """The name of the host that has this certificate."""
        ...

    async def claim(self, host: str, asked: Claim, address: str) -> Granted: ...
    async def renew(self, host: str, identity: str, asked: Renew) -> Admitted: ...


class Strangers(Protocol):
    """Bounds for callers that show no certificate, so that they cannot keep out hosts or each other."""

    def admit(self, address: str, drop: Callable[[], object]) -> Callable[[], object]:
        """Count a new connection. `drop` closes it and may be called at any time. Call the result when it has ended."""
        ...

    def may_join(self, address: str) -> bool:
        """Whether this address may try a token now."""
        ...


class HostDoor(ImageDoor):
    """Listens on a port for hosts on other machines."""

    def __init__(
        self, membership: Membership, find: Find, receive: Receive, certificate: Issued, strangers: Strangers
    ) -> None:
        super().__init__(find, receive, certificate)
        assert certificate.authority is not None
        self._membership = membership
        self._authority = certificate.authority.read_bytes()
        self._context.verify_mode = ssl.CERT_OPTIONAL  # A machine that joins has no certificate yet.
        self._strangers = strangers
        self._asking = Places(
            most=MOST_ASKING, most_of_one=1, most_waiting_of_one=MOST_WAITING_OF_ONE, wait_seconds=ASKING_SECONDS
        )
        self._calls: set[asyncio.Task[None]] = set()

    async def listen_on(self, address: str, port: int, bound: socket.socket | None = None) -> None:
        """Listen. `bound`: a socket that has the port already. OSError: the port is taken."""
        where: dict[str, Any] = {"host": address, "port": port} if bound is None else {"sock": bound}
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Caller(self._called), **where)

    def _called(self, transport: asyncio.Transport) -> None:
        task = asyncio.get_running_loop().create_task(self._shake_hands(transport))
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)

    async def _shake_hands(self, plain: asyncio.Transport) -> None:
        """A caller counts as a stranger from before its TLS handshake until it has shown a certificate."""
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=PIECE_BYTES, loop=loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        gone = self._strangers.admit(_address(plain), plain.abort)
        try:
            spoken = await loop.start_tls(
                plain, protocol, self._context, server_side=True, ssl_handshake_timeout=HEAD_SECONDS
            )
            if spoken is None:  # The caller closed the connection at the end of the handshake.
                return
            protocol.connection_made(spoken)
            writer = asyncio.StreamWriter(spoken, protocol, reader, loop)
            if _shown(writer) is not None:
                gone()
            await self._serve(reader, writer)
        except (OSError, TimeoutError) as problem:
            log.debug("no handshake: %r", problem)
        finally:
            plain.abort()
            gone()

    async def _host(self, writer: asyncio.StreamWriter) -> str | None:
        shown = _shown(writer)
        if shown is None:
            return None
        try:
            return await self._membership.member(*shown)
        except Refused:
            return None

    async def _other(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        if re.match(rb"GET /authority HTTP/1\.[01]\r\n", head):
            await say(writer, b"200 OK", self._authority)
            return True
        asked, length = _POST.match(head), CONTENT_LENGTH.search(head)
        if asked is None or length is None or int(length[1]) > MOST_BODY_BYTES:
            return False
        async with asyncio.timeout(HEAD_SECONDS):
            body = await reader.readexactly(int(length[1]))
        try:
            status, answer = b"200 OK", await self._answered(asked[1].decode(), body, writer)
        except Refused as refused:
            status = _STATUS.get(refused.refusal.code, b"400 Bad Request")
            answer = refused.refusal
            log.warning("%s refused (%s): %s", asked[1].decode(), refused.refusal.code, refused)
        await say(writer, status, msgspec.json.encode(answer))
        return True

    async def _answered(self, verb: str, body: bytes, writer: asyncio.StreamWriter) -> msgspec.Struct:
        if verb == "join":
            if not self._strangers.may_join(_address(writer)):
                raise Refused("TRY_LATER", "too many machines tried to join in the last minute: try again", again=True)
            return await self._membership.join(_read(body, Join), _address(writer))
        shown = _shown(writer)
        if shown is None:
            raise Refused("NO_CERTIFICATE", "this needs the certificate that joining gave")
        host = await self._membership.member(*shown)
        try:
            async with self._asking.place(host):
                if verb == "claim":
                    return await self._membership.claim(host, _read(body, Claim), _address(writer))
                return await self._membership.renew(host, shown[0], _read(body, Renew))
        except Busy:
            raise Refused(
                "TRY_LATER", "too much is asked at once, by this host or by all: try again", again=True
            ) from None


class _Caller(asyncio.Protocol):
    """A connection that reads nothing before TLS begins: bytes that are read too early would be lost."""

    def __init__(self, called: Callable[[asyncio.Transport], None]) -> None:
        self._called = called

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.pause_reading()
        self._called(transport)


def _read(body: bytes, kind: type[AskedT]) -> AskedT:
    try:
        return msgspec.json.decode(body, type=kind)
    except NOT_UNDERSTOOD as error:
        raise Refused("NOT_UNDERSTOOD", f"the request was not understood: {error}") from None


def _address(of: asyncio.StreamWriter | asyncio.Transport) -> str:
    name = of.get_extra_info("peername")
    return "" if name is None else str(name[0])  # None: the connection has ended already.


def _shown(writer: asyncio.StreamWriter) -> tuple[str, str] | None:
    """The identity in the peer's certificate, which our authority signed, and the SHA-256 of its key."""
    spoken: ssl.SSLObject | None = writer.get_extra_info("ssl_object")
    raw = None if spoken is None else spoken.getpeercert(binary_form=True)
    if raw is None:
        return None
    certificate = x509.load_der_x509_certificate(raw)
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return None
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    return (uris[0], key_sha256(certificate)) if len(uris) == 1 else None


def key_sha256(of: x509.Certificate | x509.CertificateSigningRequest | EllipticCurvePublicKey) -> str:
    """The SHA-256 of the public key."""
    key = of if isinstance(of, EllipticCurvePublicKey) else of.public_key()
    form = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(key.public_bytes(*form)).hexdigest()
