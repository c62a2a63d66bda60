"""What `cumulet up` prepares: a cloud's state folder, its database, its first users. Other processes find it there."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec

from cumulet.clock import Clock, SystemClock
from cumulet.db import schema
from cumulet.db.engine import Database
from cumulet.db.own_folder import own_database, own_folder
from cumulet.db.shared import shared_clock
from cumulet.fleet.hosts import Hosts
from cumulet.identity import bootstrap
from cumulet.identity.service import Identity
from cumulet.owned import write_whole
from cumulet.part import Part, catalog_of
from cumulet.processes.certificates import Certificates, certificates_of
from cumulet.processes.ground import Ground
from cumulet.processes.same_cloud import require_keys, require_same_cloud
from cumulet.settings import Settings
from cumulet.space import Space


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """A cloud before anything of it runs. `clouds_file`: where the first users' passwords are kept."""

    parts: Sequence[Part]
    ground: Ground
    identity: Identity
    certificates: Certificates
    passwords: bootstrap.Passwords
    clouds_file: Path


async def prepare_cloud(
    settings: Settings, clock: Clock | None, more_parts: Sequence[Part], stack: AsyncExitStack
) -> Prepared:
    """Make a new cloud's state, or mend what is left of an earlier start; `stack` ends it. Raises OtherState.

    `clock` and `more_parts`: as for `all.start_cloud`.
    """
    require_keys(settings.state_dir, settings.database_url)
    reserved = own_folder(settings)
    require_same_cloud(settings.state_dir, settings.database_url)
    own_database(settings)
    db = Database(settings.database_url)
    stack.push_async_callback(asyncio.to_thread, db.close)
    schema.refuse_moved(db)
    if clock is None:  # Nobody shares SQLite, so the clock is this machine's.
        clock = SystemClock() if db.embedded else await shared_clock(db, SystemClock(), stack)
    identity = Identity(db=db, clock=clock, settings=settings, state_dir=settings.state_dir)
    stack.callback(identity.close)
    clouds_file = settings.state_dir / "clouds.yaml"
    first_passwords = bootstrap.begin(identity, clouds_file)
    from cumulet.processes.parts import PARTS  # while the passwords are hashed

    parts = (*PARTS, *more_parts)
    certificates = await certificates_of(settings.state_dir, clock, stack)
    await schema.prepare_unless_cancelled(db)
    passwords = bootstrap.prepare(db, identity, first_passwords, catalog_of(parts))
    for part in parts:
        if part.mend is not None:
            part.mend(db, settings, clock)
    _note_driver(settings)
    hosts = Hosts()
    stack.push_async_callback(hosts.close)
    return Prepared(
        parts=parts,
        ground=Ground(settings=settings, db=db, clock=clock, hosts=hosts, space=Space(reserve_is_given=not reserved)),
        identity=identity,
        certificates=certificates,
        passwords=passwords,
        clouds_file=clouds_file,
    )


def _note_driver(settings: Settings) -> None:
    """What the state was made with. It is not written anew: on a full disk, an empty file would be left."""
    file, words = settings.state_dir / "driver", f"{settings.driver}\n".encode()
    if not file.exists() or file.read_bytes() != words:
        write_whole(file, words, 0o644)
