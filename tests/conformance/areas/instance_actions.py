"""The log of what was done to a server."""

from __future__ import annotations

from collections.abc import Iterator

from tests.conformance.case import LATEST, PERSONAS, Case, case, reads

VERSIONS = (
    "2.1",
    "2.20",
    "2.21",
    "2.50",
    "2.51",
    "2.57",
    "2.58",
    "2.61",
    "2.62",
    "2.65",
    "2.66",
    "2.83",
    "2.84",
    "2.102",
    LATEST,
)


def cases() -> Iterator[Case]:
    path = "/servers/{migrated}/os-instance-actions"
    for kind in ("migrated", "stopped"):
        yield from reads(
            f"log/list {kind}",
            f"/servers/{{{kind}}}/os-instance-actions",
            versions=VERSIONS,
            personas=("member", "admin"),
        )
        yield from reads(
            f"log/show {kind}",
            f"/servers/{{{kind}}}/os-instance-actions/{{request:{kind}}}",
            versions=VERSIONS,
            personas=("reader", "admin"),
        )
    for persona in PERSONAS:
        yield case("log/list by", persona, "2.62", "GET", path)
        yield case("log/show by", persona, "2.62", "GET", f"{path}/{{request:migrated}}")
        yield case("log/list of unknown", persona, "2.62", "GET", "/servers/{unknown}/os-instance-actions")
    for query in (
        "limit=1",
        "limit=0",
        "limit=x",
        "marker={request:migrated}",
        "marker=zzz",
        "changes-since=2020-01-01T00:00:00Z",
        "changes-since=2036-01-01T00:00:00Z",
        "changes-since=x",
        "changes-before=2036-01-01T00:00:00Z",
        "changes-before=x",
        "zzz=1",
        "limit=1&limit=2",
    ):
        for version in ("2.1", "2.58", "2.66", LATEST):
            yield case(f"log/list {query}", "member", version, "GET", f"{path}?{query}")
    yield from reads("log/show unknown", f"{path}/req-{{unknown}}", versions=("2.1", LATEST))
    yield from reads("log/show zzz", f"{path}/zzz", versions=("2.1",))
    yield from reads(
        "log/of another server", "/servers/{stopped}/os-instance-actions/{request:migrated}", versions=("2.1",)
    )
    yield from reads(
        "log/list of gone",
        "/servers/{gone}/os-instance-actions",
        versions=("2.20", "2.21", LATEST),
        personas=("member", "admin"),
    )
    yield from reads(
        "log/show of gone",
        "/servers/{gone}/os-instance-actions/{request:gone}",
        versions=("2.21",),
        personas=("admin",),
    )
    for version in ("2.101", "2.102"):
        yield case("log/show unknown query", "member", version, "GET", f"{path}/{{request:migrated}}?zzz=1")
