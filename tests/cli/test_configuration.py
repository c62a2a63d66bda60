"""Settings: read from a file, shown with their meaning. An error is one sentence with its place."""

from __future__ import annotations

import json
import re
import shutil
import stat
import tomllib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cumulet import testing
from cumulet.cli.configuration import checked, described
from cumulet.cli.program import run

from .conftest import cumulet, up
from .test_up import logged_in


def refused(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 2) -> str:
    assert run(list(arguments)) == status
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1, captured.err
    return captured.err


@pytest.mark.parametrize(
    ("content", "line", "words"),
    [
        ("listen_port = 9000\nlease_second = 5\n", 2, "there is no setting 'lease_second'"),
        ("\n\nlisten_port = 'soon'\n", 3, "Expected `int`"),
        ("listen_port = 70000", 1, "65535"),
        ("listen_port = true", 1, "Expected `int`"),
        ("hosts = -1", 1, "0 to 10000"),
        ("hosts = 10001", 1, "0 to 10000"),
        ("host_silent_seconds = 0", 1, "> 0.0"),
        ("lease_seconds = nan", 1, "> 0.0"),
        ("lease_seconds = inf", 1, "expected a number up to 604800"),
        ("token_life_seconds = 1000000000000000", 1, "1 to 3153600000"),
        ("a = 1\nlease_seconds = \n", 2, "Invalid value"),
        ("listen_port = 1\nlisten_port = 2", 2, "Cannot overwrite"),
        ('log_level = "loud"', 1, "expected one of debug, info, warning, error"),
        ('driver = "vmware"', 1, "expected one of auto, simulated, qemu"),
        ('bus = "http://h"', 1, "expected this form: `nats://ADDRESS:PORT`"),
        ('guest_uids = "some"', 1, "expected this form: `FIRST-LAST`"),
        ('web_download_hosts = ":"', 1, "expected this form: `HOST`, `*.DOMAIN` or `*`, several with commas between"),
        ('web_download_hosts = "example.org,"', 1, "expected this form: `HOST`, `*.DOMAIN` or `*`"),
        ('web_download_hosts = "example.*"', 1, "expected this form: `HOST`, `*.DOMAIN` or `*`"),
        ('listen_address = "localhost"', 1, "'localhost' is no IP address"),
        ('listen_address = "256.0.0.1"', 1, "'256.0.0.1' is no IP address"),
        ("[cloud]\nlisten_port = 1", 1, "there is no setting 'cloud'"),
        ('database_url = "mysql://u:secret@h/n"', 1, "there is no database 'mysql'"),
        ('password_regex = "(a"', 1, "expected a regular expression: missing )"),
        ('[host_networks]\nhost1 = "somewhere"', 1, "host1=somewhere"),
        ('public_url = "http://cloud.example.org"', 1, "expected this form: `https://NAME[:PORT]`"),
    ],
)
def test_a_mistake_in_the_file_is_told_with_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, line: int, words: str
) -> None:
    require_told(tmp_path, capsys, content, line, words, status=2)


@pytest.mark.parametrize(
    ("content", "line", "words"),
    [
        ('# where\npolicy_file = "/nowhere/policy.yaml"', 2, "cannot read /nowhere/policy.yaml: No such file"),
        ('log_file = "/nowhere/log"', 1, "there is no folder /nowhere"),
        ('database_url = "sqlite:////nowhere/c.db"', 1, "there is no folder /nowhere"),
    ],
)
def test_what_the_machine_lacks_now_is_told_with_its_line_and_is_no_mistake(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, line: int, words: str
) -> None:
    """A file system that is not mounted yet: systemd tries again (`test_exit_status.py`)."""
    require_told(tmp_path, capsys, content, line, words, status=1)


def require_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, line: int, words: str, *, status: int
) -> None:
    """Each command that reads a file with this content ends, and says why and where."""
    file = tmp_path / "cumulet.toml"
    file.write_text(content)
    for command in ("up", "settings"):
        told = refused(capsys, command, "--config", str(file), status=status)
        assert f"{file} line {line}: " in told
        assert words in told
        assert "secret" not in told


@pytest.mark.parametrize("hosts", ["", "*", "example.org", "*.example.org, images.example.net", " *.org ,a-b.example"])
def test_hosts_to_import_images_from(hosts: str) -> None:
    assert checked("web_download_hosts", hosts, text=True) == hosts


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("mysql://u@host/name", "there is no database 'mysql'"),
        ("cumulet.db", "postgresql://USER:PASSWORD@HOST/NAME or sqlite:///FILE"),
        ("sqlite:////tmp", "/tmp is a folder"),
        ("sqlite://", "name a file"),
    ],
)
def test_a_database_that_cannot_be_is_one_sentence(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, url: str, words: str
) -> None:
    for option in (["--database", url], ["--set", f"database_url={url}"]):
        told = refused(capsys, "up", "--state", str(tmp_path / "state"), *option)
        assert words in told


def test_a_setting_that_this_machine_cannot_keep_is_one_sentence(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _program: None)
    options = ("--driver", "simulated", "--listen", "127.0.0.1:0", "--set", "image_conversion_output_format=raw")
    told = refused(capsys, "up", "--state", str(tmp_path / "state"), *options, status=1)
    assert "image_conversion_output_format: qemu-img is not installed" in told


def test_a_password_that_others_could_see_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = "postgresql://u:secret@h/n"
    for option in ("--database", url), ("--set", f"database_url={url}"):
        told = refused(capsys, "up", "--state", str(tmp_path / "state"), *option)
        assert "seen by every user" in told
        assert "secret" not in told
    file = tmp_path / "cumulet.toml"
    file.write_text(f'database_url = "{url}"')
    file.chmod(0o644)
    assert f"{file} line 1: everybody can read" in refused(capsys, "settings", "--config", str(file))


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "No such file" in refused(capsys, "up", "--config", str(tmp_path / "none.toml"), status=1)
    (tmp_path / "latin.toml").write_bytes(b'region = "one"\nregion2 = "\xe4"\n')
    assert "latin.toml line 2: not UTF-8" in refused(capsys, "up", "--config", str(tmp_path / "latin.toml"))
    assert "Is a directory" in refused(capsys, "up", "--config", str(tmp_path))


def test_every_setting_is_shown_with_its_meaning_and_the_whole_is_a_configuration_file(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run(["settings"]) == 0
    shown = capsys.readouterr().out
    for name, known in described().items():
        assert known.meaning.endswith("."), name
        assert re.search(rf"^# {name} = ", shown, re.MULTILINE), name
    assert tomllib.loads(shown) == {}
    file = tmp_path / "cumulet.toml"
    file.touch(mode=0o600)
    file.write_text(
        'listen_port = 9000\ndatabase_url = "postgresql://u:very-secret@h/n"\n[host_networks]\nhost1 = "::1"'
    )
    assert run(["settings", "--config", str(file), "--set", "region=North", "--set", "log_level=debug"]) == 0
    shown = capsys.readouterr().out
    assert "very-secret" not in shown
    given = tomllib.loads(shown)
    assert (given["listen_port"], given["region"], given["log_level"]) == (9000, "North", "debug")
    assert given["host_networks"] == {"host1": "::1"}
    assert f"# default: 8774; set by {file} line 1" in shown
    assert '# default: "RegionOne"; set by --set' in shown


@pytest.mark.parametrize(
    ("sets", "words"),
    [
        (("listen_port=8775",), "listen_port (--listen) and hosts_port are both 8775"),
        (("hosts_port=9000", "bus_port=9000"), "hosts_port and bus_port are both 9000"),
        (("listen_port=4222",), "listen_port (--listen) and bus_port are both 4222"),
    ],
)
def test_two_doors_of_a_process_at_one_port_are_refused(
    sets: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    options = [part for one in sets for part in ("--set", one)]
    told = refused(capsys, "up", "--state", str(tmp_path / "state"), "--driver", "simulated", *options)
    assert words in told
    assert not (tmp_path / "state").exists()


def numbers_of(kind: object) -> list[msgspec.inspect.IntType | msgspec.inspect.FloatType]:
    found = msgspec.inspect.type_info(kind)
    choices = found.types if isinstance(found, msgspec.inspect.UnionType) else (found,)
    return [one for one in choices if isinstance(one, msgspec.inspect.IntType | msgspec.inspect.FloatType)]


NUMBERS = {name: one for name, known in described().items() for one in numbers_of(known.type)}


def test_every_number_among_the_settings_is_tried() -> None:
    assert len(NUMBERS) > 40
    assert {"hosts", "listen_port", "token_life_seconds", "lease_seconds"} <= NUMBERS.keys()


@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_has_a_bound_and_what_is_beyond_it_is_one_sentence(
    name: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    most = NUMBERS[name].le
    assert most is not None, "what is computed from a number without a bound fails later"
    assert checked(name, most, text=False) == most
    file = tmp_path / "cumulet.toml"
    for beyond in (int(most) + 1, 10**15, 10**20, 10**400):
        file.write_text(f"{name} = {beyond}")
        state = ("--state", str(tmp_path / "state"), "--driver", "simulated", "--listen", "127.0.0.1:0")
        told = refused(capsys, "up", *state, "--set", f"{name}={beyond}")
        assert f"'{name}={str(beyond)[:9]}" in told
        assert refused(capsys, "settings", "--config", str(file)).startswith("cumulet: error: ")
    assert not (tmp_path / "state").exists()


NOT_TRIED = {"hosts", "listen_port", "hosts_port", "bus_port", "argon2_memory_kib"}
"""Counts of hosts, ports that this machine may have in use, and a GiB of memory for each password."""


def test_a_cloud_works_with_every_number_at_its_bound() -> None:
    most: testing.JsonObject = {name: one.le for name, one in NUMBERS.items() if name not in NOT_TRIED}
    with testing.cloud(hosts=2, **most) as cloud:
        member, admin = cloud.persona("member"), cloud.persona("admin")
        flavor = member.compute("GET", "/flavors")["flavors"][0]["id"]
        image = member.request("GET", "/image/v2/images")["images"][0]["id"]
        body = {"server": {"name": "s", "flavorRef": flavor, "imageRef": image, "networks": "none"}}
        server = member.compute("POST", "/servers", body, version="2.37")["server"]["id"]
        member.wait_for_status(server, "ACTIVE")
        moved = {"os-migrateLive": {"host": None, "block_migration": "auto"}}
        assert admin.compute("POST", f"/servers/{server}/action", moved, version="2.25").status == 202
        member.wait_for_status(server, "ACTIVE")
        assert member.compute("POST", f"/servers/{server}/action", {"shelve": None}).status == 202
        user = {"user": {"name": "u", "password": "long-and-good-1"}}
        assert admin.request("POST", "/identity/v3/users", user).status == 201
        for path in ("/compute/v2.1/os-hypervisors/detail", "/compute/v2.1/limits", "/image/v2/info/usage"):
            assert admin.request("GET", path).status == 200, path
        assert admin.request("GET", "/identity/v3/users").status == 200


def test_an_option_goes_before_set_and_that_before_the_file(tmp_path: Path) -> None:
    file = tmp_path / "cumulet.toml"
    log = tmp_path / "cumulet.log"
    file.write_text(
        f'hosts = 3\nregion = "File"\nbare = true\nlog_file = "{log}"\nlog_level = "info"\ntoken_life_seconds = 60\n'
    )
    with up(tmp_path / "state", "--config", str(file), "--hosts", "1", "--set", "region=Set") as cloud:
        admin = logged_in(cloud)
        hosts = admin.get("/compute/v2.1/os-services?binary=nova-compute")["services"]
        assert [host["host"] for host in hosts] == ["host1"]
        assert yaml.safe_load(cloud.clouds_file.read_text())["clouds"]["demo"]["region_name"] == "Set"
        assert admin.get("/compute/v2.1/flavors")["flavors"] == []
        assert cloud.stop() == 0
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert {"INFO"} <= {line["level"] for line in lines}


def test_people_get_people_s_lines(tmp_path: Path) -> None:
    with up(tmp_path / "state", "--bare", "--set", "log_format=text", "--set", "log_level=info") as cloud:
        logged_in(cloud)
        assert cloud.stop() == 0
        lines = cloud.log.read_text().splitlines()
    assert [line for line in lines if re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d INFO ", line)]
    assert not [line for line in lines if line.startswith("{")]


def test_another_driver_or_fewer_hosts_than_the_state_has_are_refused(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with up(state, "--hosts", "2") as cloud:
        admin = logged_in(cloud)
        flavor = next(one["id"] for one in admin.get("/compute/v2.1/flavors")["flavors"] if one["name"] == "m1.nano")
        image = admin.get("/image/v2/images")["images"][0]["id"]
        body = {"name": "one", "flavorRef": flavor, "imageRef": image, "networks": "none", "host": "host2"}
        created = admin.must("POST", "/compute/v2.1/servers", {"server": body})["server"]["id"]
        while admin.get(f"/compute/v2.1/servers/{created}")["server"]["status"] == "BUILD":
            pass
        assert cloud.stop() == 0
    where = ("up", "--state", str(state), "--listen", "127.0.0.1:0")
    other = cumulet(*where, "--driver", "qemu")
    assert (other.status, other.out) == (1, "")
    assert "the state was made with --driver simulated" in other.err
    fewer = cumulet(*where, "--hosts", "1")
    assert (fewer.status, fewer.out) == (1, "")
    assert "host2 still has servers (1)" in fewer.err
    assert "Traceback" not in other.err + fewer.err
    with up(state, "--hosts", "3") as cloud:  # More are fine, and so is the driver of the state without a word.
        assert logged_in(cloud).get(f"/compute/v2.1/servers/{created}")["server"]["status"] == "ACTIVE"


# -- a certificate of one's own


def own_certificate(folder: Path, name: str = "cloud.example.org", days: int = 1) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=2))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=True)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    files = folder / "own.pem", folder / "own.key"
    files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    files[1].chmod(0o600)
    return files


def tls(certificate: Path, key: Path, url: str | None = "https://cloud.example.org:8774") -> list[str]:
    sets = [f"tls_certificate_file={certificate}", f"tls_key_file={key}", f"tls_authority_file={certificate}"]
    sets += [] if url is None else [f"public_url={url}"]
    return [word for one in sets for word in ("--set", one)]


def test_https_is_served_with_a_certificate_of_one_s_own(tmp_path: Path) -> None:
    import socket
    import ssl

    certificate, key = own_certificate(tmp_path)
    with up(tmp_path / "state", "--bare", *tls(certificate, key)) as cloud:
        assert cloud.url == "https://cloud.example.org:8774/"
        entry = yaml.safe_load(cloud.clouds_file.read_text())["clouds"]["cumulet"]
        assert entry["auth"]["auth_url"] == "https://cloud.example.org:8774/identity/v3"
        assert entry["cacert"] == str(certificate)
        table = Path(f"/proc/{cloud.process.pid}/net/tcp").read_text().splitlines()[1:]
        inodes = {path.readlink().name for path in Path(f"/proc/{cloud.process.pid}/fd").iterdir() if path.is_symlink()}
        [port] = [
            int(fields[1].partition(":")[2], 16)
            for fields in map(str.split, table)
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in inodes
        ]
        context = ssl.create_default_context(cafile=str(certificate))
        with (
            socket.create_connection(("127.0.0.1", port)) as plain,
            context.wrap_socket(plain, server_hostname="cloud.example.org") as secure,
        ):
            assert secure.getpeercert(binary_form=True) == ssl.PEM_cert_to_DER_cert(certificate.read_text())


def test_a_certificate_that_cannot_be_served_with_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["up", "--state", str(tmp_path / "state"), "--listen", "127.0.0.1:0", "--driver", "simulated", "--bare"]
    certificate, key = own_certificate(tmp_path)

    def told(*options: str, status: int = 1) -> str:
        return refused(capsys, *where, *options, status=status)

    assert "need each other" in told("--set", f"tls_certificate_file={certificate}", status=2)
    assert "public_url" in told(*tls(certificate, key, None))
    assert "vouch for other.example.org" in told(*tls(certificate, key, "https://other.example.org"))
    key.chmod(0o644)
    assert "readable by others" in told(*tls(certificate, key))
    key.chmod(0o600)
    (tmp_path / "second").mkdir()
    _, other_key = own_certificate(tmp_path / "second")
    assert "is not the key of" in told(*tls(certificate, other_key))
    assert "must be PEM" in told(*tls(key, key))
    certificate, key = own_certificate(tmp_path, days=-1)
    assert "renew it" in told(*tls(certificate, key))
