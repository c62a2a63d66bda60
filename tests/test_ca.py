"""The cloud's own authority: what it issues, what it refuses to use."""

from __future__ import annotations

import datetime
import ssl
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cumulet import ca
from cumulet.ca import CertificateAuthority
from cumulet.owned import Exposed
from cumulet.testing import AdvanceableClock

DAY = 86_400


def certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def test_an_authority_is_made_once_and_found_again(tmp_path: Path) -> None:
    first = CertificateAuthority.load_or_create(tmp_path / "ca")
    made = first.certificate_file.read_bytes()
    assert CertificateAuthority.load_or_create(tmp_path / "ca").certificate_file.read_bytes() == made
    assert stat.S_IMODE((tmp_path / "ca" / "ca-key.pem").stat().st_mode) == 0o600


@pytest.mark.parametrize("key", ["ca-key.pem", "hosts/host1/client-key.pem"])
def test_a_key_that_others_could_read_is_not_used(tmp_path: Path, key: str) -> None:
    CertificateAuthority.load_or_create(tmp_path).issue_host("host1")
    (tmp_path / key).chmod(0o640)
    with pytest.raises(Exposed, match=key):
        CertificateAuthority.load_or_create(tmp_path).issue_host("host1")


def test_a_host_is_a_client_under_its_name_alone(tmp_path: Path) -> None:
    authority = CertificateAuthority.load_or_create(tmp_path)
    folder = authority.issue_host("host1")
    assert sorted(path.name for path in folder.iterdir()) == ["ca-cert.pem", "client-cert.pem", "client-key.pem"]
    issued = certificate(folder / "client-cert.pem")
    assert issued.subject.rfc4514_string() == "CN=host1"
    issued.verify_directly_issued_by(certificate(authority.certificate_file))
    usage = issued.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(usage) == {ExtendedKeyUsageOID.CLIENT_AUTH}
    names = issued.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["host1"]
    assert not issued.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


@pytest.mark.parametrize("name", ["", "../host", "a/b", "host,O=x", "Host", "host\n", "x" * 65, "host_1", "*.example"])
def test_a_name_that_is_no_host_s_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="named like a DNS name"):
        CertificateAuthority.load_or_create(tmp_path).issue_host(name)


def test_certificates_are_kept_until_they_near_their_end(tmp_path: Path) -> None:
    clock = AdvanceableClock()
    authority = CertificateAuthority.load_or_create(tmp_path, clock)
    folder = authority.issue_host("host1")
    first = certificate(folder / "client-cert.pem")
    assert certificate(authority.issue_host("host1") / "client-cert.pem") == first
    clock.advance((397 - 20) * DAY)
    second = certificate(authority.issue_host("host1") / "client-cert.pem")
    assert second.serial_number != first.serial_number
    assert second.not_valid_after_utc > first.not_valid_after_utc
    assert second.public_key() == first.public_key(), "who reads both files meanwhile finds that they fit"
    assert second.not_valid_before_utc < datetime.datetime.now(datetime.UTC), "the cloud's clock was ahead"


def test_no_certificate_outlasts_the_authority_and_none_is_renewed_in_vain(tmp_path: Path) -> None:
    clock = AdvanceableClock()
    authority = CertificateAuthority.load_or_create(tmp_path, clock)
    clock.advance((3650 - 20) * DAY)
    folder = authority.issue_host("host1")
    first = certificate(folder / "client-cert.pem")
    assert first.not_valid_after_utc == certificate(authority.certificate_file).not_valid_after_utc
    assert certificate(authority.issue_host("host1") / "client-cert.pem") == first


def test_processes_that_start_together_are_issued_one_certificate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    CertificateAuthority.load_or_create(tmp_path)
    write_key = ca._write_key

    def slowly(path: Path, key: EllipticCurvePrivateKey) -> None:
        time.sleep(0.05)
        write_key(path, key)

    monkeypatch.setattr(ca, "_write_key", slowly)

    def issue(_: int) -> tuple[bytes, bytes]:
        issued = CertificateAuthority.load_or_create(tmp_path).issue_client("cumulet://control-plane")
        ssl.create_default_context().load_cert_chain(issued.certificate, issued.key)
        return issued.certificate.read_bytes(), issued.key.read_bytes()

    with ThreadPoolExecutor(8) as processes:
        assert len(set(processes.map(issue, range(8)))) == 1


def test_the_api_s_certificate_names_its_addresses_and_loads_into_a_server(tmp_path: Path) -> None:
    authority = CertificateAuthority.load_or_create(tmp_path)
    issued = authority.issue_server(tmp_path / "api", ["localhost"], ["127.0.0.1", "::1"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.certificate, issued.key)
    ssl.create_default_context(cafile=str(issued.authority))
    first = certificate(issued.certificate)
    assert first.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == "localhost"
    names = first.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1", "::1"]
    other = certificate(authority.issue_server(tmp_path / "api", ["localhost"], ["127.0.0.1"]).certificate)
    assert other.serial_number != first.serial_number
