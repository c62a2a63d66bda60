"""Key pairs: a user's own, generated or imported."""

from __future__ import annotations

import base64
import os
import sys
import threading

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import pkcs12

from cumulet.compute import made_keys
from cumulet.db.fair_queue import LOWEST_PRIORITY, NICE
from cumulet.testing import Client, TestCloud
from tests.api.test_compute_servers import ask_for


@pytest.fixture
def public_key() -> str:
    key = ed25519.Ed25519PrivateKey.generate().public_key()
    form = serialization.PublicFormat.OpenSSH
    return key.public_bytes(serialization.Encoding.OpenSSH, form).decode() + " somebody"


def test_an_imported_key_goes_into_servers(member: Client, public_key: str) -> None:
    answer = member.compute("POST", "/os-keypairs", {"keypair": {"name": "mine", "public_key": public_key}})
    assert answer.status == 201
    assert answer["keypair"]["public_key"] == public_key
    assert len(answer["keypair"]["fingerprint"]) == 47
    server_id = ask_for(member, key_name="mine")["server"]["id"]
    assert member.server(server_id)["key_name"] == "mine"


def test_a_generated_key_is_shown_once_and_only_up_to_2_91(member: Client) -> None:
    made = member.compute("POST", "/os-keypairs", {"keypair": {"name": "made"}}, version="2.91")
    assert made["keypair"]["private_key"].startswith("-----BEGIN RSA PRIVATE KEY-----")
    assert "private_key" not in member.compute("GET", "/os-keypairs/made")["keypair"]
    assert member.compute("POST", "/os-keypairs", {"keypair": {"name": "no"}}, version="2.92").status == 400


def test_a_generated_certificate_comes_with_its_key_and_names_its_user(member: Client, admin: Client) -> None:
    wanted = {"keypair": {"name": "winrm", "type": "x509"}}
    made = member.compute("POST", "/os-keypairs", wanted, version="2.91")["keypair"]
    key, certificate, _ = pkcs12.load_key_and_certificates(base64.b64decode(made["private_key"]), None)
    assert certificate is not None
    assert certificate == x509.load_pem_x509_certificate(made["public_key"].encode())
    assert key is not None
    assert key.public_key() == certificate.public_key()
    assert certificate.subject.rfc4514_string() == f"CN={member.user_id}"
    assert f"{member.user_id}@localhost".encode() in certificate.public_bytes(serialization.Encoding.DER)
    assert member.compute("GET", "/os-keypairs/winrm")["keypair"]["fingerprint"] == made["fingerprint"]
    wanted["keypair"]["user_id"] = "u" * 65
    assert admin.compute("POST", "/os-keypairs", wanted, version="2.91").status == 400


def test_keys_belong_to_users_and_administrators_see_all(
    member: Client, manager: Client, admin: Client, public_key: str
) -> None:
    member.compute("POST", "/os-keypairs", {"keypair": {"name": "mine", "public_key": public_key}})
    assert manager.compute("GET", "/os-keypairs/mine").status == 404
    assert manager.compute("GET", f"/os-keypairs/mine?user_id={member.user_id}").status == 403
    assert admin.compute("GET", f"/os-keypairs/mine?user_id={member.user_id}").status == 200
    assert manager.compute("GET", "/os-keypairs")["keypairs"] == []


def test_a_name_is_used_once_and_is_free_again_after_deletion(member: Client, public_key: str) -> None:
    body = {"keypair": {"name": "mine", "public_key": public_key}}
    assert member.compute("POST", "/os-keypairs", body).status == 201
    assert member.compute("POST", "/os-keypairs", body).status == 409
    assert member.compute("DELETE", "/os-keypairs/mine").status == 204
    assert member.compute("DELETE", "/os-keypairs/mine").status == 404
    assert member.compute("POST", "/os-keypairs", body).status == 201


@pytest.mark.parametrize("key", ["ssh-rsa AAAA", "", "not a key", "ssh-ed25519 !!!!"])
def test_what_is_no_key_is_refused(member: Client, key: str) -> None:
    answer = member.compute("POST", "/os-keypairs", {"keypair": {"name": "mine", "public_key": key}})
    assert answer.status == 400
    assert member.compute("GET", "/os-keypairs")["keypairs"] == []


def test_the_quota_of_key_pairs_is_kept(member: Client, admin: Client, public_key: str) -> None:
    defaults = {"quota_class_set": {"key_pairs": 1}}
    assert admin.compute("PUT", "/os-quota-class-sets/default", defaults).status == 200
    first = member.compute("POST", "/os-keypairs", {"keypair": {"name": "one", "public_key": public_key}})
    second = member.compute("POST", "/os-keypairs", {"keypair": {"name": "two", "public_key": public_key}})
    assert (first.status, second.status) == (201, 403)


def test_a_key_is_made_while_no_transaction_waits_for_it_and_only_if_it_will_be_kept(
    cloud: TestCloud, member: Client, admin: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[str] = []

    def watched(user_id: str, now_us: int) -> made_keys.Pair:
        threads.append(threading.current_thread().name)
        # Whoever makes a key may take long: others write meanwhile.
        assert admin.compute("PUT", "/os-quota-class-sets/default", {"quota_class_set": {"cores": 7}}).status == 200
        return make(user_id, now_us)

    make = made_keys.ssh
    monkeypatch.setattr(made_keys, "ssh", watched)
    body = {"keypair": {"name": "made"}}
    assert member.compute("POST", "/os-keypairs", body, version="2.91").status == 201
    assert threads == ["made-keys"]
    assert member.compute("POST", "/os-keypairs", body, version="2.91").status == 409
    assert admin.compute("PUT", "/os-quota-class-sets/default", {"quota_class_set": {"key_pairs": 1}}).status == 200
    more = {"keypair": {"name": "more"}}
    assert member.compute("POST", "/os-keypairs", more, version="2.91").status == 403
    assert threads == ["made-keys"]


@pytest.mark.skipif(sys.platform != "linux", reason="threads have priorities of their own on Linux only")
def test_making_keys_gives_way_to_the_rest_of_the_api(member: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    priorities: list[int] = []

    def watched(user_id: str, now_us: int) -> made_keys.Pair:
        priorities.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        return make(user_id, now_us)

    make = made_keys.ssh
    monkeypatch.setattr(made_keys, "ssh", watched)
    assert member.compute("POST", "/os-keypairs", {"keypair": {"name": "made"}}, version="2.91").status == 201
    own = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    assert priorities == [min(own + NICE, LOWEST_PRIORITY)]


@pytest.mark.parametrize(
    "second", ["\n{key}", "\r\n{key}", "\r{key}", "\n\n{key}\n", "\ncommand=x", "\x0b{key}", "\u2028x"]
)
def test_a_public_key_is_one_line(member: Client, public_key: str, second: str) -> None:
    text = public_key + second.format(key=public_key)
    answer = member.compute("POST", "/os-keypairs", {"keypair": {"name": "two", "public_key": text}})
    assert answer.status == 400
    one = member.compute("POST", "/os-keypairs", {"keypair": {"name": "one", "public_key": public_key + "\n"}})
    assert one.status == 201  # as files end


def test_a_certificate_is_one(member: Client) -> None:
    wanted = {"keypair": {"name": "winrm", "type": "x509"}}
    certificate = member.compute("POST", "/os-keypairs", wanted, version="2.91")["keypair"]["public_key"]
    for more in (certificate, "ssh-ed25519 AAAA x"):
        two = {"keypair": {"name": "two", "type": "x509", "public_key": f"{certificate}\n{more}"}}
        assert member.compute("POST", "/os-keypairs", two).status == 400
