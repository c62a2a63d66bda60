"""Key pairs that users have made for them. Making one takes a core up to 100 ms: one thread does it, by turns, and the
rest of the API comes first."""

from __future__ import annotations

import asyncio
import base64
import functools
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cumulet.db.fair_queue import FairQueue, Job, serve_behind_others

MOST_WAITING = 16
"""Keys of one project that may wait to be made; more are refused with 503."""
_USER_PRINCIPAL_NAME = x509.ObjectIdentifier("1.3.6.1.4.1.311.20.2.3")
Pair = tuple[str, str]
"""(public half, private half), as each kind writes them."""


async def made(make: Callable[[], Pair]) -> Pair:
    """What `make` makes, when it is the caller's project's turn."""
    job = Job(lambda _: make())
    _queue().put(job)
    pair: Pair = await asyncio.wrap_future(job.future)
    return pair


@functools.cache
def _queue() -> FairQueue:
    """With the thread that serves it, from the first key on to the end of the process."""
    queue = FairQueue(most_at_once=1, most_waiting=MOST_WAITING)
    threading.Thread(target=serve_behind_others, args=(queue,), name="made-keys", daemon=True).start()
    return queue


def ssh(_user_id: str, _now_us: int) -> Pair:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return f"{public.decode()} Generated-by-Cumulet", private.decode()


def x509_certificate(user_id: str, now_us: int) -> Pair:
    """(certificate as PEM, the pair as base64 of a PKCS #12 without a password): what Nova makes for WinRM."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, user_id)])
    principal = f"{user_id}@localhost".encode()
    utf8 = bytes([0x0C, len(principal)]) + principal  # DER's UTF8String; an id is far shorter than 128 bytes
    now = datetime.fromtimestamp(now_us // 1_000_000, UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=3650))
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .add_extension(
            x509.SubjectAlternativeName([x509.OtherName(_USER_PRINCIPAL_NAME, utf8)]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    pair = pkcs12.serialize_key_and_certificates(None, key, certificate, None, serialization.NoEncryption())
    return certificate.public_bytes(serialization.Encoding.PEM).decode(), base64.b64encode(pair).decode()
