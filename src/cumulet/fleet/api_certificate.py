"""The certificate that an API shows its clients: an operator's own, or one of the cloud's authority."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from cumulet.ca import CertificateAuthority, Issued, check_own_certificate
from cumulet.clock import Clock
from cumulet.fleet.addresses import ANY_ADDRESS
from cumulet.settings import Settings


def issue_server(settings: Settings, authority: CertificateAuthority, own: Path) -> Issued:
    """A certificate of the cloud's own authority for the API whose folder is `own`."""
    return authority.issue_server(own / "ca" / "api", *_vouched_for(settings))


def certificate_of_api(
    settings: Settings, authority: CertificateAuthority, own: Path, clock: Clock | None = None
) -> Issued:
    """The certificate for HTTPS. Raises BadCertificate for an operator's own that cannot be used."""
    certificate, key = settings.tls_certificate_file, settings.tls_key_file
    if certificate is None or key is None:
        return issue_server(settings, authority, own)
    name = None if settings.public_url is None else urlsplit(settings.public_url).hostname
    check_own_certificate(certificate, key, name=name, clock=clock)
    return Issued(certificate=certificate, key=key, authority=settings.tls_authority_file)


def _vouched_for(settings: Settings) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names and addresses in the API's certificate: where it listens, the loopback ones, and the public name."""
    names, ips = ["localhost"], ["127.0.0.1", "::1"]
    if settings.listen_address not in (*ips, *ANY_ADDRESS):
        ips.insert(0, settings.listen_address)
    if settings.public_url is not None and (public := urlsplit(settings.public_url).hostname):
        is_address = ":" in public or public.replace(".", "").isdecimal()
        (ips if is_address else names).append(public)
    return tuple(dict.fromkeys(names)), tuple(dict.fromkeys(ips))
