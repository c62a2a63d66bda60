"""The cloud's own certificate authority: TLS for its API and for what hosts send to each other."""

from __future__ import annotations

import datetime
import fcntl
import ipaddress
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cumulet.clock import Clock, SystemClock
from cumulet.owned import Exposed, refuse_exposed, refuse_foreign_path, write_whole

_CA_DAYS = 3650
_LEAF_DAYS = 397
RENEW_DAYS = 30
"""How long before its end a certificate is renewed."""
JOINED_DAYS = 30
"""Of a certificate of a host on another machine, which renews it by itself."""
_CLOCK_ERROR = datetime.timedelta(hours=1)
_HOST_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*")


class Issued(msgspec.Struct, frozen=True, kw_only=True):
    """A certificate with its key and the authority's certificate, as files."""

    certificate: Path
    key: Path
    authority: Path | None
    """None: one that clients trust anyway."""


class CertificateAuthority:
    """A P-256 root kept in one folder. Only the control plane has it; hosts get what `issue_host` writes."""

    def __init__(
        self, folder: Path, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate, clock: Clock
    ) -> None:
        self._folder = folder
        self._key = key
        self._certificate = certificate
        self._clock = clock

    @classmethod
    def load_or_create(cls, folder: Path, clock: Clock | None = None) -> CertificateAuthority:
        """Raises `Exposed` where others could read the key, or put another one in its place."""
        clock = clock or SystemClock()
        refuse_foreign_path(folder)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _alone(folder):
            if not (folder / "ca-cert.pem").exists():
                _write_key(folder / "ca-key.pem", key := ec.generate_private_key(ec.SECP256R1()))
                _write(folder / "ca-cert.pem", _pem(_root(key, clock)), 0o644)
            certificate = x509.load_pem_x509_certificate((folder / "ca-cert.pem").read_bytes())
            return cls(folder, _read_key(folder / "ca-key.pem"), certificate, clock)

    @property
    def certificate_file(self) -> Path:
        """What clients must trust (`cacert` in clouds.yaml)."""
        return self._folder / "ca-cert.pem"

    def issue_server(self, folder: Path, names: Sequence[str], ips: Sequence[str]) -> Issued:
        """A certificate for an API's listener, kept in `folder` until it nears its end or other names are asked for.

        APIs with names of their own need folders of their own.
        """
        alternatives: list[x509.GeneralName] = [x509.DNSName(name) for name in names]
        alternatives += [x509.IPAddress(ipaddress.ip_address(ip)) for ip in ips]
        return self._issue(folder, "server", (names or ips)[0], alternatives, (ExtendedKeyUsageOID.SERVER_AUTH,))

    def issue_bus(self, name: str) -> Issued:
        """What NATS servers of this cloud show, under `name`; the key is for them alone."""
        usages = (ExtendedKeyUsageOID.SERVER_AUTH,)
        return self._issue(self._folder / "bus", "server", name, [x509.DNSName(name)], usages)

    @property
    def bus_certificate(self) -> Path:
        """Where `issue_bus` keeps it."""
        return self._folder / "bus" / "server-cert.pem"

    def issue_door(self, name: str) -> Issued:
        """What machines that join see, under `name`."""
        usages = (ExtendedKeyUsageOID.SERVER_AUTH,)
        return self._issue(self._folder / "door", "server", name, [x509.DNSName(name)], usages)

    def issue_client(self, identity: str) -> Issued:
        """What a process of the control plane shows on the bus; `identity` is a URI, and what it is known by."""
        uris: list[x509.GeneralName] = [x509.UniformResourceIdentifier(identity)]
        usages = (ExtendedKeyUsageOID.CLIENT_AUTH,)
        return self._issue(self._folder / "control-plane", "client", "control-plane", uris, usages)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the authority's certificate, in hexadecimal: what a machine that joins knows it by."""
        return self._certificate.fingerprint(hashes.SHA256()).hex()

    def sign_joined(self, name: str, identity: str, request: bytes) -> bytes:
        """The certificate, as PEM, of a host on another machine, which has made its key itself.

        It shows it on the bus and for images, and is known by `identity`, a URI. Nothing else that is asked for is
        given. ValueError: it is no such request.
        """
        names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(identity)]
        usages = (ExtendedKeyUsageOID.CLIENT_AUTH,)
        return _pem(self._sign(read_request(request)[1], name, names, usages, days=JOINED_DAYS))

    def issue_host(self, name: str) -> Path:
        """The folder of `issued_to_host`."""
        return self.issued_to_host(name).certificate.parent

    def issued_to_host(self, name: str) -> Issued:
        """The certificate by which a host fetches images, in a folder of its own. Its subject is ``CN=<name>``.
        ValueError."""
        if not _HOST_NAME.fullmatch(name) or len(name) > 64:
            raise ValueError("a host is named like a DNS name in lower case, at most 64 characters")
        folder = self._folder / "hosts" / name
        return self._issue(folder, "client", name, [x509.DNSName(name)], (ExtendedKeyUsageOID.CLIENT_AUTH,))

    def _issue(
        self,
        folder: Path,
        role: str,
        subject: str,
        alternatives: list[x509.GeneralName],
        usages: tuple[x509.ObjectIdentifier, ...],
    ) -> Issued:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        certificate_file, key_file = folder / f"{role}-cert.pem", folder / f"{role}-key.pem"
        issued = Issued(certificate=certificate_file, key=key_file, authority=folder / "ca-cert.pem")
        with _alone(self._folder):
            _write(folder / "ca-cert.pem", _pem(self._certificate), 0o644)
            if certificate_file.exists() and key_file.exists():
                refuse_exposed(key_file)
                present = x509.load_pem_x509_certificate(certificate_file.read_bytes())
                if self._is_ours(present, alternatives):
                    if self._nears_its_end(present):
                        # For the same key: whoever reads the two files meanwhile finds that they fit.
                        key = _read_key(key_file)
                        renewed = self._sign(key.public_key(), subject, alternatives, usages)
                        _write(certificate_file, _pem(renewed), 0o644)
                    return issued
            key = ec.generate_private_key(ec.SECP256R1())
            certificate = self._sign(key.public_key(), subject, alternatives, usages)
            # The certificate goes last, so that no crash leaves one beside a key that does not fit.
            certificate_file.unlink(missing_ok=True)
            _write_key(key_file, key)
            _write(certificate_file, _pem(certificate), 0o644)
        return issued

    def _nears_its_end(self, present: x509.Certificate) -> bool:
        """And another one would last longer: none outlasts the authority."""
        end = present.not_valid_after_utc
        return end - _now(self._clock) < datetime.timedelta(days=RENEW_DAYS) and (
            end < self._certificate.not_valid_after_utc
        )

    def _is_ours(self, present: x509.Certificate, alternatives: list[x509.GeneralName]) -> bool:
        with suppress(Exception):
            present.verify_directly_issued_by(self._certificate)
            names = present.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            return list(names) == alternatives
        return False

    def _sign(
        self,
        key: ec.EllipticCurvePublicKey,
        subject: str,
        alternatives: list[x509.GeneralName],
        usages: tuple[x509.ObjectIdentifier, ...],
        *,
        days: int = _LEAF_DAYS,
    ) -> x509.Certificate:
        now = _now(self._clock)
        end = min(now + datetime.timedelta(days=days), self._certificate.not_valid_after_utc)
        # Who checks it goes by another clock, and this cloud's may be ahead of it.
        begin = min(now, _now(SystemClock())) - _CLOCK_ERROR
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject[:64])]))
            .issuer_name(self._certificate.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(end)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Meanwhile no other process makes this authority, or a certificate of it."""
    with open(folder / "lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def read_request(pem: bytes) -> tuple[x509.CertificateSigningRequest, ec.EllipticCurvePublicKey]:
    """A request for a certificate (PKCS #10) whose key its maker holds. ValueError."""
    request = x509.load_pem_x509_csr(pem)
    key = request.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp256r1":
        raise ValueError("the key must be of the curve P-256")
    if not request.is_signature_valid:
        raise ValueError("the request is not signed with its own key")
    return request, key


def read_signer(pem: bytes, signature: bytes, signed: bytes) -> ec.EllipticCurvePublicKey:
    """The key, once it is seen that the signature is its own. ValueError."""
    key = serialization.load_pem_public_key(pem)
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise ValueError("the key must be of an elliptic curve")
    try:
        key.verify(signature, signed, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        raise ValueError("it is not signed with the key that is shown") from None
    return key


def _root(key: ec.EllipticCurvePrivateKey, clock: Clock) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Cumulet authority")])
    now = _now(clock)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_ERROR)
        .not_valid_after(now + datetime.timedelta(days=_CA_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(key_cert_sign=True, crl_sign=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def _key_usage(
    *, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _now(clock: Clock) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(clock.now_us() / 1_000_000, datetime.UTC)


class Dates(msgspec.Struct, frozen=True):
    """From when to when a certificate is good, in microseconds since 1970."""

    begins_at_us: int
    ends_at_us: int


def dates_of(pem: bytes) -> Dates:
    """Of the first certificate there. ValueError."""
    found = x509.load_pem_x509_certificate(pem)
    begin, end = found.not_valid_before_utc, found.not_valid_after_utc
    return Dates(round(begin.timestamp() * 1_000_000), round(end.timestamp() * 1_000_000))


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    plain = serialization.NoEncryption()
    _write(path, key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain), 0o600)


def _write(path: Path, content: bytes, mode: int) -> None:
    if not path.exists() or path.read_bytes() != content:
        write_whole(path, content, mode)


def _read_key(path: Path) -> ec.EllipticCurvePrivateKey:
    refuse_exposed(path)
    key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise Exposed(f"{path} is not an elliptic curve key")
    return key


class BadCertificate(Exception):
    """An operator's own certificate that cannot be served with; says what is wrong and what to do."""


def check_own_certificate(certificate: Path, key: Path, *, name: str | None, clock: Clock | None = None) -> None:
    """Whether HTTPS can be served with it under `name`. Raises BadCertificate."""
    if name is None:
        raise BadCertificate("tls_certificate_file needs public_url too: the name that the certificate vouches for")
    try:
        refuse_exposed(key)
        found = x509.load_pem_x509_certificates(certificate.read_bytes())[0]
        private = serialization.load_pem_private_key(key.read_bytes(), password=None)
    except Exposed as error:
        raise BadCertificate(f"tls_key_file: {error}") from None
    except OSError as error:
        raise BadCertificate(f"cannot read {error.filename}: {error.strerror}") from None
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise BadCertificate(f"tls_certificate_file and tls_key_file must be PEM without a password: {error}") from None
    if private.public_key() != found.public_key():
        raise BadCertificate(f"{key} is not the key of {certificate}")
    if not found.not_valid_before_utc <= _now(clock or SystemClock()) <= found.not_valid_after_utc:
        raise BadCertificate(
            f"{certificate} is good from {found.not_valid_before_utc:%Y-%m-%d} to "
            f"{found.not_valid_after_utc:%Y-%m-%d}, not now: renew it"
        )
    names = _names_of(found)
    if not any(_vouches(pattern, name) for pattern in names):
        raise BadCertificate(
            f"{certificate} does not vouch for {name} of public_url, but for {', '.join(names) or 'nothing'}"
        )


def _names_of(certificate: x509.Certificate) -> list[str]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [*found.get_values_for_type(x509.DNSName), *map(str, found.get_values_for_type(x509.IPAddress))]


def _vouches(pattern: str, name: str) -> bool:
    """RFC 6125: a ``*`` stands for one whole first label."""
    pattern, name = pattern.lower(), name.lower()
    return pattern == name or (pattern.startswith("*.") and name.partition(".")[2] == pattern[2:])
