"""/credentials and a user's EC2 credentials: secrets that users keep here, sealed in the database."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, TypedDict

from msgspec.structs import asdict
from sqlalchemy import delete, func, insert, select, update

from cumulet.db.engine import Tx
from cumulet.errors import BadRequest, Conflict, Forbidden, Unauthorized
from cumulet.identity import holding, store
from cumulet.identity.api import (
    ADMIN,
    ANYWHERE,
    IDENTITY,
    NOT_DOMAIN,
    SYSTEM_READER,
    collection,
    known,
    member,
    new_id,
    refuse_delegated,
)
from cumulet.identity.credential_store import (
    Credential,
    credential_by_id,
    credentials,
    credentials_of,
    id_of_access,
    id_of_content,
)
from cumulet.identity.immutable import given_extra
from cumulet.identity.listing import On, filtered
from cumulet.identity.one_time_passwords import TOTP, refuse_long_secret, refuse_too_many_devices
from cumulet.identity.service import Identity
from cumulet.web.operation import Call, Rule
from cumulet.web.policy import rule
from cumulet.web.schema import UNSET, Body, Json, Query, Unset

_OWN = "user_id:%(target.credential.user_id)s"
_CHANGE = f"({ADMIN}) or {_OWN}"
GET = rule("identity:get_credential", f"({ADMIN}) or {SYSTEM_READER} or {_OWN}", scope=ANYWHERE)
LIST = rule("identity:list_credentials", f"({ADMIN}) or {SYSTEM_READER} or {_OWN}", scope=ANYWHERE)
CREATE = rule("identity:create_credential", _CHANGE, scope=ANYWHERE)
UPDATE = rule("identity:update_credential", _CHANGE, scope=ANYWHERE)
DELETE = rule("identity:delete_credential", _CHANGE, scope=ANYWHERE)
_CHANGE_EC2 = f"({ADMIN}) or (role:member and {_OWN})"
GET_EC2 = rule("identity:ec2_get_credential", f"({ADMIN}) or {SYSTEM_READER} or {_OWN}", scope=NOT_DOMAIN)
LIST_EC2 = rule("identity:ec2_list_credentials", f"({ADMIN}) or {SYSTEM_READER} or rule:owner", scope=NOT_DOMAIN)
CREATE_EC2 = rule("identity:ec2_create_credential", _CHANGE_EC2, scope=NOT_DOMAIN)
DELETE_EC2 = rule("identity:ec2_delete_credential", _CHANGE_EC2, scope=NOT_DOMAIN)

MOST_OF_USER = 100
"""Credentials of one user."""
LONGEST_BLOB = 16_384
EC2 = "ec2"
_DELEGATED = (
    "You are not authorized to perform the requested action: Delegated tokens cannot access credentials directly."
)
_LIMITS = ("trust_id", "app_cred_id", "access_token_id")

Blob = Annotated[str, Json({"maxLength": LONGEST_BLOB})]


class NewCredential(Body, extra="allow", secret=True):
    blob: Blob
    type: Annotated[str, Json({"minLength": 1, "maxLength": 255, "format": "one line"})]
    user_id: Annotated[str, Json({"minLength": 1, "maxLength": 64})]
    project_id: Annotated[str | None, Json({"maxLength": 64})] = None


class CredentialChanges(Body, extra="allow", secret=True):
    """Clients send what stays as it is, too."""

    blob: Blob | Unset = UNSET
    type: Annotated[str, Json({"minLength": 1, "maxLength": 255, "format": "one line"})] | Unset = UNSET
    user_id: Annotated[str, Json({"minLength": 1, "maxLength": 64})] | Unset = UNSET
    project_id: Annotated[str | None, Json({"maxLength": 64})] | Unset = UNSET


def _view(call: Call[object, object], credential: Credential) -> dict[str, object]:
    return {
        **credential.extra,
        "id": credential.id,
        "type": credential.type,
        "user_id": credential.user_id,
        "project_id": credential.project_id,
        "blob": _blob(call, credential),
        "links": member(call, "credentials", credential.id),
    }


def _blob(call: Call[object, object], credential: Credential) -> str:
    identity = Identity.of(call)
    opened = identity.credential_keys.open(credential.sealed)
    if opened is None:
        raise RuntimeError(f"the key of the credential {credential.id} is not there")
    return opened.decode("utf-8", "surrogatepass")


def _sealed(call: Call[object, object], blob: str) -> str:
    identity = Identity.of(call)
    return identity.credential_keys.seal(blob.encode("utf-8", "surrogatepass"))


def credential_in_path(call: Call[object, object]) -> Credential | None:
    return credential_by_id(call.tx, call.path["credential_id"])


def credential_facts(call: Call[Credential | None, object]) -> Mapping[str, object]:
    return {"target.credential.user_id": call.target.user_id} if call.target else {}


def new_credential_facts(call: Call[None, NewCredential]) -> Mapping[str, object]:
    return {"target.credential.user_id": call.body.user_id}


def list_facts(call: Call[object, object]) -> Mapping[str, object]:
    """With a token for the system the caller sees all credentials or is refused. Others see their own."""
    return {} if call.caller.system else {"target.credential.user_id": call.caller.user_id}


class ListCredentials(Query):
    user_id: Annotated[str | Unset, On(credentials.c.user_id)] = UNSET
    type: Annotated[str | Unset, On(credentials.c.type)] = UNSET


@IDENTITY.operation("GET", "/credentials", rules=(Rule(LIST),), facts=list_facts, query=ListCredentials)
def list_credentials(call: Call[None, None]) -> dict[str, object]:
    """List credentials: one's own or, for administrators, all."""
    refuse_delegated(call, _DELEGATED)
    statement = filtered(call, select(credentials)).order_by(credentials.c.id).limit(call.cloud.settings.largest_page)
    if not call.authorise(GET, {}):
        statement = statement.where(credentials.c.user_id == call.caller.user_id)
    found = store.many(call.tx, Credential, statement)
    return collection(call, "credentials", "credentials", [_view(call, credential) for credential in found])


@IDENTITY.operation(
    "GET", "/credentials/{credential_id}", rules=(Rule(GET),), target=credential_in_path, facts=credential_facts
)
def show_credential(call: Call[Credential | None, None]) -> dict[str, object]:
    """Show a credential."""
    refuse_delegated(call, _DELEGATED)
    return {"credential": _view(call, known(call.target, "credential", call.path["credential_id"]))}


@IDENTITY.operation(
    "POST",
    "/credentials",
    rules=(Rule(CREATE),),
    facts=new_credential_facts,
    body=NewCredential,
    body_key="credential",
    success=201,
)
def create_credential(call: Call[None, NewCredential]) -> dict[str, object]:
    """Keep a secret of a user's: an EC2 key, the secret of a TOTP device, a certificate."""
    refuse_delegated(call, _DELEGATED)
    body = call.body
    identifier = new_id(call.cloud.clock)
    if body.type.lower() == EC2:
        if body.project_id is None:
            raise BadRequest("Expecting to find project_id in credential.")
        identifier = id_of_access(_ec2_access(body.blob))
    credential = _keep(call, identifier, body.user_id, body.project_id, body.type, body.blob, given_extra(body))
    return {"credential": _view(call, credential)}


def _keep(
    call: Call[object, object],
    identifier: str,
    user_id: str,
    project_id: str | None,
    kind: str,
    blob: str,
    extra: dict[str, object],
) -> Credential:
    tx = call.tx
    known(store.user_by_id(tx, user_id), "user", user_id)
    if project_id is not None:
        for_all = call.authorise(CREATE, {})
        project = store.project_by_id(tx, project_id) if for_all else holding.project_of(tx, user_id, project_id)
        known(project, "project", project_id)
    _refuse_too_many(tx, user_id)
    if kind == TOTP:
        refuse_long_secret(blob)
        refuse_too_many_devices(tx, user_id)
    if credential_by_id(tx, identifier) is not None:
        raise Conflict("Conflict occurred attempting to store credential - Duplicate entry found.")
    credential = Credential(
        id=identifier,
        user_id=user_id,
        project_id=project_id,
        type=kind,
        sealed=_sealed(call, blob),
        extra=extra,
    )
    tx.execute(insert(credentials).values(**asdict(credential)))
    return credential


def _refuse_too_many(tx: Tx, user_id: str) -> None:
    count = select(func.count()).select_from(credentials).where(credentials.c.user_id == user_id)
    if tx.scalar(count) >= MOST_OF_USER:
        raise Forbidden(
            f"Unable to create additional credentials, maximum of {MOST_OF_USER} already exceeded for user."
        )


def _ec2_access(blob: str) -> str:
    """The access key in an EC2 credential's blob; 400 if there is none, or if the blob names a delegation.

    Upstream notes in the blob by which trust or other delegation it was made. Here delegated tokens make none."""
    try:
        content = json.loads(blob)
    except (ValueError, RecursionError):
        raise BadRequest("Invalid blob in credential") from None
    if not isinstance(content, dict):
        raise BadRequest("Expecting to find blob in credential.")
    if not isinstance(content.get("access"), str):
        raise BadRequest("Expecting to find access in credential.")
    if not isinstance(content.get("secret", ""), str):
        raise BadRequest("Invalid input for field credential/blob: secret must be a string.")
    for name in _LIMITS:
        if content.get(name) is not None:
            raise BadRequest(f"Invalid input for field credential/blob: {name} is set by the service only.")
    access: str = content["access"]
    return access


@IDENTITY.operation(
    "PATCH",
    "/credentials/{credential_id}",
    rules=(Rule(UPDATE),),
    target=credential_in_path,
    facts=credential_facts,
    body=CredentialChanges,
    body_key="credential",
)
def update_credential(call: Call[Credential | None, CredentialChanges]) -> dict[str, object]:
    """Change what a credential holds, and of which kind it is; tokens made from it end at once.

    It stays its user's and its project's. An EC2 key's id comes from what it holds: it does not become another kind.
    """
    refuse_delegated(call, _DELEGATED)
    credential = known(call.target, "credential", call.path["credential_id"])
    body = call.body
    for name, value in (("user_id", body.user_id), ("project_id", body.project_id)):
        if value not in (UNSET, getattr(credential, name)):
            raise Forbidden(f"The {name} of a credential cannot be changed.")
    kind = credential.type if body.type is UNSET else body.type
    if kind != credential.type and EC2 in (kind.lower(), credential.type.lower()):
        raise BadRequest("The type of a credential cannot be changed from or to 'ec2'.")
    if kind == TOTP and (body.blob is not UNSET or kind != credential.type):
        refuse_long_secret(_blob(call, credential) if body.blob is UNSET else body.blob)
    if kind == TOTP and kind != credential.type:
        refuse_too_many_devices(call.tx, credential.user_id)
    values: dict[str, object] = {"type": kind, "extra": {**credential.extra, **given_extra(body)}}
    if body.blob is not UNSET:
        if kind.lower() == EC2:
            _ec2_access(body.blob)
        values["sealed"] = _sealed(call, body.blob)
    call.tx.execute(update(credentials).where(credentials.c.id == credential.id).values(**values))
    _end_tokens(call, credential)
    return {"credential": _view(call, known(credential_in_path(call), "credential", credential.id))}


@IDENTITY.operation(
    "DELETE",
    "/credentials/{credential_id}",
    rules=(Rule(DELETE),),
    target=credential_in_path,
    facts=credential_facts,
    success=204,
)
def delete_credential(call: Call[Credential | None, None]) -> None:
    """Delete a credential; tokens made from it end at once."""
    refuse_delegated(call, _DELEGATED)
    _delete(call, known(call.target, "credential", call.path["credential_id"]))


def _delete(call: Call[object, object], credential: Credential) -> None:
    call.tx.execute(delete(credentials).where(credentials.c.id == credential.id))
    _end_tokens(call, credential)


def _end_tokens(call: Call[object, object], credential: Credential) -> None:
    identity = Identity.of(call)
    blob = identity.credential_keys.open(credential.sealed)
    if credential.type == EC2 and blob is not None:
        identity.end_delegation(call.tx, id_of_content(credential.id, blob))


# -- a user's EC2 credentials

OF_USER = "/users/{user_id}/credentials/OS-EC2"


class NewEc2(Body, extra="allow"):
    tenant_id: Annotated[str, Json({"minLength": 1, "maxLength": 64})]


class Ec2View(TypedDict):
    """EC2 credentials as their own path shows them; `access` and `secret` are what their blob says."""

    user_id: str
    tenant_id: str | None
    access: str
    secret: str
    trust_id: None
    links: dict[str, str]


def _ec2_view(call: Call[object, object], credential: Credential) -> Ec2View:
    content = json.loads(_blob(call, credential))
    path = f"users/{credential.user_id}/credentials/OS-EC2"
    return {
        "user_id": credential.user_id,
        "tenant_id": credential.project_id,
        "access": content.get("access"),
        "secret": content.get("secret"),
        "trust_id": None,
        "links": member(call, path, content.get("access")),
    }


def user_path_facts(call: Call[object, object]) -> Mapping[str, object]:
    return {"user_id": call.path["user_id"], "target.credential.user_id": call.path["user_id"]}


def ec2_in_path(call: Call[object, object]) -> Credential:
    """The credential of an access key; 404 before the rules where there is none. The rules look at its user, not at the
    one in the path, as upstream."""
    access = call.path["access"]
    return known(credential_by_id(call.tx, id_of_access(access)), "credential", access)


def _require_user(call: Call[object, object]) -> str:
    return known(store.user_by_id(call.tx, call.path["user_id"]), "user", call.path["user_id"]).id


@IDENTITY.operation("GET", OF_USER, rules=(Rule(LIST_EC2),), facts=user_path_facts)
def list_ec2_credentials(call: Call[None, None]) -> dict[str, object]:
    """List a user's EC2 credentials."""
    refuse_delegated(call, _DELEGATED)
    user_id = _require_user(call)
    views = [_ec2_view(call, credential) for credential in credentials_of(call.tx, user_id, EC2)]
    return collection(call, f"users/{user_id}/credentials/OS-EC2", "credentials", views)


@IDENTITY.operation("POST", OF_USER, rules=(Rule(CREATE_EC2),), facts=user_path_facts, body=NewEc2, success=201)
def create_ec2_credential(call: Call[None, NewEc2]) -> dict[str, object]:
    """Make an EC2 access key with its secret, for a user in a project."""
    refuse_delegated(call, _DELEGATED)
    user_id = _require_user(call)
    clock = call.cloud.clock
    access, secret = clock.token_bytes(16).hex(), clock.token_bytes(32).hex()
    blob = json.dumps({"access": access, "secret": secret, "trust_id": None})
    credential = _keep(call, id_of_access(access), user_id, call.body.tenant_id, EC2, blob, {})
    return {"credential": _ec2_view(call, credential)}


def _known_ec2(call: Call[Credential, object]) -> Credential:
    refuse_delegated(call, _DELEGATED)
    _require_user(call)
    if call.target.type != EC2:
        raise Unauthorized("EC2 access key not found.")
    return call.target


def ec2_facts(call: Call[Credential, object]) -> Mapping[str, object]:
    return {"user_id": call.path["user_id"], "target.credential.user_id": call.target.user_id}


@IDENTITY.operation("GET", f"{OF_USER}/{{access}}", rules=(Rule(GET_EC2),), target=ec2_in_path, facts=ec2_facts)
def show_ec2_credential(call: Call[Credential, None]) -> dict[str, object]:
    """Show an EC2 credential of a user."""
    return {"credential": _ec2_view(call, _known_ec2(call))}


@IDENTITY.operation(
    "DELETE", f"{OF_USER}/{{access}}", rules=(Rule(DELETE_EC2),), target=ec2_in_path, facts=ec2_facts, success=204
)
def delete_ec2_credential(call: Call[Credential, None]) -> None:
    """Delete an EC2 credential; tokens made from it end at once."""
    _delete(call, _known_ec2(call))
