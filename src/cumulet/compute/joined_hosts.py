"""Hosts on other machines as members of the cloud: invited with a token, joined with a key of their own, removed.

A member is known by an identity that no other member, and no earlier one of its name, has had; and by its key.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Collection

import msgspec
import sqlalchemy as sa

from cumulet.compute import places
from cumulet.compute.store import aggregate_hosts, hosts, migrations
from cumulet.conductor import findings
from cumulet.db.engine import Row, Tx, metadata
from cumulet.host.joining import Refused, same_network
from cumulet.placement.store import allocations, inventories, resource_providers

TOKEN_SECONDS = 15 * 60
_TOKEN_US = TOKEN_SECONDS * 1_000_000
MOST_JOINED = 10_000
_MODULUS = 1_000_000_007
NO_MEMBER = (
    "this cloud does not know this host: it was removed, or the cloud was restored from a backup made before it joined"
)
OTHER_MEMBER = (
    "{host} has joined with another key than this machine has: from another machine, or after this one was removed, or "
    "the cloud was restored from a backup made before this one joined again; guests that run here are not the cloud's "
    "any more, and may be the only copies: save what you need of their disks before you end them"
)
_IDENTITY = "cumulet://host/"

joined_hosts = sa.Table(
    "joined_hosts",
    metadata,
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("identity", sa.String(128), nullable=False, unique=True),
    sa.Column("token_sha256", sa.String(64), unique=True),
    sa.Column("token_ends_at_us", sa.BigInteger),
    sa.Column("key_sha256", sa.String(64)),
    sa.Column("machine", sa.String(128)),
    sa.Column("session", sa.String(128)),
    sa.Column("added_at_us", sa.BigInteger, nullable=False),
    sa.Column("joined_at_us", sa.BigInteger),
)


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """A host that may be on the bus."""

    name: str
    identity: str
    session: str | None
    machine: str | None
    """The one that it joined on, or that its agent last started on."""


def members(tx: Tx) -> list[Member]:
    """Those that have joined."""
    rows = tx.all(sa.select(joined_hosts).where(joined_hosts.c.joined_at_us.is_not(None)))
    return [_member(row) for row in rows]


def mark_of_members(tx: Tx) -> tuple[int, int]:
    """Another one than before if a member has come, has joined again, or has gone. The members are not read for it.

    A member's moment of joining is its own to the microsecond. They are added in a form whose sum SQLite can hold.
    """
    joined_at = sa.func.coalesce(sa.func.sum(joined_hosts.c.joined_at_us % _MODULUS), 0)
    row = tx.first(sa.select(sa.func.count(joined_hosts.c.joined_at_us).label("number"), joined_at.label("moments")))
    assert row is not None
    return int(row.number), int(row.moments)


def member_called(tx: Tx, name: str) -> Member | None:
    """The one of this name, if it has joined."""
    row = row_of(tx, name)
    return None if row is None or row.joined_at_us is None else _member(row)


def any_invited(tx: Tx) -> bool:
    """Whether there is anybody to be let in, or in."""
    return tx.first(sa.select(joined_hosts.c.name).limit(1)) is not None


def invite(tx: Tx, name: str, *, now_us: int) -> str:
    """A new token for a host, which replaces the one before. The token is kept nowhere.

    If the host has joined, the machine that has its key may join again with it, also another one than before. Until
    then nothing changes for it.
    """
    token = secrets.token_urlsafe(32)
    values = {"token_sha256": _hash(token), "token_ends_at_us": now_us + _TOKEN_US}
    if not tx.changed(sa.update(joined_hosts).where(joined_hosts.c.name == name).values(**values)):
        identity = _new_identity(name)
        tx.execute(sa.insert(joined_hosts).values(name=name, identity=identity, added_at_us=now_us, **values))
    return token


def may_join_again(row: Row) -> bool:
    """Whether its token was made after it has joined, and is not used yet."""
    return (
        row.joined_at_us is not None
        and row.token_ends_at_us is not None
        and row.joined_at_us < row.token_ends_at_us - _TOKEN_US
    )


def joins_again(tx: Tx, token: str) -> Member | None:
    """The host that may join again with this token."""
    row = _with_token(tx, token)
    return _member(row) if row is not None and may_join_again(row) else None


def redeem(
    tx: Tx,
    token: str,
    *,
    key_sha256: str,
    known_sha256: str | None = None,
    machine: str,
    now_us: int,
    not_these: Collection[str] = (),
) -> Member:
    """The host a token is for, joined from now on with this key. Once more with the same key is the same: its answer
    may have been lost. Raises Refused; also if the cloud has a host of this name since, or it is one of `not_these`.

    A host that joins again shows the key that it had, `known_sha256`; it has the new one alone from now on, and an
    identity that its certificate from before does not name.
    """
    row = _with_token(tx, token)
    if row is None:
        raise Refused(
            "WRONG_TOKEN", "this token is not one of the cloud's: run the command that `cumulet host add` printed"
        )
    again = may_join_again(row)
    if not again and row.key_sha256 is not None and row.key_sha256 != key_sha256:
        raise Refused(
            "TOKEN_USED", f"{row.name} has joined with this token already, with another key: a token is good once"
        )
    if now_us > row.token_ends_at_us:
        raise Refused(
            "TOKEN_EXPIRED",
            f"the token for {row.name} is older than 15 minutes: run `cumulet host add {row.name}` again",
        )
    if again and row.key_sha256 not in (key_sha256, known_sha256):
        raise Refused(
            "OTHER_KEY",
            f"{row.name} has joined with a key that is not here: it joins again only with the state folder that it had "
            f"(--state); if that is lost, {_bring_elsewhere(row.name)}, and join anew",
        )
    if row.joined_at_us is None and known_sha256 is not None:
        raise Refused(
            "OTHER_HOST",
            f"this machine's state folder belongs to another host than {row.name}: run what `cumulet host add` printed "
            "for that one, or name another folder with --state",
        )
    if row.joined_at_us is None and (
        row.name in not_these or tx.first(sa.select(hosts.c.name).where(hosts.c.name == row.name)) is not None
    ):
        raise Refused(
            "NAME_TAKEN",
            f"the cloud has a host {row.name} of its own since this token was made: run `cumulet host add` with "
            "another name",
        )
    if row.joined_at_us is None and (other := _here(tx, machine)) is not None:
        raise Refused(
            "MACHINE_TAKEN",
            f"this machine is the host {other} of this cloud already, and a machine is one host: start its agent with "
            f"the state folder that it has (--state); if that is lost, {_bring_elsewhere(other)}, and then run this "
            "again",
        )
    identity = _new_identity(row.name) if again else row.identity
    at_us = now_us if again or row.joined_at_us is None else row.joined_at_us
    joined = {"identity": identity, "key_sha256": key_sha256, "machine": machine, "joined_at_us": at_us}
    tx.execute(sa.update(joined_hosts).where(joined_hosts.c.name == row.name).values(**joined))
    return Member(name=row.name, identity=identity, session=row.session, machine=machine)


def member(tx: Tx, identity: str, key_sha256: str) -> Member:
    """Whose certificate this is. Raises Refused where it is no member's, or not any more."""
    row = tx.first(sa.select(joined_hosts).where(joined_hosts.c.identity == identity))
    if row is None or row.joined_at_us is None or row.key_sha256 != key_sha256:
        name = _name_in(identity)
        if (now := row_of(tx, name)) is not None and now.joined_at_us is not None:
            raise Refused("OTHER_MEMBER", OTHER_MEMBER.format(host=name))
        raise Refused("NO_MEMBER", NO_MEMBER)
    return _member(row)


def take_session(tx: Tx, name: str, *, before: str | None, session: str, machine: str) -> bool:
    """This start of its agent is the host's from now on, unless another one was quicker."""
    held = joined_hosts.c.session.is_(None) if before is None else joined_hosts.c.session == before
    changes = sa.update(joined_hosts).where(joined_hosts.c.name == name, held)
    return tx.changed(changes.values(session=session, machine=machine)) == 1


def note_twice(tx: Tx, name: str, *, address: str, why: str, now_us: int) -> None:
    done = f"the agent at {address} was refused: {why}"
    findings.note(tx, "hosts", "same-identity-twice", done, now_us=now_us, host=name)


def remove(tx: Tx, name: str) -> None:
    """It is no member any more, no host, and in no aggregate. `why_not` was asked before. One that has not joined is
    only uninvited: a host of its name is another one."""
    has_joined = (row := row_of(tx, name)) is not None and row.joined_at_us is not None
    tx.execute(sa.delete(joined_hosts).where(joined_hosts.c.name == name))
    if not has_joined:
        return
    tx.touch(name)
    provider = sa.select(resource_providers.c.id).where(resource_providers.c.name == name).scalar_subquery()
    tx.execute(sa.delete(inventories).where(inventories.c.provider_id == provider))
    tx.execute(sa.delete(resource_providers).where(resource_providers.c.name == name))
    tx.execute(sa.delete(aggregate_hosts).where(aggregate_hosts.c.host == name))
    tx.execute(sa.delete(hosts).where(hosts.c.name == name))


def why_not(tx: Tx, name: str) -> str | None:
    """What keeps a host from being removed."""
    moving = sa.select(migrations.c.id).where(migrations.c.destination_host == name, migrations.c.ended_at_us.is_(None))
    if places.any_on(tx, [name]) or tx.first(moving) is not None:
        return (
            f"{name} has servers, or some are on their way to it: move them to another host, or delete them, first. "
            f"If its certificate has ended, `cumulet host add {name}` lets it come back with them"
        )
    if (provider := tx.first(sa.select(resource_providers).where(resource_providers.c.name == name))) is None:
        return None
    if tx.first(sa.select(allocations.c.used).where(allocations.c.provider_id == provider.id)) is not None:
        return f"{name} has allocations in placement that are no server's: delete them first"
    if tx.first(sa.select(resource_providers.c.id).where(resource_providers.c.parent_uuid == provider.uuid)):
        return f"{name} has child resource providers in placement: delete them first"
    return None


def row_of(tx: Tx, name: str) -> Row | None:
    """Of a host that has joined, or may; else None."""
    return tx.first(sa.select(joined_hosts).where(joined_hosts.c.name == name))


def rows(tx: Tx) -> list[Row]:
    return tx.all(sa.select(joined_hosts).order_by(joined_hosts.c.name))


def _bring_elsewhere(name: str) -> str:
    """What to do about a host that will not come back."""
    return (
        f"bring its servers elsewhere (`openstack compute service set --down {name} nova-compute`, `openstack server "
        f"evacuate`), run `cumulet host remove {name}`"
    )


def _here(tx: Tx, machine: str) -> str | None:
    """The host whose agent makes the network that the agent of this machine would make."""
    known = tx.all(sa.select(joined_hosts).where(joined_hosts.c.joined_at_us.is_not(None)))
    return next((row.name for row in known if row.machine is not None and same_network(row.machine, machine)), None)


def _member(row: Row) -> Member:
    return Member(name=row.name, identity=row.identity, session=row.session, machine=row.machine)


def _with_token(tx: Tx, token: str) -> Row | None:
    return tx.first(sa.select(joined_hosts).where(joined_hosts.c.token_sha256 == _hash(token)))


def _new_identity(name: str) -> str:
    return f"{_IDENTITY}{name}/{secrets.token_hex(8)}"


def _name_in(identity: str) -> str:
    return identity.removeprefix(_IDENTITY).partition("/")[0]


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
