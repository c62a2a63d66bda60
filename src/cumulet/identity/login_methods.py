"""How somebody shows who they are: by a password, an application credential, or a one-time password."""

from __future__ import annotations

import hashlib
from typing import Annotated

import msgspec
from msgspec.structs import replace
from sqlalchemy import select, update

from cumulet.db.engine import Tx
from cumulet.errors import BadRequest, Unauthorized
from cumulet.identity import store
from cumulet.identity.delegations import ApplicationCredential, application_credential_by_id, application_credentials
from cumulet.identity.one_time_passwords import keys_of, shows
from cumulet.identity.password_rules import Lock, is_expired, is_idle, lock_of, note_active, note_login, note_nothing
from cumulet.identity.passwords import LONGEST_PASSWORD
from cumulet.identity.service import Identity
from cumulet.identity.store import User
from cumulet.settings import Settings
from cumulet.web.operation import Call
from cumulet.web.schema import UNSET, Body, Json, Unset

UNAUTHENTICATED = "The request you have made requires authentication."
"""The same answer to unknown users, wrong passwords, disabled users and scopes out of reach."""

Identifier = Annotated[str, Json({"maxLength": 255})]


class DomainNamed(Body, extra="allow"):
    id: Identifier | Unset = UNSET
    name: Identifier | Unset = UNSET


class ProjectNamed(Body, extra="allow"):
    id: Identifier | Unset = UNSET
    name: Identifier | Unset = UNSET
    domain: DomainNamed | Unset = UNSET


class UserNamed(Body, extra="allow", secret=True):
    id: Identifier | Unset = UNSET
    name: Identifier | Unset = UNSET
    domain: DomainNamed | Unset = UNSET
    password: Annotated[str, Json({"maxLength": LONGEST_PASSWORD})]


class Someone(Body, extra="allow"):
    """A user, without a password."""

    id: Identifier | Unset = UNSET
    name: Identifier | Unset = UNSET
    domain: DomainNamed | Unset = UNSET


class ApplicationCredentialMethod(Body, extra="allow", secret=True):
    id: Identifier | Unset = UNSET
    name: Identifier | Unset = UNSET
    user: Someone | Unset = UNSET
    secret: Annotated[str, Json({"maxLength": LONGEST_PASSWORD})]


def expected(attribute: str, target: str) -> BadRequest:
    return BadRequest(f"Expecting to find {attribute} in {target}.")


def check_named(named: DomainNamed | ProjectNamed | UserNamed | Someone, where: str) -> None:
    if named.id is UNSET and named.name is UNSET:
        raise BadRequest(f"Invalid input for field {where}: id or name must be present.")


def check_named_in_domain(named: ProjectNamed | UserNamed | Someone, where: str) -> None:
    check_named(named, where)
    if isinstance(named.domain, DomainNamed):
        check_named(named.domain, f"{where}/domain")
    elif named.id is UNSET:
        raise expected("domain", where)


async def password_holder(call: Call[object, object], named: UserNamed, *, expired_too: bool = False) -> User:
    """The enabled user whose password this is; 401 otherwise, 429 when tried too often.

    Whether the user exists, is disabled, idle, locked or has another password makes no difference: the same work, the
    same answer. Only who knows the password is told that it has expired. expired_too: an expired password is accepted,
    to be changed.
    """
    identity = Identity.of(call)
    settings, now_us = identity.settings, call.now_us
    check_named_in_domain(named, "identity/password/user")

    def work(tx: Tx) -> tuple[_Found, Lock]:
        found = _find_user(tx, named, settings, now_us)
        return found, lock_of(tx, settings, found.user, now_us) if found.user is not None else Lock()

    found, lock = await call.cloud.db.read_async(work)
    user = found.user
    async with identity.logins.attempt(found.counted_as, call.client) as attempt:
        matches = await identity.passwords.matches(user.password_hash if user else None, named.password)
        right = matches and found.enabled
        if settings.lockout_failures:
            lock = await _noted(call, user, matches=matches, right=right, lock=lock)
        attempt.right = right and not lock.locked
    if user is None or not attempt.right:
        why = f"known {user is not None}, enabled {found.enabled}, locked {lock.locked}"
        raise Unauthorized(UNAUTHENTICATED, private=f"login as {found.counted_as}: {why}")
    if is_expired(user, now_us) and not expired_too:
        raise Unauthorized(f"The password is expired and needs to be changed for user: {user.id}.")
    await note_active(call.cloud.db, user, now_us)
    return await _at_todays_price(call, user, named.password)


async def _noted(call: Call[object, object], user: User | None, *, matches: bool, right: bool, lock: Lock) -> Lock:
    """Count this login. Answers whether the user is locked now: wrong passwords that were compared meanwhile count.
    matches: the password is the user's; right: and the user is enabled.

    Each login that will be refused is one transaction that writes, whoever it names: the time it takes would tell
    whether the user exists, is locked or is exempt.
    """
    settings, now_us = Identity.of(call).settings, call.now_us

    def look(tx: Tx) -> Lock:
        return lock_of(tx, settings, user, now_us) if user is not None else Lock()

    def note(tx: Tx) -> Lock:
        lock = look(tx)
        if user is not None and lock.counts:
            note_login(tx, settings, user.id, now_us, right=matches)
        else:
            note_nothing(tx, call.cloud.clock)
        return lock

    if right and not lock.failures:
        lock = await call.cloud.db.read_async(look)
        if not lock.locked:
            return lock
    noted: Lock = await call.cloud.db.write_async(note)
    return noted


async def _at_todays_price(call: Call[object, object], user: User, password: str) -> User:
    """Hash the password anew where its hash was made with other settings."""
    passwords = Identity.of(call).passwords
    if user.password_hash is None or not passwords.outdated(user.password_hash):
        return user
    fresh: str = await passwords.hash(password)

    def work(tx: Tx) -> None:
        u = store.users.c
        tx.execute(
            update(store.users)
            .where(u.id == user.id, u.password_hash == user.password_hash)
            .values(password_hash=fresh)
        )
        Identity.of(call).changed(tx)

    await call.cloud.db.write_async(work)
    return replace(user, password_hash=fresh)


class _Found(msgspec.Struct, frozen=True, kw_only=True):
    """Who is logging in. user: None where there is none. enabled: the user, who is not idle, and their domain.
    counted_as: the limiter's name for them."""

    user: User | None
    enabled: bool
    counted_as: str


def _find_user(tx: Tx, named: UserNamed | Someone, settings: Settings, now_us: int) -> _Found:
    user: User | None = None
    spelling = ""
    if isinstance(named.id, str):
        user = store.user_by_id(tx, named.id)
        spelling = f"id {named.id}"
    elif isinstance(named.name, str) and isinstance(named.domain, DomainNamed):
        domain = find_domain(tx, named.domain)
        user = store.user_by_name(tx, domain.id, named.name) if domain else None
        # However the domain is named, attempts on a user that is not there count together, as they do on one that is.
        spelling = f"name {named.name} in {domain.id if domain else (named.domain.id, named.domain.name)}"
    if user is None:
        # Hashed because it is as long as the caller likes.
        nobody = hashlib.sha256(spelling.encode("utf-8", "surrogatepass")).hexdigest()
        return _Found(user=None, enabled=False, counted_as=f"nobody {nobody}")
    return _Found(user=user, enabled=_is_enabled(tx, user, settings, now_us), counted_as=user.id)


def _is_enabled(tx: Tx, user: User, settings: Settings, now_us: int) -> bool:
    """Whether a user, who must not be idle, and their domain are enabled."""
    domain = store.domain_by_id(tx, user.domain_id)
    return user.enabled and not is_idle(settings, user, now_us) and domain is not None and domain.enabled


def find_domain(tx: Tx, named: DomainNamed) -> store.Domain | None:
    if isinstance(named.id, str):
        return store.domain_by_id(tx, named.id)
    return store.domain_by_name(tx, named.name) if isinstance(named.name, str) else None


async def application_credential_holder(
    call: Call[object, object], shown: ApplicationCredentialMethod
) -> tuple[User, ApplicationCredential]:
    """The enabled user whose application credential this is, and it; 401 otherwise, 429 when tried too often."""
    identity = Identity.of(call)
    if shown.id is UNSET:
        if shown.name is UNSET or shown.user is UNSET:
            raise expected("id, or name and user", "identity/application_credential")
        check_named_in_domain(shown.user, "identity/application_credential/user")
    user, credential = await call.cloud.db.read_async(
        lambda tx: _find_credential(tx, shown, identity.settings, call.now_us)
    )
    named = credential.id if credential else f"{shown.id} {shown.name} {shown.user}"
    counted_as = f"application credential {hashlib.sha256(named.encode('utf-8', 'surrogatepass')).hexdigest()}"
    async with identity.logins.attempt(counted_as, call.client) as attempt:
        secret_hash = credential.secret_hash if credential else None
        attempt.right = await identity.passwords.matches(secret_hash, shown.secret) and user is not None
    if user is None or credential is None or not attempt.right:
        raise Unauthorized(UNAUTHENTICATED, private=f"login as {counted_as}: known {credential is not None}")
    return user, credential


def _find_credential(
    tx: Tx, shown: ApplicationCredentialMethod, settings: Settings, now_us: int
) -> tuple[User | None, ApplicationCredential | None]:
    """The credential and, if enabled and not idle, its user."""
    credential: ApplicationCredential | None = None
    if isinstance(shown.id, str):
        credential = application_credential_by_id(tx, shown.id)
    elif isinstance(shown.user, Someone):
        found = _find_user(tx, shown.user, settings, now_us)
        if found.user is not None:
            c = application_credentials
            statement = select(c).where(c.c.user_id == found.user.id, c.c.name == shown.name)
            credential = store.one(tx, ApplicationCredential, statement)
    user = store.user_by_id(tx, credential.user_id) if credential is not None else None
    return user if user is not None and _is_enabled(tx, user, settings, now_us) else None, credential


# -- one-time passwords


class WithCode(Someone, secret=True):
    passcode: Annotated[str, Json({"maxLength": 16})]


class TotpMethod(Body, extra="allow", secret=True):
    user: WithCode


async def totp_holder(call: Call[object, object], named: WithCode) -> User:
    """The enabled user one of whose devices shows this code now; 401 otherwise, 429 when tried too often."""
    identity = Identity.of(call)
    check_named_in_domain(named, "identity/totp/user")

    def work(tx: Tx) -> tuple[_Found, list[bytes]]:
        found = _find_user(tx, named, identity.settings, call.now_us)
        return found, keys_of(tx, identity.credential_keys, found.user.id) if found.user is not None else []

    found, keys = await call.cloud.db.read_async(work)
    async with identity.logins.attempt(found.counted_as, call.client) as attempt:
        attempt.right = shows(keys, named.passcode, identity.clock.now_us() // 1_000_000) and found.enabled
    if found.user is None or not attempt.right:
        raise Unauthorized(UNAUTHENTICATED, private=f"one-time password of {found.counted_as}")
    return found.user
