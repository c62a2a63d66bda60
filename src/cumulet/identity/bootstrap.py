"""What a cloud has before anybody uses it: a domain, roles, two users, projects, the catalog; and clouds.yaml."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Literal

import msgspec
import yaml
from sqlalchemy import insert, update

from cumulet.clock import Clock
from cumulet.db.engine import Database, Tx
from cumulet.identity import holding, store
from cumulet.identity.api import DEFAULT_DOMAIN_ID, new_id
from cumulet.identity.service import Identity
from cumulet.owned import write_whole
from cumulet.part import CatalogEntry

ROLES = ("admin", "manager", "member", "reader", "service")
IMPLICATIONS = (("admin", "manager"), ("manager", "member"), ("member", "reader"))
PROJECTS = ("admin", "demo", "service")
CLOUDS = {"cumulet": "admin", "demo": "demo"}
"""The entries of clouds.yaml: each logs in as the user, and into the project, of one name."""


class Passwords(msgspec.Struct, frozen=True, kw_only=True):
    """The passwords of the two first users, by user name, and what became of them at this start."""

    by_user: Mapping[str, str]
    origin: Literal["made", "kept", "replaced"]
    """made: first start; kept: found in clouds.yaml; replaced: clouds.yaml was lost, or a
    first start ended before it was written, so these are new."""

    def __repr__(self) -> str:
        return f"<Passwords of {', '.join(self.by_user)}, {self.origin}>"


class FirstPasswords(msgspec.Struct, frozen=True, kw_only=True):
    """Passwords of the two first users, by user name: found in clouds.yaml, or made anew and being hashed."""

    by_user: dict[str, str]
    hashes: dict[str, Future[str]] | None


def begin(identity: Identity, clouds_file: Path) -> FirstPasswords:
    """Find or make the first users' passwords. Other threads hash new ones while the caller goes on."""
    found = read_passwords(clouds_file)
    return _make(identity) if found is None else FirstPasswords(by_user=found, hashes=None)


def _make(identity: Identity) -> FirstPasswords:
    by_user = {user: _password(identity.clock) for user in CLOUDS.values()}
    hashes = {user: identity.passwords.begin_hash(password) for user, password in by_user.items()}
    return FirstPasswords(by_user=by_user, hashes=hashes)


def prepare(db: Database, identity: Identity, first: FirstPasswords, catalog: Mapping[str, CatalogEntry]) -> Passwords:
    """Seed a new cloud, or make sure of an old one's first users. Before the loop runs: it may wait for two hashes.

    `catalog`: by type of service.
    """
    seeded = db.read(lambda tx: store.domain_by_id(tx, DEFAULT_DOMAIN_ID)) is not None
    if seeded and first.hashes is None:
        return Passwords(by_user=first.by_user, origin="kept")
    made = first if first.hashes is not None else _make(identity)
    assert made.hashes is not None
    hashes = {user: hashed.result() for user, hashed in made.hashes.items()}

    def work(tx: Tx) -> None:
        if seeded:
            _replace(tx, hashes, identity.clock)
        else:
            _seed(tx, hashes, identity.clock, identity.settings.region, catalog)
        identity.changed(tx)

    db.write(work)
    return Passwords(by_user=made.by_user, origin="replaced" if seeded else "made")


def _password(clock: Clock) -> str:
    return base64.urlsafe_b64encode(clock.token_bytes(24)).decode()


def _replace(tx: Tx, hashes: Mapping[str, str], clock: Clock) -> None:
    for name, password_hash in hashes.items():
        user = store.user_by_name(tx, DEFAULT_DOMAIN_ID, name)
        if user is not None:
            values = {"password_hash": password_hash, "last_active_us": clock.now_us()}
            tx.execute(update(store.users).where(store.users.c.id == user.id).values(values))
            store.revoke_tokens(tx, store.users, user.id, clock.now_us())


def _seed(tx: Tx, hashes: Mapping[str, str], clock: Clock, region: str, catalog: Mapping[str, CatalogEntry]) -> None:
    tx.execute(insert(store.domains).values(id=DEFAULT_DOMAIN_ID, name="Default", description="The default domain"))
    role_ids = {name: new_id(clock) for name in ROLES}
    for name, role_id in role_ids.items():
        tx.execute(insert(store.roles).values(id=role_id, name=name, options={"immutable": True}))
    for prior, implied in IMPLICATIONS:
        values = {"prior_role_id": role_ids[prior], "implied_role_id": role_ids[implied]}
        tx.execute(insert(store.implied_roles).values(**values))
    project_ids = {name: new_id(clock) for name in PROJECTS}
    for name, project_id in project_ids.items():
        tx.execute(insert(store.projects).values(id=project_id, domain_id=DEFAULT_DOMAIN_ID, name=name))
    user_ids = {name: new_id(clock) for name in CLOUDS.values()}
    for name, user_id in user_ids.items():
        values = {"id": user_id, "domain_id": DEFAULT_DOMAIN_ID, "name": name, "password_hash": hashes[name]}
        tx.execute(insert(store.users).values(**values, last_active_us=clock.now_us()))
    holding.assign(tx, user_ids["admin"], "project", project_ids["admin"], role_ids["admin"])
    holding.assign(tx, user_ids["admin"], "system", "all", role_ids["admin"])
    holding.assign(tx, user_ids["demo"], "project", project_ids["demo"], role_ids["member"])
    _seed_catalog(tx, clock, region, catalog)


def _seed_catalog(tx: Tx, clock: Clock, region: str, catalog: Mapping[str, CatalogEntry]) -> None:
    tx.execute(insert(store.regions).values(id=region))
    for kind, entry in catalog.items():
        service_id = new_id(clock)
        tx.execute(insert(store.services).values(id=service_id, type=kind, name=entry.name))
        for interface in entry.interfaces:
            values = {"service_id": service_id, "interface": interface, "region_id": region, "url": entry.path}
            tx.execute(insert(store.endpoints).values(id=new_id(clock), **values))


def first_projects(tx: Tx) -> dict[str, str]:
    """The ids of the projects a first start makes, by name."""
    found = {name: store.project_by_name(tx, DEFAULT_DOMAIN_ID, name) for name in PROJECTS}
    return {name: project.id for name, project in found.items() if project is not None}


class _Auth(msgspec.Struct):
    password: str


class _Entry(msgspec.Struct):
    """What is read of an entry of clouds.yaml."""

    auth: _Auth


def read_passwords(clouds_file: Path) -> dict[str, str] | None:
    """The first users' passwords as clouds.yaml has them; None where it is lost or lacks one."""
    clouds = _read_clouds(clouds_file)
    try:
        return {user: msgspec.convert(clouds[cloud], _Entry).auth.password for cloud, user in CLOUDS.items()}
    except (KeyError, msgspec.ValidationError):
        return None


def _read_clouds(clouds_file: Path) -> dict[str, object]:
    try:
        content = yaml.safe_load(clouds_file.read_text(encoding="utf-8"))
    except (FileNotFoundError, yaml.YAMLError):
        return {}
    clouds = content.get("clouds") if isinstance(content, dict) else None
    return clouds if isinstance(clouds, dict) else {}


def write_clouds_yaml(
    path: Path, *, auth_url: str, cacert: Path | None, passwords: Mapping[str, str], region: str
) -> None:
    """Write the entries `cumulet` and `demo`, leaving other clouds in the file alone. Atomic, mode 0600."""
    clouds = _read_clouds(path)
    for cloud, user in CLOUDS.items():
        clouds[cloud] = {
            "auth": {
                "auth_url": auth_url,
                "username": user,
                "password": passwords[user],
                "project_name": user,
                "user_domain_name": "Default",
                "project_domain_name": "Default",
            },
            "region_name": region,
            "interface": "public",
            "identity_api_version": 3,
            **({"cacert": str(cacert)} if cacert is not None else {}),
        }
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_whole(path, yaml.safe_dump({"clouds": clouds}, sort_keys=False).encode())
