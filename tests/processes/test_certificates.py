"""A process that goes on for long shows certificates that are good, and tells in time where it cannot."""

from __future__ import annotations

import asyncio
import datetime
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from cryptography import x509

import cumulet.testing
from cumulet.agent.images import ImagesOfControlPlane
from cumulet.ca import CertificateAuthority, Issued
from cumulet.db.engine import opened
from cumulet.fleet import local_hosts
from cumulet.fleet.api_certificate import certificate_of_api
from cumulet.fleet.hosts import Hosts
from cumulet.fleet.local_agents import AgentProcesses
from cumulet.host.driver import DriverError, Image
from cumulet.processes.certificates import Certificates, certificates_of
from cumulet.processes.ground import Ground
from cumulet.processes.local_hosts import connect_real
from cumulet.settings import Settings
from cumulet.testing import AdvanceableClock, Client, JsonObject, TestCloud
from tests.cli.conftest import cumulet as cli
from tests.cli.test_configuration import own_certificate

DAY = 86_400


def shown_by(cloud: TestCloud) -> x509.Certificate:
    """What a client sees that trusts the cloud's authority."""
    place = urlsplit(cloud.embedded.url)
    address = (str(place.hostname), int(place.port or 0))
    return x509.load_pem_x509_certificate(ssl.get_server_certificate(address, ca_certs=str(cloud.cacert)).encode())


def look(cloud: TestCloud) -> None:
    """As its timer does."""
    found = getattr(cloud.embedded.context.certificates, "__self__")  # noqa: B009
    assert isinstance(found, Certificates)
    cloud.await_(found.round())


def told(admin: Client, name: str) -> JsonObject:
    found = admin.compute("GET", "/cumulet/control-plane")["certificates"]
    return next(one for one in found if one["name"] == name)


def test_an_api_shows_a_new_certificate_in_time_without_a_restart() -> None:
    with cumulet.testing.cloud() as cloud:
        first = shown_by(cloud)
        cloud.clock.advance(366 * DAY)
        look(cloud)
        assert shown_by(cloud) == first, "31 days are left"
        cloud.clock.advance(2 * DAY)
        while (second := shown_by(cloud)) == first:  # Its timer renews it now.
            pass
        at = datetime.datetime.fromtimestamp(cloud.clock.now_us() / 1_000_000, datetime.UTC)
        assert second.not_valid_after_utc - at > datetime.timedelta(days=395)
        admin = cloud.persona("admin")
        admin = cloud.login("admin", cloud.embedded.passwords.by_user["admin"], project={"id": admin.project_id})
        assert told(admin, "API")["days_left"] >= 395
        assert not told(admin, "API")["ends_soon"]
        lines = admin.request("GET", "/metrics").text.splitlines()
        assert 'cumulet_certificate_days_left{certificate="API"} 396.0' in lines
        assert any('days_left{certificate="authority"} 32' in line for line in lines)


def test_what_is_not_renewed_is_told_in_the_log_by_status_and_at_its_end_by_readyz(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise OSError("no room")

    def words() -> list[str]:
        return [record.getMessage() for record in caplog.records if record.name.endswith("certificates")]

    with cumulet.testing.cloud() as cloud, caplog.at_level(logging.WARNING):
        monkeypatch.setattr(CertificateAuthority, "_sign", fails)
        calm = cli("status", "--clouds-file", str(cloud.clouds_yaml))
        assert (calm.status, "ends soon" in calm.out) == (0, False), calm.err
        look(cloud)
        assert words() == []
        cloud.clock.advance(369 * DAY)
        look(cloud)
        look(cloud)
        assert [one.partition(" (")[0] for one in words()] == [
            "certificate of API: the one before is still shown: no room",
            "certificate of API: 27 days are left",
        ], "once a day"
        seen = cli("status", "--clouds-file", str(cloud.clouds_yaml))
        assert (seen.status, "ends soon" in seen.out) == (1, True), seen.out + seen.err
        nobody = Client(cloud.persona("admin").http, None)
        assert nobody.request("GET", "/readyz").status == 200
        cloud.clock.advance(29 * DAY)
        answer = nobody.request("GET", "/readyz")
        assert (answer.status, answer["status"]) == (503, "the certificate of API has ended")
        assert nobody.request("GET", "/healthz").status == 200


def test_the_end_of_the_authority_is_told_a_year_before() -> None:
    with cumulet.testing.cloud() as cloud:
        found = cloud.embedded.context.certificates
        cloud.clock.advance((3650 - 366) * DAY)
        assert [one.name for one in found() if one.soon and one.name == "authority"] == []
        cloud.clock.advance(2 * DAY)
        assert [(one.name, one.days_left) for one in found() if one.name == "authority" and one.soon] == [
            ("authority", 363)
        ]


def test_an_operators_own_certificate_is_shown_once_its_files_are_others_that_fit(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for folder in ("own", "new"):
        (tmp_path / folder).mkdir()
    certificate, key = own_certificate(tmp_path / "own")
    settings = Settings(
        state_dir=tmp_path / "state",
        database_url="sqlite://",
        public_url="https://cloud.example.org",
        tls_certificate_file=certificate,
        tls_key_file=key,
    )
    clock = AdvanceableClock()
    authority = CertificateAuthority.load_or_create(tmp_path / "ca", clock)
    kept = Certificates(authority, clock)
    again = partial(certificate_of_api, settings, authority, tmp_path, clock)
    shown: list[bytes] = []

    def show(issued: Issued) -> None:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(issued.certificate, issued.key)
        shown.append(issued.certificate.read_bytes())

    async def look() -> int:
        await kept.round()
        return len(shown)

    kept.keep("API", again(), again, show)
    assert asyncio.run(look()) == 1
    new, new_key = own_certificate(tmp_path / "new", days=90)
    certificate.write_bytes(new.read_bytes())
    assert asyncio.run(look()) == 1, "its key is not there yet"
    assert f"{key} is not the key of {certificate}" in caplog.text
    key.write_bytes(new_key.read_bytes())
    assert asyncio.run(look()) == 2
    assert shown[-1] == new.read_bytes()
    assert kept.left()[1].days_left == 89
    clock.advance(61 * DAY)
    caplog.clear()
    assert asyncio.run(look()) == 2
    assert "certificate of API: 28 days are left" in caplog.text


def test_hosts_of_this_machine_get_new_ones_and_so_does_their_door(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def nothing(*_: object) -> None:
        pass

    async def find(host: str, sha512: str) -> Path | None:
        return None

    async def receive(host: str, image_id: str, size: int, pieces: AsyncIterator[bytes]) -> None:
        raise AssertionError("no image was sent")

    async def story() -> None:
        monkeypatch.setattr(AgentProcesses, "start", nothing)
        monkeypatch.setattr(local_hosts, "networks_of", lambda _: (None, {}))
        settings = Settings(state_dir=tmp_path, database_url="sqlite://", host_names=("host1",), driver="qemu")
        clock = AdvanceableClock()
        image = Image(id="i", disk_format="raw", size_bytes=1, virtual_size_bytes=1, sha512="0" * 128)
        async with AsyncExitStack() as stack:
            ground = Ground(settings=settings, db=stack.enter_context(opened("sqlite://")), clock=clock, hosts=Hosts())
            certificates = await certificates_of(tmp_path, clock, stack)
            await connect_real(ground, certificates, (find, receive), stack)
            folder = tmp_path / "ca" / "hosts" / "host1"
            first = (folder / "client-cert.pem").read_bytes()
            clock.advance(368 * DAY)
            await certificates.round()
            assert (folder / "client-cert.pem").read_bytes() != first
            assert [(one.name, one.days_left) for one in certificates.left()][1:] == [
                ("host host1", 396),
                ("images for hosts here", 396),
            ]
            with pytest.raises(DriverError, match="not to be had: 404"):
                async for _ in ImagesOfControlPlane(local_hosts.image_socket(settings), folder).stream(image):
                    pass

    asyncio.run(story())


def test_what_others_show_is_told_once_it_is_there_and_renewed_by_them(tmp_path: Path) -> None:
    clock = AdvanceableClock()
    authority = CertificateAuthority.load_or_create(tmp_path, clock)
    kept = Certificates(authority, clock)

    def days() -> list[int]:
        kept.watch("bus", authority.bus_certificate)
        return [one.days_left for one in kept.left() if one.name == "bus"]

    assert days() == []
    authority.issue_bus("bus.cumulet")
    assert days() == [396]
    clock.advance(368 * DAY)
    asyncio.run(kept.round())
    assert days() == [28], "it is not renewed here"
    authority.issue_bus("bus.cumulet")
    asyncio.run(kept.round())
    assert days() == [396]
