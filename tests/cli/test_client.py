"""A user's view of a cloud, as commands have it."""

from __future__ import annotations

import click
import httpx
import pytest

import cumulet.testing
from cumulet.cli.client import Answer, Credentials, Persona, Unexpected, log_in
from cumulet.cli.console import _address
from cumulet.cli.namespaces import enter
from cumulet.errors import Unavailable
from cumulet.processes.parts import load_services
from cumulet.web.faults import fault_body
from cumulet.web.operation import Service


def test_a_server_is_found_on_whatever_page_it_is() -> None:
    with cumulet.testing.cloud(largest_page=1) as cloud:
        member = cloud.persona("member")
        person = Persona(name="member", http=member.http, token=member.token)
        flavor = next(one["id"] for one in person.every("/compute/v2.1/flavors", "flavors") if one["name"] == "m1.nano")
        image = person.get("/image/v2/images?name=cumulet-tiny")["images"][0]["id"]
        made = []
        for name in ("one", "two"):
            server = {"name": name, "flavorRef": flavor, "imageRef": image, "networks": "none"}
            made.append(person.must("POST", "/compute/v2.1/servers", {"server": server})["server"]["id"])
            member.wait_for_status(made[-1], "ACTIVE")
        assert sorted(one["id"] for one in person.every("/compute/v2.1/servers", "servers")) == sorted(made)
        assert all(_address(person, name).startswith("wss://") for name in ("one", "two"))
        admin, stranger = (
            Persona(name=name, http=member.http, token=cloud.persona(name).token) for name in ("admin", "other_member")
        )
        assert _address(admin, "two").startswith("wss://"), "an administrator sees every project's"
        with pytest.raises(click.ClickException, match="no server is called two, as other_member sees it"):
            _address(stranger, "two")


ERROR = Unavailable("The database\nis away.")
SERVICES = load_services()


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.type)
def test_the_sentence_of_every_services_error_is_read(service: Service) -> None:
    _, body = fault_body(service.dialect, 503, ERROR, "req-1", "application/json")
    assert Answer(503, body.decode(), {}).message == "The database is away."


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('{"message": "away", "code": 503}', "away"),
        ('{"errors": [{"status": 503, "title": "Unavailable", "detail": "it is away"}]}', "it is away"),
        ('{"NeutronError": {"type": "X", "message": "away", "detail": ""}}', "away"),
        ('{"error": {"message": {"code": 1}, "title": "Unavailable"}}', "Unavailable"),
        ('{"faultcode": "Server", "faultstring": "it broke"}', "it broke"),
        ('{"other": 1}', '{"other": 1}'),
        ("[]", "[]"),
        ('"text"', '"text"'),
        ("<html>\n503</html>", "<html>\n503</html>"),
        ("", ""),
    ],
)
def test_the_sentence_of_any_error_is_read_and_what_has_none_is_shown_as_it_is(body: str, said: str) -> None:
    assert Answer(503, body, {}).message == said


def test_who_cannot_log_in_reads_a_sentence() -> None:
    def away(_: httpx.Request) -> httpx.Response:
        return httpx.Response(503, json={"error": {"code": 503, "message": "The database is away.", "title": "No"}})

    credentials = Credentials(auth_url="https://cloud", user="admin", password="p", project="admin")
    with (
        httpx.Client(transport=httpx.MockTransport(away), base_url="https://cloud") as http,
        pytest.raises(Unexpected, match=r"\Alogging in as admin: 503 The database is away\.\Z"),
    ):
        log_in(http, "admin", credentials)


@pytest.mark.parametrize("relay", ["10.0.0.1", ":22", "10.0.0.1:", "10.0.0.1:0", "10.0.0.1:65536", "10.0.0.1:\u0663"])
def test_enter_refuses_what_is_no_address_to_relay_to(
    relay: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("cumulet.cli.namespaces._keeper", lambda _state: 1)
    monkeypatch.setattr("os.execv", lambda *_: pytest.fail("it went in"))
    with pytest.raises(SystemExit) as ended:
        enter(["--relay", relay])
    assert ended.value.code == 2
    assert "is not ADDRESS:PORT" in capsys.readouterr().err
