"""The two ends of a move know each other by authorities that are made for this move alone.

Each end's agent makes one, keeps its key, and tells its certificate to the other through the control plane. QEMU is
lent certificates of it that last minutes, and trusts the other end's authority and no other. So a key that somebody
takes out of QEMU opens no door but the one it was lent for, and that one only for minutes; nothing of this cloud's own
authority, or of its hosts, is ever near a guest.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cumulet.drivers.qemu.record import Authority
from cumulet.host.driver import DriverError
from cumulet.host.endpoint import Peer

Role = Literal["source", "destination"]

LENT = datetime.timedelta(minutes=10)
"""How long a certificate lasts that QEMU is lent. It is renewed as long as the move may make connections."""
LENT_IN_POST_COPY = datetime.timedelta(days=1)
"""The same once the guest runs without all of its memory: a QEMU that waits for a page cannot be lent another one, and
without one the network that was cut would cost the guest its memory."""
CLOCK_ERROR = datetime.timedelta(minutes=10)
"""How far the clocks of two hosts may be apart."""
_AUTHORITY = datetime.timedelta(days=30)
"""Longer than any move; nobody but the agent has its key, and both are forgotten with the move."""

_USAGES = {"source": ExtendedKeyUsageOID.CLIENT_AUTH, "destination": ExtendedKeyUsageOID.SERVER_AUTH}


@dataclass(frozen=True, slots=True, kw_only=True)
class Lent:
    """A certificate and its key, as PEM."""

    certificate: bytes
    key: bytes


def name_of(role: Role, move: str) -> str:
    """The subject of an end's certificates, and the host name in them."""
    return f"{role}.{move}"


def new_authority(role: Role, move: str) -> Authority:
    """One end's own, for one move."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"authority.{name_of(role, move)}"[:64])])
    certificate = (
        _builder(name, name, key.public_key(), _AUTHORITY)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    return Authority(move=move, certificate=_pem(certificate).decode(), key=_pem_of(key).decode())


def peer(authority: Authority, host: str) -> Peer:
    """What the other end is told. `host`: whose it is."""
    return Peer(host=host, move=authority.move, authority=authority.certificate)


def lent(authority: Authority, role: Role, lifetime: datetime.timedelta) -> Lent:
    """A new certificate for QEMU, good for this role in this move."""
    own = x509.load_pem_x509_certificate(authority.certificate.encode())
    signing = serialization.load_pem_private_key(authority.key.encode(), password=None)
    if not isinstance(signing, ec.EllipticCurvePrivateKey):
        raise DriverError("MOVE_AUTHORITY: its key is no elliptic curve key")
    name = name_of(role, authority.move)
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        _builder(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), own.subject, key.public_key(), lifetime)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage((_USAGES[role],)), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(signing, hashes.SHA256())
    )
    return Lent(certificate=_pem(certificate), key=_pem_of(key))


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, lifetime: datetime.timedelta
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_ERROR)
        .not_valid_after(now + lifetime)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _pem_of(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
