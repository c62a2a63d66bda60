"""/ec2tokens and /s3tokens: services that were sent an AWS request ask whose it is, and get a token for them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from typing import Annotated

from cumulet.db.engine import Tx
from cumulet.errors import NotFound, Unauthorized
from cumulet.identity import tokens
from cumulet.identity.api import ANYWHERE, IDENTITY
from cumulet.identity.catalog import catalog_view
from cumulet.identity.credential_store import credential_by_id, id_of_access, id_of_content
from cumulet.identity.credentials import EC2
from cumulet.identity.delegations import Delegation
from cumulet.identity.ec2_signatures import Unsigned, read, require_recent, require_signed
from cumulet.identity.service import Identity
from cumulet.identity.tokens import LiveToken, Refused
from cumulet.web.operation import Call, Reply, Rule
from cumulet.web.policy import rule
from cumulet.web.schema import UNSET, Body, Key, Unset

VALIDATE_EC2 = rule("identity:ec2tokens_validate", "rule:service_or_admin", scope=ANYWHERE)
VALIDATE_S3 = rule("identity:s3tokens_validate", "rule:service_or_admin", scope=ANYWHERE)

_NOT_FOUND = "EC2 access key not found."
_S3_SERVICES = ("s3", "iam", "sts")


class Signed(Body, extra="allow", secret=True):
    credentials: dict[str, object] | Unset = UNSET
    credential: dict[str, object] | Unset = UNSET
    ec2_credentials: Annotated[dict[str, object] | Unset, Key("ec2Credentials")] = UNSET

    @property
    def content(self) -> dict[str, object]:
        for found in (self.credentials, self.credential, self.ec2_credentials):
            if found is not UNSET and found:
                return found
        return {}


Check = Callable[[dict[str, object], str, int], None]


def _token(call: Call[None, Signed], check: Check) -> LiveToken:
    """A token for whoever signed; its end is that of the credential."""
    identity = Identity.of(call)
    tx: Tx = call.tx
    content = call.body.content
    access = content.get("access")
    if not isinstance(access, str):
        raise Unauthorized("EC2 Signature not supplied")
    credential = credential_by_id(tx, id_of_access(access))
    if credential is None or credential.type != EC2 or credential.project_id is None:
        raise NotFound(_NOT_FOUND)
    blob = identity.credential_keys.open(credential.sealed)
    secret = json.loads(blob).get("secret") if blob is not None else None
    if blob is None or not isinstance(secret, str) or not secret:
        raise NotFound(_NOT_FOUND)
    try:
        check(content, secret, call.now_us)
        return tokens.issue(
            tx,
            identity.clock,
            identity.settings,
            user_id=credential.user_id,
            methods=("ec2credential",),
            scope="project",
            scope_id=credential.project_id,
            by=Delegation(credential_id=id_of_content(credential.id, blob)),
        )
    except Unsigned as unsigned:
        raise Unauthorized(str(unsigned)) from None
    except Refused as refused:
        raise Unauthorized("User not valid for project.", private=str(refused)) from None


@IDENTITY.operation("POST", "/ec2tokens", rules=(Rule(VALIDATE_EC2),), body=Signed)
def create_ec2_token(call: Call[None, Signed]) -> Reply:
    """A token for who signed a request with an EC2 credential (AWS signatures of versions 2 and 4)."""
    live = _token(call, lambda content, secret, now_us: require_signed(read(content), secret, now_us))
    identity = Identity.of(call)
    view = tokens.token_view(live, catalog_view(call.tx, call.base_url, live))
    return Reply(body=view, headers={"X-Subject-Token": identity.seal(live.token)})


@IDENTITY.operation("POST", "/s3tokens", rules=(Rule(VALIDATE_S3),), body=Signed)
def create_s3_token(call: Call[None, Signed]) -> Reply:
    """Say whose an S3 request is, by what was signed (version 4) and its signature."""
    live = _token(call, _require_signed_text)
    return Reply(body=tokens.token_view(live, catalog_view(call.tx, call.base_url, live)))


def _require_signed_text(content: dict[str, object], secret: str, now_us: int) -> None:
    try:
        text = base64.urlsafe_b64decode(str(content.get("token", ""))).decode()
    except ValueError:
        raise Unsigned("Invalid EC2 signature.") from None
    lines = text.split("\n")
    scope = lines[2].split("/") if len(lines) == 4 and lines[0] == "AWS4-HMAC-SHA256" else []
    if len(scope) != 4 or scope[3] != "aws4_request" or scope[2] not in _S3_SERVICES:
        raise Unsigned("Invalid EC2 signature.")
    key = ("AWS4" + secret).encode()
    for part in scope:
        key = hmac.digest(key, part.encode(), hashlib.sha256)
    made = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    if not hmac.compare_digest(made.encode(), str(content.get("signature", "")).encode()):
        raise Unsigned("Credential signature mismatch")
    require_recent(lines[1], now_us)
