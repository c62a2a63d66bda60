"""Requests that a consumer signed: who signed them; and that each is accepted once."""

from __future__ import annotations

from sqlalchemy import delete, func, insert, select

from cumulet.db.engine import Tx
from cumulet.errors import BadRequest, TooManyRequests, Unauthorized
from cumulet.identity import store
from cumulet.identity.fernet_keys import FernetKeys
from cumulet.identity.login_methods import UNAUTHENTICATED
from cumulet.identity.oauth1_signatures import (
    LIFE_SECONDS,
    Malformed,
    SignedRequest,
    is_signed,
    nonce_digest,
    read,
    require_well_formed,
)
from cumulet.identity.oauth1_store import AccessToken, access_token_by_id, consumer_by_id, nonces
from cumulet.identity.service import Identity
from cumulet.identity.store import User
from cumulet.web.operation import Call

MOST_NONCES = 10_000
"""Signed requests of one consumer that are remembered, each for twice `LIFE_SECONDS`. Further ones answer 429."""


def opened(keys: FernetKeys, sealed: str) -> str:
    """The secret that is sealed. RuntimeError where the key is gone."""
    secret = keys.open(sealed)
    if secret is None:
        raise RuntimeError("the key of a secret of OAuth is not there")
    return secret.decode()


def read_request(call: Call[object, object], path: str) -> SignedRequest:
    """The request as its consumer signed it, at an operation's path; `Malformed` where it did not."""
    header = call.headers.get("authorization")
    request = read(header, "POST", f"{call.service_url}{path}", call.query.pairs)
    require_well_formed(request, call.now_us)
    return request


def signed_request(call: Call[object, object], path: str, *names: str) -> SignedRequest:
    """As `read_request`, with parameters that must be there; 400 otherwise."""
    try:
        request = read_request(call, path)
    except Malformed as malformed:
        raise BadRequest(str(malformed)) from None
    for name in names:
        if not request.get(name):
            raise BadRequest(f"Expecting to find {name} in request.")
    return request


def take_once(tx: Tx, request: SignedRequest, now_us: int) -> None:
    """Remember a request whose signature is right; 401 for one that was taken before (RFC 5849, 3.3)."""
    n, consumer_id = nonces.c, request.get("oauth_consumer_key")
    tx.execute(delete(nonces).where(n.consumer_id == consumer_id, n.expires_at_us < now_us))
    digest = nonce_digest(request)
    if tx.first(select(n.digest).where(n.digest == digest)) is not None:
        raise Unauthorized(UNAUTHENTICATED, private="a request signed by OAuth was sent again")
    if tx.scalar(select(func.count()).select_from(nonces).where(n.consumer_id == consumer_id)) >= MOST_NONCES:
        raise TooManyRequests("This consumer signed too many requests. Try again later.")
    # Its time may be as far ahead of ours as behind.
    until = now_us + 2 * LIFE_SECONDS * 1_000_000
    tx.execute(insert(nonces).values(digest=digest, consumer_id=consumer_id, expires_at_us=until))


async def access_token_holder(call: Call[object, object]) -> tuple[AccessToken, User]:
    """The access token that a consumer signed its login with, and whose it is; 401 otherwise."""
    identity = Identity.of(call)
    try:
        request = read_request(call, "/auth/tokens")
    except Malformed as malformed:
        raise Unauthorized("Could not validate the access token", private=str(malformed)) from None

    def check(tx: Tx) -> tuple[AccessToken, User]:
        consumer = consumer_by_id(tx, request.get("oauth_consumer_key"))
        token = access_token_by_id(tx, request.get("oauth_token"))
        if consumer is None or token is None or token.consumer_id != consumer.id:
            raise Unauthorized("Could not validate the access token", private="no such consumer or access token")
        keys = identity.credential_keys
        if not is_signed(request, opened(keys, consumer.sealed), opened(keys, token.sealed)):
            raise Unauthorized("Could not validate the access token", private="the signature is wrong")
        if token.expires_at_us <= call.now_us:
            raise Unauthorized("Access token is expired")
        user = store.user_by_id(tx, token.user_id)
        assert user is not None  # or its tokens would be gone
        return token, user

    def work(tx: Tx) -> tuple[AccessToken, User]:
        found = check(tx)
        take_once(tx, request, call.now_us)
        return found

    # Checked in a reading transaction first, so that a wrong signature costs no writing one.
    await call.cloud.db.read_async(check)
    holder: tuple[AccessToken, User] = await call.cloud.db.write_async(work)
    return holder
