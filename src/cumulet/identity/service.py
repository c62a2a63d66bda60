"""The identity service of one process: keys, password pool, login limiter, and the answer to "who is this token?"."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from pathlib import Path

import msgspec

from cumulet.clock import Clock
from cumulet.db.engine import Database, Tx
from cumulet.identity import store
from cumulet.identity.fernet_keys import FernetKeys
from cumulet.identity.login_limiter import LoginLimiter
from cumulet.identity.passwords import Passwords
from cumulet.identity.tokens import LiveToken, Refused, Token, examine, packed, unpacked
from cumulet.settings import Settings
from cumulet.web.operation import Caller

CACHED_TOKENS = 20_000
LONGEST_TOKEN = 4096


class _Known(msgspec.Struct, frozen=True):
    generation: int
    expires_at_us: int
    caller: Caller


class Identity:
    """Theory of operation. A token is opened (a Fernet check), then compared with live state (a few queries), then
    remembered under its digest together with the identity *generation* it was examined at: a counter in the database
    that every identity write raises. Nothing remembered at another generation counts, so revocation is immediate.

    With SQLite this is the only process on the database, and a hook after each commit keeps `_generation` right.
    With PostgreSQL other processes write too, so `authenticate` reads the counter (one row by primary key) each time.
    """

    def __init__(self, *, db: Database, clock: Clock, settings: Settings, state_dir: Path) -> None:
        self.clock = clock
        self.settings = settings
        self.keys = FernetKeys(state_dir / "fernet-keys", clock)
        self.passwords = Passwords(memory_kib=settings.argon2_memory_kib)
        self.logins = LoginLimiter(clock, failures_per_minute=settings.login_failures_per_minute)
        self._db = db
        self._alone = db.is_sqlite
        self._generation = -1
        self._advancing = threading.Lock()
        self._known: OrderedDict[bytes, _Known] = OrderedDict()

    def cached(self, token: str) -> Caller | None:
        """The caller, if this token was examined at the present generation, without input or output; None: ask on."""
        if not self._alone:
            return None
        return self._remembered(_digest(token), self._generation)

    async def authenticate(self, token: str, service: str, method: str, path: str) -> Caller | None:
        """Who the token speaks for, or None. The other arguments are for tokens restricted to some requests (later)."""
        digest = _digest(token)
        if self._alone:
            found = self._remembered(digest, self._generation)
        else:
            found = self._remembered(digest, await self._db.read_async(store.read_generation))
        if found is not None:
            return found
        opened = self.open(token)
        if opened is None:
            return None
        generation, live = await self._db.read_async(lambda tx: self._examined(tx, opened))
        if live is None:
            return None
        caller = live.caller()
        self._remember(digest, _Known(generation, opened.expires_at_us, caller))
        return caller

    def open(self, token: str) -> Token | None:
        """What is inside a token that we sealed; says nothing about whether it still counts."""
        if len(token) > LONGEST_TOKEN:
            return None
        payload = self.keys.open(token)
        return None if payload is None else unpacked(payload)

    def seal(self, token: Token) -> str:
        return self.keys.seal(packed(token))

    def examine(self, tx: Tx, token: str) -> LiveToken | None:
        """What a token is worth in this transaction."""
        opened = self.open(token)
        return None if opened is None else self._examined(tx, opened)[1]

    def changed(self, tx: Tx) -> None:
        """Every transaction that writes identity state calls this once: no token examined before it counts any more."""
        generation = store.raise_generation(tx)
        tx.after_commit(lambda: self._advance(generation))

    def close(self) -> None:
        self.passwords.close()

    def _examined(self, tx: Tx, token: Token) -> tuple[int, LiveToken | None]:
        generation = store.read_generation(tx)
        try:
            return generation, examine(tx, token, self.clock.now_us())
        except Refused:
            return generation, None

    def _advance(self, generation: int) -> None:
        # From the thread that committed and from the event loop: losing the higher number would undo a revocation.
        with self._advancing:
            self._generation = max(self._generation, generation)

    def _remembered(self, digest: bytes, generation: int) -> Caller | None:
        known = self._known.get(digest)
        if known is None or known.generation != generation or known.expires_at_us <= self.clock.now_us():
            return None
        return known.caller

    def _remember(self, digest: bytes, known: _Known) -> None:
        if self._alone:
            self._advance(known.generation)
        self._known[digest] = known
        self._known.move_to_end(digest)
        if len(self._known) > CACHED_TOKENS:
            self._known.popitem(last=False)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
