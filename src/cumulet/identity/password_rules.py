"""What an operator may ask of passwords: that they end, are new, are kept for a while, and that guessing locks a user.

And that a user whose password has not been right for long is disabled.

Each is off by default; the settings say which upstream's they are. Users are exempt by their options, such as
`ignore_password_expiry`. A change of the settings does not change passwords that are set already: one that was set
without an end has none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec
from msgspec.structs import asdict
from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    Integer,
    Table,
    Text,
    delete,
    insert,
    select,
    text,
    update,
)

from cumulet.clock import Clock
from cumulet.db.engine import Database, Tx, metadata
from cumulet.errors import BadRequest
from cumulet.identity import store
from cumulet.identity.passwords import Passwords
from cumulet.identity.store import User
from cumulet.settings import Settings

DAY_US = 24 * 3600 * 1_000_000

password_states = Table(
    "identity_password_states",
    metadata,
    Column("user_id", Text, ForeignKey(store.users.c.id, ondelete="CASCADE"), primary_key=True),
    Column("set_at_us", BigInteger, nullable=False),
    Column("self_service", Boolean, nullable=False),
    Column("earlier", JSON, nullable=False),
    Column("failures", Integer, nullable=False),
    Column("failed_at_us", BigInteger, nullable=False),
)
"""Of a user, where a rule needs it. earlier: hashes of passwords before the present one, the newest first.
self_service: whether its user set the present one. failures: wrong passwords since the last right one."""


class PasswordState(msgspec.Struct, frozen=True, kw_only=True):
    user_id: str
    set_at_us: int = 0
    self_service: bool = False
    earlier: list[str] = msgspec.field(default_factory=list)
    failures: int = 0
    failed_at_us: int = 0


_IN_THE_LOG = text("SELECT pg_logical_emit_message(true, 'cumulet', :words)")
"""Words in PostgreSQL's log of writes, for which a commit waits as for those of a row."""


def _state(tx: Tx, user_id: str) -> PasswordState:
    s = password_states
    return store.one(tx, PasswordState, select(s).where(s.c.user_id == user_id)) or PasswordState(user_id=user_id)


def _keep(tx: Tx, state: PasswordState) -> None:
    tx.execute(delete(password_states).where(password_states.c.user_id == state.user_id))
    tx.execute(insert(password_states).values(**asdict(state)))


# -- a new password


def refuse_unmatched_password(settings: Settings, password: str) -> None:
    """400 for a password that does not match the operator's pattern."""
    if settings.password_regex and re.match(settings.password_regex, password) is None:
        detail = settings.password_regex_description or settings.password_regex
        raise BadRequest(f"The password does not match the requirements: {detail}.")


def end_of_new_password(
    settings: Settings, options: Mapping[str, object], now_us: int, *, self_service: bool
) -> int | None:
    """When a password that is set now ends, in microseconds; None: never. One that an administrator sets has to be
    changed at once, where the operator wants that."""
    to_be_changed = settings.change_password_upon_first_use and not self_service
    if to_be_changed and not options.get("ignore_change_password_upon_first_use"):
        return now_us
    if not settings.password_expires_days or options.get("ignore_password_expiry"):
        return None
    return (now_us + settings.password_expires_days * DAY_US) // 1_000_000 * 1_000_000


def note_new_password(tx: Tx, settings: Settings, user: User, now_us: int, *, self_service: bool) -> None:
    """Before `user`, as stored, gets another password (or a first one): keep what rules for the next one need."""
    if not (settings.password_history or settings.password_minimum_age_days or settings.lockout_failures):
        return
    state = _state(tx, user.id)
    before = [user.password_hash, *state.earlier] if user.password_hash is not None else state.earlier
    earlier = before[: max(0, settings.password_history - 1)]
    _keep(tx, PasswordState(user_id=user.id, set_at_us=now_us, self_service=self_service, earlier=earlier))


async def refuse_earlier_password(passwords: Passwords, hashes: list[str], password: str) -> None:
    """400 for a password that is one of these."""
    for one in hashes:
        if await passwords.matches(one, password):
            raise BadRequest(
                "The new password cannot be identical to a previous password. The total number which includes the new "
                f"password must be unique is {len(hashes)}."
            )


def hashes_not_to_match(tx: Tx, settings: Settings, user: User) -> list[str]:
    """The hashes that a user's next password must not match: the present one and those before."""
    if not settings.password_history or user.password_hash is None:
        return []
    return [user.password_hash, *_state(tx, user.id).earlier][: settings.password_history]


def refuse_too_early(tx: Tx, settings: Settings, user: User, now_us: int) -> None:
    """400 where a user changed the password less than `password_minimum_age_days` ago."""
    if not settings.password_minimum_age_days:
        return
    state = _state(tx, user.id)
    until_us = state.set_at_us + settings.password_minimum_age_days * DAY_US
    if state.self_service and now_us < until_us:
        raise BadRequest(
            f"You cannot change your password yet: it is to be used for {settings.password_minimum_age_days} day(s). "
            f"Try again in {(until_us - now_us) // DAY_US} day(s), or have an administrator reset it."
        )


# -- logging in


def is_expired(user: User, now_us: int) -> bool:
    end = user.password_expires_at_us
    return end is not None and end <= now_us and not user.options.get("ignore_password_expiry")


def is_idle(settings: Settings, user: User, now_us: int) -> bool:
    """Whether a user counts as disabled because their password was right so many days ago. Days are those of UTC."""
    days = settings.disable_user_account_days_inactive
    if not days or user.last_active_us is None or user.options.get("ignore_user_inactivity"):
        return False
    return now_us // DAY_US - user.last_active_us // DAY_US >= days


async def note_active(database: Database, user: User, now_us: int) -> None:
    """Remember that a user's password was right: once a day. Whatever the settings are, for they may change."""
    u, today_us = store.users.c, now_us - now_us % DAY_US
    if user.last_active_us is not None and user.last_active_us >= today_us:
        return
    earlier = (u.last_active_us.is_(None)) | (u.last_active_us < today_us)
    statement = update(store.users).where(u.id == user.id, earlier).values(last_active_us=now_us)
    await database.write_async(lambda tx: tx.execute(statement))


class Lock(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a user is `locked`: then no password is accepted. `counts`: a wrong password is counted."""

    locked: bool = False
    counts: bool = False
    failures: int = 0


def lock_of(tx: Tx, settings: Settings, user: User, now_us: int) -> Lock:
    if not settings.lockout_failures or user.options.get("ignore_lockout_failure_attempts"):
        return Lock()
    state = _state(tx, user.id)
    locked_until_us = state.failed_at_us + settings.lockout_seconds * 1_000_000
    locked = state.failures >= settings.lockout_failures and now_us < locked_until_us
    return Lock(locked=locked, counts=not locked, failures=state.failures)


def note_login(tx: Tx, settings: Settings, user_id: str, now_us: int, *, right: bool) -> None:
    """Count a password that was compared while the user was not locked. A right one sets the count to 0."""
    if store.user_by_id(tx, user_id) is None:
        return
    state = _state(tx, user_id)
    over = now_us >= state.failed_at_us + settings.lockout_seconds * 1_000_000
    before = 0 if right or (over and state.failures >= settings.lockout_failures) else state.failures
    failures, failed_at_us = (0, 0) if right else (before + 1, now_us)
    _keep(tx, msgspec.structs.replace(state, failures=failures, failed_at_us=failed_at_us))


def note_nothing(tx: Tx, clock: Clock) -> None:
    """The same work as `note_login`, where there is nothing to count: nobody has that name, or the user is locked."""
    nobody, r = clock.uuid(), store.revoked_tokens
    store.user_by_id(tx, nobody)
    _state(tx, nobody)
    if tx.alone:
        # Not in `password_states`: its rows are of users. Nobody else sees this row.
        tx.execute(insert(r).values(audit_id=nobody, expires_at_us=0, kind="other"))
        tx.execute(delete(r).where(r.c.audit_id == nobody))
    else:
        # Beside other writers it must be no row: a transaction that read near it would have to be tried again.
        tx.execute(delete(password_states).where(password_states.c.user_id == nobody))
        tx.execute(_IN_THE_LOG, {"words": nobody})


def unlock(tx: Tx, user_id: str) -> None:
    """Forget the wrong passwords of a user whom an administrator sets to `enabled`, as upstream."""
    s = password_states
    if tx.first(select(s.c.user_id).where(s.c.user_id == user_id, s.c.failures > 0)) is not None:
        _keep(tx, msgspec.structs.replace(_state(tx, user_id), failures=0, failed_at_us=0))
