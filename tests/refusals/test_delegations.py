"""What Identity refuses of credentials, application credentials and trusts, and no story comes upon."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

import pytest
import sqlalchemy as sa

from cumulet.clock import iso_us
from cumulet.identity.credential_store import credentials
from cumulet.testing import Answer, Client
from tests.api.identity.aws import Signer

from .table import Refusal, Scene, table

REFUSALS, refused = table()
UNKNOWN = "0" * 32


# -- credentials


def kept(scene: Scene, blob: object, kind: str = "ec2", **attributes: object) -> Answer:
    who = scene.member
    text = blob if isinstance(blob, str) else json.dumps(blob)
    body = {"type": kind, "blob": text, "user_id": who.user_id, "project_id": who.project_id, **attributes}
    return scene.identity("POST", "/credentials", {"credential": body}, who=who)


def ec2(scene: Scene) -> dict[str, str]:
    """A new EC2 credential: access and secret."""
    who = scene.member
    answer = scene.identity("POST", f"/users/{who.user_id}/credentials/OS-EC2", {"tenant_id": who.project_id}, who=who)
    assert answer.status == 201, answer.text
    found: dict[str, str] = answer["credential"]
    return found


@refused(400, "Invalid blob in credential")
def an_ec2_credential_that_is_no_json(scene: Scene) -> Answer:
    return kept(scene, "{")


@refused(400, "Invalid blob in credential")
def an_ec2_credential_that_is_nested_too_deep(scene: Scene) -> Answer:
    return kept(scene, "[" * 16_000)


@refused(400, "Expecting to find blob in credential")
def an_ec2_credential_that_is_no_object(scene: Scene) -> Answer:
    return kept(scene, [])


@refused(400, "Expecting to find access in credential")
def an_ec2_credential_without_an_access_key(scene: Scene) -> Answer:
    return kept(scene, {"secret": "s"})


@refused(400, "secret must be a string")
def an_ec2_credential_whose_secret_is_no_text(scene: Scene) -> Answer:
    return kept(scene, {"access": scene.new_name(), "secret": 1})


@refused(400, "Expecting to find project_id in credential")
def an_ec2_credential_without_a_project(scene: Scene) -> Answer:
    return kept(scene, {"access": scene.new_name(), "secret": "s"}, project_id=None)


@refused(409, "Duplicate entry")
def an_access_key_that_somebody_has(scene: Scene) -> Answer:
    return kept(scene, {"access": ec2(scene)["access"], "secret": "s"})


@refused(401, "EC2 access key not found")
def an_access_key_of_another_kind_of_credential(scene: Scene) -> Answer:
    """No request makes one."""
    who, access = scene.member, ec2(scene)["access"]
    other = sa.update(credentials).where(credentials.c.user_id == who.user_id).values(type="cert")
    scene.cloud.embedded.db.write(lambda tx: tx.execute(other))
    return scene.identity("GET", f"/users/{who.user_id}/credentials/OS-EC2/{access}", who=who)


# -- signed requests


def signed(scene: Scene, made: dict[str, str] | None = None) -> Signer:
    made = made or ec2(scene)
    return Signer(scene.cloud.clock.now_us(), made["access"], made["secret"])


def entered(scene: Scene, content: Mapping[str, object], path: str = "/ec2tokens") -> Answer:
    return scene.identity("POST", path, {"credentials": content})


@refused(404, "")
def a_signature_with_a_credential_that_has_no_secret(scene: Scene) -> Answer:
    access = scene.new_name()
    assert kept(scene, {"access": access}).status == 201
    return entered(scene, signed(scene, {"access": access, "secret": "s"}).version_2())


@refused(401, "host is no text")
def a_signed_host_that_is_no_text(scene: Scene) -> Answer:
    return entered(scene, signed(scene).version_2(host=1))


@refused(401, "params is no object")
def signed_parameters_that_are_a_list(scene: Scene) -> Answer:
    return entered(scene, signed(scene).version_2(params=["a"]))


@refused(401, "does not say when it was signed")
def a_signature_of_no_time(scene: Scene) -> Answer:
    return entered(scene, signed(scene).version_2(without=["Timestamp"]))


@refused(401, "Credential timestamp is invalid")
def a_signature_of_a_time_that_is_none(scene: Scene) -> Answer:
    return entered(scene, signed(scene).version_2(signed_at="yesterday"))


@refused(401, "Invalid EC2 signature")
def a_signature_whose_scope_is_cut_short(scene: Scene) -> Answer:
    signer = signed(scene)
    headers = {"Authorization": f"AWS4-HMAC-SHA256 Credential={signer.access}/day,SignedHeaders=host,Signature=0"}
    return entered(scene, signer.version_4(headers=headers))


@refused(401, "Request date mismatch")
def a_signature_of_another_day_than_its_scope(scene: Scene) -> Answer:
    content = signed(scene).version_4()
    content["headers"]["X-Amz-Date"] = "19990101T000000Z"
    return entered(scene, content)


@refused(401, "Invalid EC2 signature")
def signed_text_that_is_no_base64(scene: Scene) -> Answer:
    return entered(scene, signed(scene).s3(token="a"), "/s3tokens")


@refused(401, "Invalid EC2 signature")
def signed_text_of_another_form(scene: Scene) -> Answer:
    return entered(scene, signed(scene).s3(token=base64.urlsafe_b64encode(b"one line").decode()), "/s3tokens")


# -- application credentials


def credential(scene: Scene, who: Client | None = None, **attributes: object) -> Answer:
    who = who or scene.member
    body = {"name": scene.new_name(), **attributes}
    path = f"/users/{who.user_id}/application_credentials"
    return scene.identity("POST", path, {"application_credential": body}, who=who)


@refused(400, "must not be before now")
def an_end_that_has_passed(scene: Scene) -> Answer:
    return credential(scene, expires_at="2001-01-01T00:00:00")


@refused(409, "Duplicate entry")
def a_second_one_of_a_name(scene: Scene) -> Answer:
    name = scene.new_name()
    assert credential(scene, name=name).status == 201
    return credential(scene, name=name)


@refused(400, "Could not find role")
def one_with_a_role_that_is_not(scene: Scene) -> Answer:
    return credential(scene, roles=[{"id": UNKNOWN}])


@refused(400, "service, method and path are needed")
def half_an_access_rule(scene: Scene) -> Answer:
    return credential(scene, access_rules=[{"path": "/v2.1/servers"}])


@refused(403, "at most 500 access rules")
def one_access_rule_too_many(scene: Scene) -> Answer:
    def rules(first: int) -> list[dict[str, str]]:
        return [{"service": "compute", "method": "GET", "path": f"/{n}"} for n in range(first, first + 100)]

    who = scene.cloud.persona("reader")
    for first in range(0, 500, 100):
        assert credential(scene, who, access_rules=rules(first)).status == 201
    return credential(scene, who, access_rules=rules(500)[:1])


@refused(400, "a token for a project is needed")
def one_without_a_project(scene: Scene) -> Answer:
    name, password = scene.new_name(), "a-password-of-its-own"
    body = {"user": {"name": name, "password": password}}
    assert scene.identity("POST", "/users", body).status == 201
    return credential(scene, scene.cloud.login(name, password))


# -- trusts


def trust(scene: Scene, who: Client | None = None, **attributes: object) -> Answer:
    who = who or scene.member
    body = {
        "trustor_user_id": who.user_id,
        "trustee_user_id": scene.cloud.persona("reader").user_id,
        "project_id": scene.member.project_id,
        "impersonation": False,
        "roles": [{"name": "member"}],
        **attributes,
    }
    return scene.identity("POST", "/OS-TRUST/trusts", {"trust": body}, who=who)


def given(scene: Scene, **attributes: Any) -> Client:
    """Who was given a trust that may be passed on, with its token."""
    name, password = scene.new_name(), "a-password-of-its-own"
    body = {"user": {"name": name, "password": password}}
    trustee = scene.identity("POST", "/users", body)["user"]["id"]
    answer = trust(scene, trustee_user_id=trustee, allow_redelegation=True, **attributes)
    assert answer.status == 201, answer.text
    return scene.cloud.login(name, password, **{"OS-TRUST:trust": {"id": answer["trust"]["id"]}})


@refused(400, "trusts are for projects")
def a_trust_for_no_project(scene: Scene) -> Answer:
    return trust(scene, project_id=None)


@refused(400, "remaining_uses must not be set")
def a_trust_to_pass_on_that_is_used_up(scene: Scene) -> Answer:
    return trust(scene, allow_redelegation=True, remaining_uses=2)


@refused(403, "Requested redelegation depth of 4")
def a_trust_to_pass_on_too_often(scene: Scene) -> Answer:
    return trust(scene, allow_redelegation=True, redelegation_count=4)


@refused(403, 'Modifying \\"redelegation_count\\"')
def a_trust_passed_on_with_another_count(scene: Scene) -> Answer:
    return trust(scene, given(scene), allow_redelegation=True, redelegation_count=1)


@refused(403, 'Field \\"remaining_uses\\" is set to 2')
def a_trust_passed_on_for_two_uses(scene: Scene) -> Answer:
    return trust(scene, given(scene), remaining_uses=2)


@refused(403, "Requested expiration time is more than")
def a_trust_passed_on_for_longer(scene: Scene) -> Answer:
    def after(seconds: int) -> str:
        return str(iso_us(scene.cloud.clock.now_us() + seconds * 1_000_000))

    return trust(scene, given(scene, expires_at=after(3600)), expires_at=after(7200))


@refused(403, "Some of requested roles are not in")
def a_trust_passed_on_with_more_roles(scene: Scene) -> Answer:
    return trust(scene, given(scene, roles=[{"name": "reader"}]))


@refused(403, "Impersonation is not allowed")
def a_trust_passed_on_to_act_as_the_trustor(scene: Scene) -> Answer:
    return trust(scene, given(scene), impersonation=True)


@refused(403, "for its own project only")
def a_trust_passed_on_for_another_project(scene: Scene) -> Answer:
    return trust(scene, given(scene), project_id=scene.admin.project_id)


@pytest.mark.parametrize("refusal", REFUSALS, ids=lambda refusal: refusal.name)
def test_it_is_refused(scene: Scene, refusal: Refusal) -> None:
    refusal.check(scene)
