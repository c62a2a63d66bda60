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
from cumulet.identity.credential_store import credential_keys
from cumulet.identity.delegations import allows
from cumulet.identity.fernet_keys import FernetKeys
from cumulet.identity.login_limiter import LoginLimiter
from cumulet.identity.passwords import Passwords
from cumulet.identity.tokens import LiveToken, Refused, Token, examine, packed, unpacked
from cumulet.settings import Settings
from cumulet.web.operation import Call, Caller

CACHED_TOKENS = 20_000
LONGEST_TOKEN = 4096
MOST_ENDED = 100_000
"""Tokens and users whose end is remembered until they expire; one more, and all tokens are examined anew."""


class _Known(msgspec.Struct, frozen=True):
    generation: int
    token: Token
    caller: Caller


class Identity:
    """Theory of operation. A token is opened (a Fernet check), then compared with live state (a few queries), then
    remembered under its digest together with the identity *generation* it was examined at: a counter in the database.
    Writes of what tokens are examined by raise it. What is remembered at another generation does not count, so a change
    holds at once.

    Anybody may end one of their tokens (with those made from it), or all of them, at any time. That does not raise the
    counter: one user could have everybody's tokens examined again and again. Ends are looked up by themselves.

    With SQLite this is the only process on the database, and hooks after each commit keep `_generation` and `_ended`
    right. With PostgreSQL other processes write too, so `authenticate` asks each time for the counter and whether the
    token was ended: one query by primary keys.
    """

    def __init__(self, *, db: Database, clock: Clock, settings: Settings, state_dir: Path) -> None:
        self.clock = clock
        self.settings = settings
        self.keys = FernetKeys(state_dir / "fernet-keys", clock, life_seconds=settings.token_life_seconds)
        self.passwords = Passwords(memory_kib=settings.argon2_memory_kib)
        self.logins = LoginLimiter(
            clock,
            failures_per_minute=settings.login_failures_per_minute,
            failures_per_minute_everywhere=settings.login_failures_per_minute_everywhere,
        )
        self._credential_keys: FernetKeys | None = None
        self._state_dir = state_dir
        self._db = db
        self._alone = db.embedded
        self._generation = -1
        self._advancing = threading.Lock()
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        self._ended: OrderedDict[str, tuple[int, int]] = OrderedDict()
        """Audit id or user id -> (tokens issued until then are ended, when all of them have expired)."""

    @classmethod
    def of(cls, call: Call[object, object]) -> Identity:
        """The one of the cloud that is called."""
        identity = call.cloud.identity
        assert isinstance(identity, cls)
        return identity

    def cached(self, token: str) -> Caller | None:
        """The caller, if this token was examined and still counts, without input or output; None: ask on."""
        known = self._known.get(_digest(token)) if self._alone else None
        return known.caller if known is not None and self._counts(known) else None

    async def authenticate(self, token: str, service: str, method: str, path: str) -> Caller | None:
        """Who the token speaks for, or None: also where its access rules do not let the request through."""
        caller = await self._caller(token)
        if caller is None or (given := LiveToken.of(caller).given) is None:
            return caller
        return caller if allows(given.access_rules, service, method, path) else None

    async def _caller(self, token: str) -> Caller | None:
        if (found := self.cached(token)) is not None:
            return found
        digest = _digest(token)
        known = self._known.get(digest)
        if known is not None and not self._alone and await self._still_counts(known):
            return known.caller
        opened = self.open(token)
        if opened is None:
            return None
        generation, live = await self._db.read_async(lambda tx: self._examined(tx, opened))
        if live is None:
            return None
        caller = live.caller()
        self._remember(digest, _Known(generation, opened, caller))
        return caller

    def open(self, token: str) -> Token | None:
        """What is inside a token that we sealed; says nothing about whether it still counts."""
        if len(token) > LONGEST_TOKEN:
            return None
        payload = self.keys.open(token)
        return None if payload is None else unpacked(payload)

    @property
    def credential_keys(self) -> FernetKeys:
        """The keys that seal users' credentials in the database; made when the first one is stored."""
        if self._credential_keys is None:
            self._credential_keys = credential_keys(self._state_dir, self.clock)
        return self._credential_keys

    def seal(self, token: Token) -> str:
        return self.keys.seal(packed(token))

    def examine(self, tx: Tx, token: str) -> LiveToken | None:
        """What a token is worth in this transaction."""
        opened = self.open(token)
        return None if opened is None else self._examined(tx, opened)[1]

    def changed(self, tx: Tx) -> None:
        """No token that was examined before counts any more: each is examined again.

        Every transaction that changes what tokens are examined by calls this once: users, groups, projects, domains,
        roles, and who holds which. What is new does not count: no token rests on it yet. Where only some tokens end,
        it calls one of the three below instead."""
        generation = store.raise_generation(tx)
        tx.after_commit(lambda: self._advance(generation))

    def end_token(self, tx: Tx, token: Token) -> None:
        """End a token, and every token made from it."""
        now_us = self.clock.now_us()
        store.revoke_token(tx, token.audit_id, token.expires_at_us, now_us)
        self._end(tx, token.audit_id, token.expires_at_us, token.expires_at_us)

    def end_delegation(self, tx: Tx, identifier: str, kind: str = "other") -> None:
        """End every token made from an application credential, a trust or the like that is no more.

        kind: as `store.revoked_tokens` has it."""
        now_us = self.clock.now_us()
        until = now_us + (self.settings.token_life_seconds + 1) * 1_000_000
        store.revoke_token(tx, identifier, until, now_us, kind)
        self._end(tx, identifier, until, until)

    def end_tokens_of_user(self, tx: Tx, user_id: str) -> None:
        """End all tokens of a user that were issued so far; nothing else that tokens rest on has changed."""
        now_us = self.clock.now_us()
        moment = store.revoke_tokens(tx, store.users, user_id, now_us)
        self._end(tx, user_id, moment, max(moment, now_us) + self.settings.token_life_seconds * 1_000_000)

    def _end(self, tx: Tx, subject: str, issued_until_us: int, expired_us: int) -> None:
        if len(self._ended) >= MOST_ENDED:
            self.changed(tx)
            tx.after_commit(self._ended.clear)
        elif self._alone:
            tx.after_commit(lambda: self._note_end(subject, issued_until_us, expired_us))

    def _note_end(self, subject: str, issued_until_us: int, expired_us: int) -> None:
        self._ended[subject] = (issued_until_us, expired_us)
        self._ended.move_to_end(subject)
        now_us = self.clock.now_us()
        while (oldest := next(iter(self._ended))) != subject and self._ended[oldest][1] <= now_us:
            del self._ended[oldest]

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

    def _counts(self, known: _Known) -> bool:
        """Whether what was examined then still holds. For the only process on its database."""
        token = known.token
        if known.generation != self._generation or token.expires_at_us <= self.clock.now_us():
            return False
        subjects = (*token.user_ids, *token.subjects)
        return not self._ended or not any(
            (end := self._ended.get(subject)) is not None and token.issued_at_us <= end[0] for subject in subjects
        )

    async def _still_counts(self, known: _Known) -> bool:
        """As `_counts`, for one process of several."""
        token = known.token
        if token.expires_at_us <= self.clock.now_us():
            return False
        present = await self._db.read_async(lambda tx: store.present(tx, token.user_ids, token.subjects))
        ended = present.revoked or token.issued_at_us <= present.not_before_us
        return present.generation == known.generation and not ended

    def _remember(self, digest: bytes, known: _Known) -> None:
        if self._alone:
            self._advance(known.generation)
        self._known[digest] = known
        self._known.move_to_end(digest)
        if len(self._known) > CACHED_TOKENS:
            self._known.popitem(last=False)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
