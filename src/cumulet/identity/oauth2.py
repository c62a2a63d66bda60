"""/OS-OAUTH2/token: a token for an application credential, as clients of OAuth 2.0 ask for one (client credentials).

Its id is the client's id, its secret the client's secret. Tokens bound to a client's certificate (RFC 8705) are not
offered: HTTPS asks clients for no certificate here.
"""

from __future__ import annotations

import base64
import binascii
from typing import NoReturn

from cumulet.db.engine import Tx
from cumulet.errors import ApiError, BadRequest, Unauthorized
from cumulet.identity import tokens
from cumulet.identity.api import IDENTITY
from cumulet.identity.delegations import Delegation
from cumulet.identity.dialect import OAuth2Refused
from cumulet.identity.login_methods import ApplicationCredentialMethod, application_credential_holder
from cumulet.identity.multi_factor import require_factors
from cumulet.identity.passwords import LONGEST_PASSWORD
from cumulet.identity.service import Identity
from cumulet.identity.tokens import LiveToken, Refused
from cumulet.web.bodies import read_form
from cumulet.web.operation import Call, Reply

FAILED = "Client authentication failed."
GRANT = "client_credentials"
METHODS = ("application_credential",)
_FORM = "application/x-www-form-urlencoded"
LONGEST_ID = 255


@IDENTITY.operation("POST", "/OS-OAUTH2/token", raw_body=True, public=True)
async def create_oauth2_token(call: Call[None, None]) -> Reply:
    """Get a token for an application credential, by the client credentials grant of OAuth 2.0."""
    client_id, secret = await _client(call)
    shown = ApplicationCredentialMethod(id=client_id, secret=secret)
    try:
        user, credential = await application_credential_holder(call, shown)
    except (Unauthorized, BadRequest) as refused:
        _refuse(refused)
    identity = Identity.of(call)

    def work(tx: Tx) -> LiveToken:
        require_factors(user, METHODS)
        return tokens.issue(
            tx,
            identity.clock,
            identity.settings,
            user_id=user.id,
            methods=METHODS,
            scope="project",
            scope_id=credential.project_id,
            by=Delegation(application_credential_id=credential.id),
        )

    try:
        live = await call.cloud.db.read_async(work)
    except Refused as refused:
        raise OAuth2Refused(401, "invalid_client", FAILED, private=str(refused)) from None
    call.proved = user.id
    token: tokens.Token = live.token
    left = (token.expires_at_us - call.now_us) // 1_000_000
    body = {"access_token": identity.seal(token), "token_type": "Bearer", "expires_in": max(0, left)}
    return Reply(body=body, headers={"Cache-Control": "no-store"})


def _refuse(refused: ApiError) -> NoReturn:
    if isinstance(refused, Unauthorized):
        raise OAuth2Refused(401, "invalid_client", refused.public, private=refused.private) from None
    raise OAuth2Refused(400, "invalid_request", refused.public) from None


async def _client(call: Call[None, None]) -> tuple[str, str]:
    """The client's id and secret: from the form, or from the header, which comes first."""
    media = (call.headers.get("content-type") or "").partition(";")[0].strip().lower()
    try:
        form = await read_form(call) if media == _FORM else {}
    except BadRequest as refused:
        _refuse(refused)
    if "grant_type" not in form:
        raise OAuth2Refused(400, "invalid_request", "The parameter grant_type is required.")
    if (asked := form["grant_type"]) != GRANT:
        raise OAuth2Refused(
            400, "unsupported_grant_type", f"The parameter grant_type {asked[:64]!r} is not supported: it is {GRANT}."
        )
    basic = _basic(call.headers.get("authorization"))
    client_id, secret = basic if basic is not None else (form.get("client_id", ""), form.get("client_secret", ""))
    if not client_id or not secret or len(client_id) > LONGEST_ID or len(secret) > LONGEST_PASSWORD:
        raise OAuth2Refused(401, "invalid_client", FAILED)
    return client_id, secret


def _basic(header: str | None) -> tuple[str, str] | None:
    """Name and password of HTTP's Basic authentication (RFC 7617); None where that is not used."""
    scheme, _, encoded = (header or "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        name, _, password = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        raise OAuth2Refused(401, "invalid_client", FAILED) from None
    return name, password
