"""What is sealed in the database with the keys of credentials, and how these keys rotate.

They rotate at a start, once the present key has sealed for `ROTATE_AFTER_SECONDS`. First everything is sealed anew with
the present key, then the next key takes over. So nothing is left under the key that is destroyed.
"""

from __future__ import annotations

from sqlalchemy import Column, select, update

from cumulet.clock import Clock
from cumulet.db.engine import Database, Tx
from cumulet.identity.credential_store import credential_keys, credentials
from cumulet.identity.fernet_keys import FernetKeys
from cumulet.identity.oauth1_store import access_tokens, consumers, request_tokens
from cumulet.settings import Settings

ROTATE_AFTER_SECONDS = 30 * 24 * 3600
SEALED: tuple[tuple[Column[str], Column[str]], ...] = (
    (credentials.c.id, credentials.c.sealed),
    (consumers.c.id, consumers.c.sealed),
    (request_tokens.c.id, request_tokens.c.sealed),
    (request_tokens.c.id, request_tokens.c.verifier),
    (access_tokens.c.id, access_tokens.c.sealed),
)
"""Each sealed column, with its table's key before it."""


def rotate_keys(db: Database, settings: Settings, clock: Clock) -> None:
    """At a start: rotate the keys if they are old."""
    if not (settings.state_dir / "credential-keys").exists():
        return
    keys = credential_keys(settings.state_dir, clock)
    if keys.age_seconds() > ROTATE_AFTER_SECONDS:
        db.write(lambda tx: _seal_anew(tx, keys))
        keys.rotate()


def _seal_anew(tx: Tx, keys: FernetKeys) -> None:
    for key, column in SEALED:
        for row in tx.all(select(key.label("key"), column.label("sealed")).where(column.is_not(None))):
            opened = keys.open(row.sealed)
            if opened is not None:
                tx.execute(update(column.table).where(key == row.key).values({column: keys.seal(opened)}))
