"""Whatever users send and get that is secret is in no log line and not in the audit trail."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

import cumulet.testing
from cumulet.testing import Client, TestCloud


class Lines(logging.Handler):
    """Every record of every logger but those of the test's own HTTP client, formatted."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.text: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if not record.name.startswith(("httpx", "httpcore")):
            self.text.append(self.format(record) + repr(record.__dict__))


@pytest.fixture
def lines() -> Iterator[Lines]:
    root = logging.getLogger()
    before, handler = root.level, Lines()
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield handler
    root.setLevel(before)
    root.removeHandler(handler)


def use_secrets(cloud: TestCloud) -> set[str]:
    """Log in, fail to, make users, key pairs and servers, break things; the secrets that were used."""
    admin = cloud.persona("admin")
    secrets = {admin.token or "", *cloud.embedded.passwords.by_user.values()}
    for password in ("wrong-password-1234", "wrong\x00password"):
        with pytest.raises(PermissionError):
            cloud.login("admin", password, project={"name": "admin", "domain": {"id": "default"}})
        secrets.add(password)
    user = {"user": {"name": "u", "domain_id": "default", "password": "a-new-users-password"}}
    made = admin.request("POST", "/identity/v3/users", user)["user"]
    change = {"user": {"password": "the-next-password", "original_password": "a-new-users-password"}}
    assert admin.request("POST", f"/identity/v3/users/{made['id']}/password", change).status == 204
    secrets |= {"a-new-users-password", "the-next-password"}
    admin.request("POST", "/identity/v3/users", {"user": {"name": 5, "password": "in-a-wrong-body"}})
    secrets.add("in-a-wrong-body")
    pair = admin.compute("POST", "/os-keypairs", {"keypair": {"name": "k"}}, version="2.1")
    secrets.add(pair["keypair"]["private_key"].splitlines()[2])
    image = admin.request("GET", "/image/v2/images")["images"][0]["id"]
    flavor = admin.compute("GET", "/flavors")["flavors"][0]["id"]
    server = {
        "name": "s",
        "imageRef": image,
        "flavorRef": flavor,
        "networks": "none",
        "user_data": "c2VjcmV0LXVzZXItZGF0YQ==",
    }
    cloud.faults.fail("boot", step="create_guest")
    created = admin.compute("POST", "/servers", {"server": server})
    secrets |= {"c2VjcmV0LXVzZXItZGF0YQ==", created["server"]["adminPass"]}
    cloud.idle()
    stolen = Client(cloud.anonymous().http, "gAAAAABstolen-token-of-somebody")
    stolen.compute("GET", "/servers?token=gAAAAABin-a-query")
    return secrets | {"gAAAAABstolen-token-of-somebody", "gAAAAABin-a-query"}


def test_no_secret_in_any_log_line_nor_in_the_audit_trail(lines: Lines) -> None:
    with cumulet.testing.cloud(hosts=2) as cloud:
        secrets = use_secrets(cloud)
        audit = (cloud.embedded.settings.state_dir / "audit.jsonl").read_text(encoding="utf-8")
    logged = "\n".join(lines.text)
    assert "POST" in logged, "the access log was on"
    assert audit.count("\n") > 5
    assert [secret for secret in secrets if secret in logged or secret in audit] == []
