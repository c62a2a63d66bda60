"""The parts of an API process: services over HTTPS, beside other processes on one PostgreSQL, or in `all`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from cumulet import rootless
from cumulet.ca import CertificateAuthority, Issued, check_own_certificate
from cumulet.clock import Clock, SystemClock
from cumulet.conductor.presence import Presence
from cumulet.db import schema
from cumulet.db.clock import AskedAgain, DatabaseClock
from cumulet.db.engine import Database, Tx
from cumulet.fleet.hosts import Hosts
from cumulet.identity import bootstrap as identity_bootstrap
from cumulet.identity.service import Identity
from cumulet.part import OtherState, Part, hosts_offer_of
from cumulet.processes.conductor import OPERATIONS_BEGUN
from cumulet.processes.images import images_into, images_of
from cumulet.processes.remote_hosts import ANY_ADDRESS, RemoteHosts
from cumulet.settings import Settings
from cumulet.space import Space
from cumulet.web.app import App
from cumulet.web.audit import Audit
from cumulet.web.context import Cloud
from cumulet.web.policy import Policy
from cumulet.web.scraper import scraper_token
from cumulet.web.server import Server, serve

NOTHING_PREPARED = "the database holds no cloud of this version: start `cumulet up` on it first"
OTHER_SCHEMA = (
    "the database has schema {there}, and this version of Cumulet knows {here}: where that is newer, run `cumulet "
    "database upgrade` with it; else start the newer version here"
)


class Api(msgspec.Struct, frozen=True, kw_only=True):
    """An API that serves. `cloud`: for its handlers; `certificate`: the one that clients see."""

    cloud: Cloud
    server: Server
    certificate: Issued


async def start_api(
    parts: Sequence[Part],
    settings: Settings,
    hosts: Hosts,
    stack: AsyncExitStack,
    *,
    own: Path,
    clock: Clock | None = None,
) -> Api:
    """An API alone, on the database of a cloud that `cumulet up` has prepared; `stack` ends it.

    `settings.state_dir` has the cloud's keys, certificate authority and images; every process of the cloud sees it.
    `own` is a folder of this process alone: its audit trail is a chain that one process writes, and its certificate
    names its own addresses.
    A conductor carries the operations that requests begin. It is told of them; if a notice is lost, its next sweep
    finds them, after at most a quarter of `lease_seconds`.
    OtherState: the database cannot be shared, or nothing was prepared in it.
    """
    db = await shared_database(settings, stack)
    if not db.read(identity_bootstrap.first_projects):
        raise OtherState(NOTHING_PREPARED)
    shared = await shared_clock(db, clock or SystemClock(), stack)
    identity = Identity(db=db, clock=shared, settings=settings, state_dir=settings.state_dir)
    stack.callback(identity.close)
    authority = CertificateAuthority.load_or_create(settings.state_dir / "ca")
    space = Space()
    remote = RemoteHosts(db=db, clock=shared, settings=settings, hosts=hosts, authority=authority)
    presence = Presence(db=db, clock=shared, role="api", name=f"api-{shared.uuid()}", bus=remote.bus_state)
    cloud = Cloud(
        presence=presence,
        settings=settings,
        space=space,
        door=None if settings.bus is None else remote.door(),
        db=db,
        clock=shared,
        state_dir=settings.state_dir,
        wake=SaidToConductors(),
        hosts=hosts,
        hosts_offer=hosts_offer_of(parts),
        identity=identity,
        policy=Policy.load(settings.policy_file),
    )
    own.mkdir(mode=0o700, parents=True, exist_ok=True)
    if settings.bus is not None:
        stack.push_async_callback(remote.stop)
        await remote.start((images_of(db, settings), images_into(db, settings, shared, space)))
    api = await serve_api(parts, cloud, authority, stack, own=own)
    stack.push_async_callback(presence.stop)
    await presence.start()
    return api


async def serve_api(
    parts: Sequence[Part], cloud: Cloud, authority: CertificateAuthority, stack: AsyncExitStack, *, own: Path
) -> Api:
    """Serve the services of `parts` where `cloud.settings` says; `stack` stops it. `own`: as for `start_api`."""
    settings = cloud.settings
    audit = Audit(own / "audit.jsonl")
    stack.callback(audit.close)
    token = scraper_token(own / "metrics-token", cloud.clock)
    app = App(cloud, [part.service for part in parts], audit=audit, scraper_token=token)
    cloud.db.computed = app.registry.turns.note
    certificate = _certificate(settings, authority, own)
    server = await serve(
        app,
        address=settings.listen_address,
        port=settings.listen_port,
        certificate=certificate.certificate,
        key=certificate.key,
        connections=settings.connections,
        connections_per_address=settings.connections_per_address,
        listening=rootless.listener(),
        turns=app.registry.turns,
    )
    stack.push_async_callback(server.stop)
    return Api(cloud=cloud, server=server, certificate=certificate)


class SaidToConductors:
    """`wake.Wake` of a process without a conductor: all that listen look at once; one that does not, when it sweeps."""

    def operation(self, tx: Tx, operation_id: str) -> None:
        tx.say(OPERATIONS_BEGUN, operation_id)


async def shared_database(settings: Settings, stack: AsyncExitStack) -> Database:
    """Open the database. Raises OtherState if several processes cannot share it, or if it is of another version."""
    db = Database(settings.database_url)
    stack.push_async_callback(asyncio.to_thread, db.close)
    if db.embedded:
        raise OtherState("a role of its own needs PostgreSQL: a SQLite database belongs to one process")
    there = await asyncio.to_thread(schema.version_of, db)
    if there is None:
        raise OtherState(NOTHING_PREPARED)
    if there != schema.HEAD:
        raise OtherState(OTHER_SCHEMA.format(there=there, here=schema.HEAD))
    return db


async def shared_clock(db: Database, inner: Clock, stack: AsyncExitStack) -> Clock:
    """The database's clock, so that times written by one machine can be compared by another."""
    clock = DatabaseClock(db, inner)
    await asyncio.to_thread(clock.ask)
    again = AskedAgain(clock)
    stack.push_async_callback(again.stop)
    await again.start()
    return clock


def issue_server(settings: Settings, authority: CertificateAuthority, own: Path) -> Issued:
    """A certificate of the cloud's own authority for the API whose folder is `own`."""
    return authority.issue_server(own / "ca" / "api", *_vouched_for(settings))


def _certificate(settings: Settings, authority: CertificateAuthority, own: Path) -> Issued:
    """The certificate for HTTPS. Raises BadCertificate for an operator's own that cannot be used."""
    certificate, key = settings.tls_certificate_file, settings.tls_key_file
    if certificate is None or key is None:
        return issue_server(settings, authority, own)
    name = None if settings.public_url is None else urlsplit(settings.public_url).hostname
    check_own_certificate(certificate, key, name=name)
    return Issued(certificate=certificate, key=key, authority=settings.tls_authority_file)


def _vouched_for(settings: Settings) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names and addresses in the API's certificate: where it listens, the loopback ones, and the public name."""
    names, ips = ["localhost"], ["127.0.0.1", "::1"]
    if settings.listen_address not in (*ips, *ANY_ADDRESS):
        ips.insert(0, settings.listen_address)
    if settings.public_url is not None and (public := urlsplit(settings.public_url).hostname):
        is_address = ":" in public or public.replace(".", "").isdecimal()
        (ips if is_address else names).append(public)
    return tuple(dict.fromkeys(names)), tuple(dict.fromkeys(ips))
