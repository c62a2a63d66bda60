"""OAuth 1.0a between a consumer and a user: a request token, the user's consent, an access token (OS-OAUTH1)."""

from __future__ import annotations

import hmac
import string
from typing import Annotated

from msgspec.structs import asdict
from sqlalchemy import delete, func, insert, select, update

from cumulet.clock import iso_us
from cumulet.db.engine import Tx
from cumulet.errors import BadRequest, Forbidden, Unauthorized
from cumulet.identity import holding, store
from cumulet.identity.api import ADMIN, IDENTITY, known, new_id, refuse_delegated
from cumulet.identity.application_credentials import NamedRole
from cumulet.identity.oauth1_consumers import known_consumer, secret_of
from cumulet.identity.oauth1_requests import opened, signed_request, take_once
from cumulet.identity.oauth1_signatures import SignedRequest, is_signed
from cumulet.identity.oauth1_store import (
    AccessToken,
    RequestToken,
    access_tokens,
    request_token_by_id,
    request_tokens,
)
from cumulet.identity.service import Identity
from cumulet.web.operation import Call, Reply, Rule
from cumulet.web.policy import rule
from cumulet.web.schema import Body, Json

AUTHORIZE = rule("identity:authorize_request_token", ADMIN, scope=("project",))

REQUEST_TOKEN_SECONDS = 28_800
ACCESS_TOKEN_SECONDS = 86_400
"""Upstream's defaults."""
MOST_REQUEST_TOKENS = 100
"""Request tokens of one consumer that wait for a user."""
MOST_ACCESS_TOKENS = 100
"""Access tokens of one user."""
VERIFIER_LENGTH = 8
_CHARACTERS = "".join(c for c in string.ascii_letters + string.digits if c not in "jiIl1oO0")
_DELEGATED = "Cannot authorize a request token with a token issued via delegation."
_FORM = {"Content-Type": "application/x-www-form-urlencoded"}


class Consent(Body):
    roles: Annotated[list[NamedRole], Json({"minItems": 1, "maxItems": 100})]


def _shown(identifier: str, secret: str, expires_at_us: int) -> Reply:
    """A token of OAuth with its secret, as a form: OAuth 1.0 does not use JSON."""
    body = f"oauth_token={identifier}&oauth_token_secret={secret}&oauth_expires_at={iso_us(expires_at_us)}Z"
    return Reply(body=body.encode(), status=201, headers=_FORM)


def _require_consumer(call: Call[object, object], tx: Tx, request: SignedRequest, token_secret: str = "") -> None:
    """401 unless the consumer that a request names has signed it; 404 where there is no such consumer."""
    identity = Identity.of(call)
    consumer = known_consumer(tx, request.get("oauth_consumer_key"))
    if not is_signed(request, opened(identity.credential_keys, consumer.sealed), token_secret):
        raise Unauthorized("Invalid signature")


@IDENTITY.operation("POST", "/OS-OAUTH1/request_token", raw_body=True, public=True, success=201)
async def create_request_token(call: Call[None, None]) -> Reply:
    """Ask, as a consumer, for access to a project. A user has to consent to it."""
    request = signed_request(call, "/OS-OAUTH1/request_token", "oauth_consumer_key", "oauth_callback")
    project_id = call.headers.get("requested-project-id")
    if not project_id:
        raise BadRequest("Expecting to find Requested-Project-Id in request.")
    consumer_id = request.get("oauth_consumer_key")

    def check(tx: Tx) -> None:
        _require_consumer(call, tx, request)

    def work(tx: Tx) -> Reply:
        check(tx)
        take_once(tx, request, call.now_us)
        known(store.project_by_id(tx, project_id), "project", project_id[:64])
        r = request_tokens.c
        tx.execute(delete(request_tokens).where(r.consumer_id == consumer_id, r.expires_at_us <= call.now_us))
        count = select(func.count()).select_from(request_tokens).where(r.consumer_id == consumer_id)
        if tx.scalar(count) >= MOST_REQUEST_TOKENS:
            raise Forbidden(f"{MOST_REQUEST_TOKENS} request tokens of this consumer wait for a user already.")
        secret = secret_of(call)
        token = RequestToken(
            id=new_id(call.cloud.clock),
            consumer_id=consumer_id,
            project_id=project_id,
            sealed=Identity.of(call).credential_keys.seal(secret.encode()),
            expires_at_us=call.now_us + REQUEST_TOKEN_SECONDS * 1_000_000,
            user_id=None,
            role_ids=[],
            verifier=None,
        )
        tx.execute(insert(request_tokens).values(**asdict(token)))
        return _shown(token.id, secret, token.expires_at_us)

    await call.cloud.db.read_async(check)
    made: Reply = await call.cloud.db.write_async(work)
    return made


def _known_request_token(tx: Tx, identifier: str) -> RequestToken:
    return known(request_token_by_id(tx, identifier), "request token", identifier[:64])


def _refuse_expired(call: Call[object, object], token: RequestToken) -> None:
    if token.expires_at_us <= call.now_us:
        raise Unauthorized("Request token is expired")


@IDENTITY.operation("PUT", "/OS-OAUTH1/authorize/{request_token_id}", rules=(Rule(AUTHORIZE),), body=Consent)
def authorize_request_token(call: Call[None, Consent]) -> dict[str, object]:
    """Give a consumer some of one's roles in the project it asked for. The answer has the verifier that it needs."""
    refuse_delegated(call, _DELEGATED)
    tx, user_id = call.tx, call.caller.user_id
    token = _known_request_token(tx, call.path["request_token_id"])
    _refuse_expired(call, token)
    wanted: set[str] = set()
    for asked in call.body.roles:
        wanted.add(known(asked.found(tx), "role", str(asked.name or asked.id)[:64]).id)
    held = {role.id for role in holding.effective_roles(tx, user_id, "project", token.project_id)}
    if not wanted <= held:
        raise Unauthorized("authorizing user does not have role required")
    random = (_CHARACTERS[byte % len(_CHARACTERS)] for byte in call.cloud.clock.token_bytes(VERIFIER_LENGTH))
    verifier = "".join(random)
    values = {
        "user_id": user_id,
        "role_ids": sorted(wanted),
        "verifier": Identity.of(call).credential_keys.seal(verifier.encode()),
    }
    tx.execute(update(request_tokens).where(request_tokens.c.id == token.id).values(**values))
    return {"token": {"oauth_verifier": verifier}}


@IDENTITY.operation("POST", "/OS-OAUTH1/access_token", raw_body=True, public=True, success=201)
async def create_access_token(call: Call[None, None]) -> Reply:
    """Exchange a request token that a user consented to for an access token, once."""
    names = ("oauth_consumer_key", "oauth_token", "oauth_verifier")
    request = signed_request(call, "/OS-OAUTH1/access_token", *names)

    def check(tx: Tx) -> RequestToken:
        keys = Identity.of(call).credential_keys
        token = _known_request_token(tx, request.get("oauth_token"))
        _refuse_expired(call, token)
        if token.consumer_id != request.get("oauth_consumer_key"):
            raise Unauthorized("Provided consumer key does not match stored consumer key.")
        _require_consumer(call, tx, request, opened(keys, token.sealed))
        if token.verifier is None or token.user_id is None:
            raise Unauthorized("Request Token does not have an authorizing user id.")
        shown = request.get("oauth_verifier").encode("utf-8", "surrogatepass")
        if not hmac.compare_digest(opened(keys, token.verifier).encode(), shown):
            raise Unauthorized("Provided verifier does not match stored verifier")
        return token

    def work(tx: Tx) -> Reply:
        token = check(tx)
        take_once(tx, request, call.now_us)
        assert token.user_id is not None
        _refuse_too_many(call, tx, token.user_id)
        secret = secret_of(call)
        access = AccessToken(
            id=new_id(call.cloud.clock),
            consumer_id=token.consumer_id,
            project_id=token.project_id,
            user_id=token.user_id,
            sealed=Identity.of(call).credential_keys.seal(secret.encode()),
            role_ids=token.role_ids,
            expires_at_us=call.now_us + ACCESS_TOKEN_SECONDS * 1_000_000,
        )
        tx.execute(delete(request_tokens).where(request_tokens.c.id == token.id))
        tx.execute(insert(access_tokens).values(**asdict(access)))
        return _shown(access.id, secret, access.expires_at_us)

    await call.cloud.db.read_async(check)
    made: Reply = await call.cloud.db.write_async(work)
    return made


def _refuse_too_many(call: Call[object, object], tx: Tx, user_id: str) -> None:
    a = access_tokens.c
    tx.execute(delete(access_tokens).where(a.user_id == user_id, a.expires_at_us <= call.now_us))
    if tx.scalar(select(func.count()).select_from(access_tokens).where(a.user_id == user_id)) >= MOST_ACCESS_TOKENS:
        raise Forbidden(f"The user has {MOST_ACCESS_TOKENS} access tokens, which is as many as there may be.")
