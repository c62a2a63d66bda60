"""os-migrateLive with every body it ever had, right and wrong, by whom and in which state, and what became of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tests.conformance.case import PERSONAS, Case, Request, admin, case

VERSIONS: Final = ("2.1", "2.24", "2.25", "2.30", "2.34", "2.67", "2.68", "2.96", "2.104")
THERE: Final = "{other_host:server}"
OLD: Final[dict[str, object]] = {"host": THERE, "block_migration": False, "disk_over_commit": False}
NEW: Final[dict[str, object]] = {"host": THERE, "block_migration": "auto"}


def migrate(
    name: str, persona: str, version: str, value: object, kind: str = "server", **more: tuple[Request, ...]
) -> Case:
    path = f"/servers/{{{kind}}}/action"
    watch = kind if kind != "unknown" else None
    return case(f"live/{name}", persona, version, "POST", path, {"os-migrateLive": value}, watch=watch, **more)  # type: ignore[arg-type]


def good(version: str, kind: str = "server", host: str | None = None) -> dict[str, object]:
    body = dict(OLD if int(version.split(".")[1]) < 25 else NEW)
    body["host"] = host or f"{{other_host:{kind}}}"
    return body


def bodies() -> dict[str, object]:
    return {
        "2.1 body": OLD,
        "2.1 body all true": {**OLD, "block_migration": True, "disk_over_commit": True},
        "2.1 body strings": {**OLD, "block_migration": "False", "disk_over_commit": "true"},
        "2.1 body host null": {**OLD, "host": None},
        "2.1 body unknown host": {**OLD, "host": "nohost"},
        "2.1 body same host": {**OLD, "host": "{host:server}"},
        "2.25 body": NEW,
        "2.25 body block true": {**NEW, "block_migration": True},
        "2.25 body block false": {**NEW, "block_migration": False},
        "2.25 body host null": {**NEW, "host": None},
        "2.25 body unknown host": {**NEW, "host": "nohost"},
        "2.25 body same host": {**NEW, "host": "{host:server}"},
        "2.30 body force true": {**NEW, "force": True},
        "2.30 body force false": {**NEW, "force": False},
        "2.30 body force text": {**NEW, "force": "True"},
        "force and unknown host": {**NEW, "host": "nohost", "force": True},
        "force without host": {**NEW, "host": None, "force": True},
        "no host": {"block_migration": "auto"},
        "no block_migration": {"host": THERE},
        "no disk_over_commit": {"host": THERE, "block_migration": False},
        "disk_over_commit with auto": {**NEW, "disk_over_commit": False},
        "empty": {},
        "null": None,
        "list": [],
        "text": "x",
        "host number": {**NEW, "host": 5},
        "host empty": {**NEW, "host": ""},
        "host with blank": {**NEW, "host": "a b"},
        "host too long": {**NEW, "host": "x" * 256},
        "host with slash": {**NEW, "host": "ho/st"},
        "host list": {**NEW, "host": [THERE]},
        "host object": {**NEW, "host": {"a": 1}},
        "host true": {**NEW, "host": True},
        "host with dots": {**NEW, "host": "../host1"},
        "host with newline": {**NEW, "host": "host1\n"},
        "host in capitals": {**NEW, "host": "HOST1"},
        "block maybe": {**NEW, "block_migration": "maybe"},
        "block number": {**NEW, "block_migration": 5},
        "block one": {**NEW, "block_migration": 1},
        "block null": {**NEW, "block_migration": None},
        "block AUTO": {**NEW, "block_migration": "AUTO"},
        "unknown key": {**NEW, "zzz": 1},
        "force maybe": {**NEW, "force": "maybe"},
        "force null": {**NEW, "force": None},
    }


def cases() -> Iterator[Case]:
    for name, body in bodies().items():
        for version in VERSIONS:
            yield migrate(name, "admin", version, body)
    yield from callers()
    yield from states()
    yield from hosts()


def callers() -> Iterator[Case]:
    for version in ("2.1", "2.30", "2.96"):
        for persona in PERSONAS:
            if persona != "admin":
                yield migrate("to a host by", persona, version, good(version))
                yield migrate("malformed by", persona, version, {"zzz": 1})
                yield migrate("unknown server by", persona, version, good(version, "unknown", "host1"), "unknown")
            yield migrate("anywhere by", persona, version, {**good(version), "host": None})
        yield migrate("another project's by", "admin", version, good(version, "other"), "other")
        yield migrate("another project's anywhere by", "manager", version, {**good(version), "host": None}, "other")
        yield case(
            "live/not an id",
            "admin",
            version,
            "POST",
            "/servers/zzz/action",
            {"os-migrateLive": good(version, host="host1")},
        )
        body = {"os-migrateLive": good(version), "os-stop": None}
        yield case("live/two actions", "admin", version, "POST", "/servers/{server}/action", body, watch="server")


def states() -> Iterator[Case]:
    for version in ("2.1", "2.30", "2.96"):
        for kind in ("stopped", "paused", "suspended", "error", "locked", "locked_admin"):
            yield migrate(f"when {kind}", "admin", version, good(version, kind), kind)
            yield migrate(f"when {kind}, anywhere", "manager", version, {**good(version, kind), "host": None}, kind)
        yield migrate("when stopped, unknown host", "admin", version, good(version, host="nohost"), "stopped")
        yield migrate("one of two made together", "admin", version, good(version, "pair"), "pair")
        yield migrate("without networks", "admin", version, good(version, "bare"), "bare")
        yield migrate("again", "admin", version, good(version, "migrated"), "migrated")


def hosts() -> Iterator[Case]:
    service = "/os-services/{service:host3}"
    disable, enable = admin("PUT", service, {"status": "disabled"}), admin("PUT", service, {"status": "enabled"})
    down, back = admin("PUT", service, {"forced_down": True}), admin("PUT", service, {"forced_down": False})
    # The server is made elsewhere first, so that host3 is another host.
    for version in VERSIONS:
        for kind in ("on_host1",):
            body = good(version, kind, "host3")
            yield migrate("to a disabled host", "admin", version, body, kind, before=(disable,), after=(enable,))
            yield migrate("to a down host", "admin", version, body, kind, before=(down,), after=(back,))
    for version in ("2.30", "2.67"):
        forced = {**good(version, "on_host1", "host3"), "force": True}
        yield migrate(
            "forced to a disabled host", "admin", version, forced, "on_host1", before=(disable,), after=(enable,)
        )
        yield migrate("forced to a down host", "admin", version, forced, "on_host1", before=(down,), after=(back,))
