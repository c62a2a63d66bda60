"""Devices that show one-time passwords (TOTP, RFC 6238): which of a user's count, and what they show."""

from __future__ import annotations

import base64
import contextlib
import hmac

from sqlalchemy import func, select

from cumulet.db.engine import Tx
from cumulet.errors import BadRequest, Forbidden
from cumulet.identity import store
from cumulet.identity.credential_store import Credential, credentials
from cumulet.identity.fernet_keys import FernetKeys

TOTP = "totp"
"""The type of the credential that holds a device's key, in base32."""
MOST_DEVICES = 8
"""Of one user. A login is compared with all of them."""
LONGEST_SECRET = 128
"""Characters of a device's key: RFC 6238 has keys of at most 64 bytes."""
_LONGEST_SEALED = 268
"""Characters of such a secret when it is sealed."""
SECONDS = 30
EARLIER_CODES = 1
"""How many codes before the present one are taken, as upstream's `included_previous_windows`."""


def refuse_long_secret(secret: str) -> None:
    if len(secret) > LONGEST_SECRET:
        raise BadRequest(
            "Invalid input for field credential/blob: the secret of a device for one-time passwords has at most "
            f"{LONGEST_SECRET} characters."
        )


def refuse_too_many_devices(tx: Tx, user_id: str) -> None:
    c = credentials.c
    count = select(func.count()).select_from(credentials).where(c.user_id == user_id, c.type == TOTP)
    if tx.scalar(count) >= MOST_DEVICES:
        raise Forbidden(
            f"Unable to create additional credentials of the type totp, maximum of {MOST_DEVICES} already exceeded for "
            "user."
        )


def keys_of(tx: Tx, opener: FernetKeys, user_id: str) -> list[bytes]:
    """The keys of a user's devices. They are opened here, on the thread that reads: that takes longer than comparing.

    There may be more devices, or longer secrets, from before there were bounds. Those are not looked at, so that a
    login costs the same whatever was kept: the first that are not too long count.
    """
    c = credentials.c
    short = func.length(c.sealed) <= _LONGEST_SEALED
    statement = select(credentials).where(c.user_id == user_id, c.type == TOTP, short).order_by(c.id)
    keys = []
    for device in store.many(tx, Credential, statement.limit(MOST_DEVICES)):
        secret = opener.open(device.sealed)
        if secret is not None:
            with contextlib.suppress(ValueError):
                keys.append(base64.b32decode(secret + b"=" * (-len(secret) % 8)))
    return keys


def shows(keys: list[bytes], code: str, now_seconds: int) -> bool:
    """Whether a device with one of these keys shows the code now, or has just shown it."""
    right = False
    for key in keys:
        for earlier in range(EARLIER_CODES + 1):
            made = one_time_password(key, now_seconds // SECONDS - earlier)
            right |= hmac.compare_digest(made.encode(), code.encode("utf-8", "surrogatepass"))
    return right


def one_time_password(key: bytes, counter: int) -> str:
    """Six digits, by RFC 4226 (and, with the time as counter, RFC 6238)."""
    digest = hmac.digest(key, counter.to_bytes(8, "big"), "sha1")
    at = digest[-1] & 0xF
    return f"{(int.from_bytes(digest[at : at + 4], 'big') & 0x7FFFFFFF) % 1_000_000:06d}"
