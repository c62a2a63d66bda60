"""Microversion headers, paths and methods that do not exist, content types and malformed bodies."""

from __future__ import annotations

from collections.abc import Iterator

from tests.conformance.case import LATEST, PERSONAS, Case, Raw, case

HEADERS = {
    "lowest": {"OpenStack-API-Version": "compute 2.1"},
    "highest": {"OpenStack-API-Version": "compute 2.104"},
    "latest": {"OpenStack-API-Version": "compute latest"},
    "legacy": {"X-OpenStack-Nova-API-Version": "2.53"},
    "legacy latest": {"X-OpenStack-Nova-API-Version": "latest"},
    "both": {"X-OpenStack-Nova-API-Version": "2.53", "OpenStack-API-Version": "compute 2.10"},
    "capitals": {"OpenStack-API-Version": "Compute 2.10"},
    "too low": {"OpenStack-API-Version": "compute 2.0"},
    "too high": {"OpenStack-API-Version": "compute 2.105"},
    "far too high": {"OpenStack-API-Version": "compute 2.100000"},
    "next major": {"OpenStack-API-Version": "compute 3.0"},
    "first major": {"OpenStack-API-Version": "compute 1.1"},
    "no minor": {"OpenStack-API-Version": "compute 2"},
    "three numbers": {"OpenStack-API-Version": "compute 2.1.1"},
    "letters": {"OpenStack-API-Version": "compute abc"},
    "leading zero": {"OpenStack-API-Version": "compute 2.01"},
    "negative": {"OpenStack-API-Version": "compute -2.1"},
    "other service": {"OpenStack-API-Version": "volume 3.60"},
    "service only": {"OpenStack-API-Version": "compute"},
    "number only": {"OpenStack-API-Version": "2.53"},
    "nova": {"OpenStack-API-Version": "nova 2.53"},
    "empty": {"OpenStack-API-Version": ""},
    "two services": {"OpenStack-API-Version": "volume 3.60, compute 2.53"},
    "legacy too high": {"X-OpenStack-Nova-API-Version": "2.999"},
    "legacy letters": {"X-OpenStack-Nova-API-Version": "2.x"},
    "legacy with service": {"X-OpenStack-Nova-API-Version": "compute 2.53"},
}


def cases() -> Iterator[Case]:
    for name, headers in HEADERS.items():
        yield case(f"negotiation/{name}", "member", None, "GET", "/flavors", headers=headers, needs=("flavor",))
    for name in ("too high", "letters"):
        for persona in ("none", "bad", "norole", "other_member"):
            yield case(f"negotiation/{name}", persona, None, "GET", "/servers", headers=HEADERS[name])
        yield case(
            f"negotiation/{name} and unknown server", "member", None, "GET", "/servers/{unknown}", headers=HEADERS[name]
        )
        yield case(f"negotiation/{name} and unknown path", "member", None, "GET", "/zzz", headers=HEADERS[name])
    yield from unknown_paths()
    yield from bodies()
    yield from personas()


def unknown_paths() -> Iterator[Case]:
    for persona in ("none", "bad", "member", "admin"):
        yield case("negotiation/unknown path", persona, "2.1", "GET", "/zzz")
        yield case("negotiation/unknown path", persona, None, "GET", "/servers/{unknown}/zzz")
    for method, path in (
        ("PUT", "/servers"),
        ("PATCH", "/servers"),
        ("DELETE", "/servers"),
        ("POST", "/servers/detail"),
        ("PATCH", "/servers/{unknown}"),
        ("GET", "/servers/{unknown}/action"),
        ("PUT", "/servers/{unknown}/action"),
        ("POST", "/os-migrations"),
        ("POST", "/os-services"),
        ("POST", "/os-hypervisors"),
        ("DELETE", "/flavors"),
        ("POST", "/limits"),
        ("PUT", "/os-availability-zone"),
        ("OPTIONS", "/servers"),
        ("DELETE", "/servers/{unknown}/os-instance-actions"),
    ):
        yield case(f"negotiation/{method} {path}", "member", "2.1", method, path)
    yield case("negotiation/GET through POST path", "none", "2.1", "DELETE", "/servers")
    yield case("negotiation/trailing slash", "member", "2.1", "GET", "/servers/")
    yield case("negotiation/double slash", "member", "2.1", "GET", "//servers")
    yield case("negotiation/json suffix", "member", "2.1", "GET", "/servers.json")
    yield case("negotiation/HEAD", "member", "2.1", "HEAD", "/servers")
    for version in ("2.1", "2.17", "2.18", LATEST):
        yield case("negotiation/own project in the path", "member", version, "GET", "/{project:member}/servers")
        yield case("negotiation/other project in the path", "member", version, "GET", "/{project:other_member}/servers")
        yield case("negotiation/unknown project in the path", "admin", version, "GET", "/zzz/servers")
    yield case("negotiation/other project in the path", "admin", "2.1", "GET", "/{project:other_member}/flavors")
    yield case("negotiation/other project in the path", "system_admin", "2.1", "GET", "/{project:member}/flavors")


def bodies() -> Iterator[Case]:
    kinds = {
        "text": {"Content-Type": "text/plain"},
        "xml": {"Content-Type": "application/xml"},
        "form": {"Content-Type": "application/x-www-form-urlencoded"},
        "json with charset": {"Content-Type": "application/json; charset=UTF-8"},
        "nothing said": {"Content-Type": ""},
    }
    for name, headers in kinds.items():
        for path in ("/servers", "/servers/{unknown}/action"):
            body = Raw('{"server": {}}')
            yield case(
                f"negotiation/content type {name} to {path}", "member", "2.1", "POST", path, body, headers=headers
            )
    for name, text in {
        "not json": "{",
        "trailing comma": '{"server": {},}',
        "list": "[]",
        "text": '"x"',
        "number": "5",
        "null": "null",
        "empty": "",
        "empty object": "{}",
        "two keys": '{"os-start": null, "os-stop": null}',
        "nul": '{"os-start": "\\u0000"}',
    }.items():
        for path in ("/servers", "/servers/{unknown}/action", "/servers/{unknown}", "/flavors", "/os-keypairs"):
            method = "PUT" if path == "/servers/{unknown}" else "POST"
            yield case(f"negotiation/body {name} to {path}", "admin", "2.1", method, path, Raw(text))
    yield case("negotiation/body on GET", "member", "2.1", "GET", "/flavors", Raw("{"))
    yield case("negotiation/body too large", "member", "2.1", "POST", "/servers", {"server": {"name": "x" * 120_000}})
    yield case("negotiation/accept xml", "member", "2.1", "GET", "/flavors", headers={"Accept": "application/xml"})
    yield case("negotiation/accept text", "member", "2.1", "GET", "/flavors", headers={"Accept": "text/html"})


def personas() -> Iterator[Case]:
    """Who may read what: the same list for every persona."""
    for persona in PERSONAS:
        for version, path in (
            ("2.1", "/servers"),
            ("2.96", "/servers/detail?all_tenants=1"),
            ("2.1", "/servers/{unknown}"),
            ("2.1", "/os-services"),
            ("2.88", "/os-hypervisors"),
            ("2.1", "/os-aggregates"),
            ("2.1", "/os-availability-zone"),
            ("2.1", "/os-availability-zone/detail"),
            ("2.59", "/os-migrations"),
            ("2.1", "/limits"),
            ("2.1", "/os-keypairs"),
            ("2.1", "/os-server-groups"),
            ("2.1", "/flavors"),
            ("2.1", "/flavors/detail"),
            ("2.1", "/flavors/{flavor}/os-flavor-access"),
            ("2.1", "/os-quota-sets/{project:member}"),
            ("2.1", "/os-quota-sets/{project:member}/detail"),
            ("2.1", "/os-quota-sets/{project:member}/defaults"),
            ("2.1", "/os-quota-class-sets/default"),
            ("2.1", "/os-simple-tenant-usage"),
            ("2.1", "/os-simple-tenant-usage/{project:member}"),
        ):
            yield case(f"personas/{path}", persona, version, "GET", path, needs=("flavor",), alone=True)
