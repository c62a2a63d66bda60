"""Interfaces that Nova keeps for old clients: os-hosts, images and their metadata; and what other services tell it."""

from __future__ import annotations

from collections.abc import Iterator

from tests.conformance.case import LATEST, PERSONAS, Case, case

EVENT = {"name": "network-changed", "server_uuid": "{server}"}
LOST = {"name": "network-changed", "server_uuid": "{unknown}"}


def cases() -> Iterator[Case]:
    yield from hosts()
    yield from images()
    yield from events()


def hosts() -> Iterator[Case]:
    for version in ("2.1", "2.42", "2.43", LATEST):
        yield case("hosts/list", "admin", version, "GET", "/os-hosts")
        yield case("hosts/show", "admin", version, "GET", "/os-hosts/{host:server}", alone=True)
        yield case("hosts/show an empty one", "admin", version, "GET", "/os-hosts/host1", alone=True)
        for query in ("zone=nova", "zone=internal", "zone=zzz", "zone=", "service=compute", "zzz=1"):
            yield case(f"hosts/list {query}", "admin", version, "GET", f"/os-hosts?{query}")
        for path in ("", "/reboot", "/shutdown", "/startup"):
            yield case(f"hosts/unknown{path}", "admin", version, "GET", f"/os-hosts/nohost{path}")
        bodies: dict[str, object] = {
            "enable": {"status": "enable"},
            "capitals": {"status": "Disable"},
            "maintenance": {"maintenance_mode": "enable"},
            "nothing": {},
            "maybe": {"status": "maybe"},
            "extra": {"status": "enable", "zzz": 1},
        }
        for name, body in bodies.items():
            yield case(f"hosts/update unknown {name}", "admin", version, "PUT", "/os-hosts/nohost", body)
    for persona in PERSONAS:
        if persona != "admin":
            yield case("hosts/list", persona, "2.42", "GET", "/os-hosts")
            yield case("hosts/show", persona, "2.42", "GET", "/os-hosts/host1")
            yield case("hosts/reboot", persona, "2.42", "GET", "/os-hosts/host1/reboot")
            yield case("hosts/update", persona, "2.42", "PUT", "/os-hosts/host1", {"status": "enable"})


def images() -> Iterator[Case]:
    unknown, key = "/images/{unknown}/metadata", "/images/{unknown}/metadata/colour"
    for version in ("2.1", "2.35", "2.36", "2.38", "2.39"):
        yield case("images/delete unknown", "member", version, "DELETE", "/images/{unknown}")
        yield case("images/delete item of unknown", "member", version, "DELETE", key)
        for method in ("POST", "PUT"):
            yield case(
                f"images/{method} of unknown", "member", version, method, unknown, {"metadata": {"colour": "red"}}
            )
            yield case(f"images/{method} of unknown, text", "member", version, method, unknown, {"metadata": "x"})
        yield case("images/set item of unknown", "member", version, "PUT", key, {"meta": {"colour": "red"}})
        yield case("images/set two items", "member", version, "PUT", key, {"meta": {"colour": "red", "a": "b"}})
        yield case("images/set no item", "member", version, "PUT", key, {"meta": {}})
        yield case("images/set another item", "member", version, "PUT", key, {"meta": {"other": "red"}})
    for persona in ("none", "bad"):
        yield case("images/set item", persona, "2.38", "PUT", key, {"meta": {"colour": "red"}})


def events() -> Iterator[Case]:
    path = "/os-server-external-events"
    lists: dict[str, list[object]] = {
        "one": [EVENT],
        "with a status and a tag": [{**EVENT, "status": "in-progress", "tag": "x"}],
        "one of two lost": [EVENT, LOST],
        "lost": [LOST],
        "of power": [{**EVENT, "name": "power-update", "tag": "POWER_ON"}],
        "of power without a tag": [{**EVENT, "name": "power-update"}],
        "unknown": [{**EVENT, "name": "zzz"}],
        "none": [],
        "without a server": [{"name": "network-changed"}],
        "of no id": [{**EVENT, "server_uuid": "zzz"}],
        "with an unknown status": [{**EVENT, "status": "zzz"}],
        "with an extra key": [{**EVENT, "zzz": 1}],
        "with a long tag": [{**EVENT, "tag": "x" * 256}],
    }
    for version in ("2.1", "2.51", "2.76", "2.82", "2.93", LATEST):
        for name, events_ in lists.items():
            yield case(f"events/{name}", "service", version, "POST", path, {"events": events_})
    for persona in PERSONAS:
        if persona != "service":
            yield case("events/one", persona, "2.1", "POST", path, {"events": [EVENT]})
            yield case("events/malformed", persona, "2.1", "POST", path, {"zzz": 1})
