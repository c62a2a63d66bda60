"""Listing servers: filters, sorting, paging, all projects, changes."""

from __future__ import annotations

from collections.abc import Iterator

from tests.conformance.case import LATEST, PERSONAS, Case, case, reads

QUERIES = (
    "limit=1", "limit=0", "limit=1000", "limit=1001", "limit=-1", "limit=x", "limit=", "limit=1&limit=2", "limit=1.5",
    "marker={tagged}", "marker={unknown}", "marker=zzz", "marker={other}", "limit=1&marker={tagged}",
    "name=conf", "name=conf-pair-1", "name=zzz", "name=%5Econf", "name=%5B", "name=*",
    "status=ACTIVE", "status=active", "status=SHUTOFF", "status=zzz", "status=ACTIVE&status=ERROR", "status=DELETED",
    "vm_state=active", "vm_state=zzz", "task_state=zzz", "power_state=1", "power_state=x",
    "flavor={flavor}", "flavor=zzz", "image={image}", "image=zzz", "host=host1", "host=zzz", "node=host1",
    "uuid={pair}", "uuid=zzz", "user_id={user:member}", "project_id={project:other_member}",
    "tenant_id={project:member}",
    "reservation_id={reservation:pair}", "reservation_id=zzz", "launch_index=1", "launch_index=x", "key_name=zzz",
    "availability_zone=nova", "config_drive=true", "config_drive=x", "progress=0", "progress=x", "hostname=conf-pair-1",
    "ip=192", "ip=10.0.0.1", "ip=%5B", "ip6=2001", "access_ip_v4=192.0.2.1", "access_ip_v4=x", "locked=false",
    "locked=true",
    "locked=maybe", "locked_by=admin", "description=zzz", "root_device_name=zzz", "created_at=2020-01-01T00:00:00",
    "terminated_at=x", "auto_disk_config=true", "metadata=x", "metadata=%7B%22color%22%3A%22blue%22%7D",
    "system_metadata=x",
    "tags=one", "tags=one,two", "tags-any=one,three", "not-tags=one", "not-tags-any=one,two", "tags=", "tags=%5B",
    "sort_key=created_at", "sort_key=zzz", "sort_key=display_name&sort_dir=asc", "sort_dir=x",
    "sort_key=uuid&sort_dir=desc",
    "sort_key=name", "sort_key=locked", "sort_key=host", "sort_key=node", "sort_key=key_name&sort_key=uuid",
    "sort_key=memory_mb", "sort_key=user_data",
    "changes-since=2020-01-01T00:00:00Z", "changes-since=2036-01-01T00:00:00Z", "changes-since=x", "changes-since=",
    "changes-before=2020-01-01T00:00:00Z", "changes-before=2036-01-01T00:00:00Z", "changes-before=x",
    "changes-since=2036-01-01T00:00:00Z&changes-before=2020-01-01T00:00:00Z",
    "deleted=true", "deleted=false", "deleted=x", "soft_deleted=true", "zzz=1", "_zzz=1",
    "all_tenants=1", "all_tenants=0", "all_tenants", "all_tenants=true", "all_tenants=x", "all_tenants=1&limit=1",
    "all_tenants=1&project_id={project:other_member}", "all_tenants=1&all_tenants=0", "info_cache=x", "services=x",
)  # fmt: skip


def cases() -> Iterator[Case]:
    needs = ("pair", "pair2", "tagged", "other", "gone")
    for query in QUERIES:
        for version, persona in (("2.1", "member"), ("2.90", "member"), ("2.90", "admin")):
            yield case(f"list/{query}", persona, version, "GET", f"/servers?{query}", needs=needs, alone=True)
    for query in (
        "tags=one",
        "changes-before=2036-01-01T00:00:00Z",
        "locked=true",
        "sort_key=locked",
        "zzz=1",
        "host=host1",
    ):
        for version in ("2.25", "2.26", "2.65", "2.66", "2.72", "2.73", "2.74", "2.75", LATEST):
            yield case(f"list/at {query}", "member", version, "GET", f"/servers?{query}", needs=needs, alone=True)
    versions = (
        "2.1",
        "2.3",
        "2.9",
        "2.16",
        "2.19",
        "2.26",
        "2.47",
        "2.63",
        "2.69",
        "2.71",
        "2.73",
        "2.75",
        "2.90",
        "2.96",
        "2.98",
        "2.100",
        LATEST,
    )
    yield from reads(
        "list/detail", "/servers/detail", versions=versions, personas=("member", "admin"), needs=needs, alone=True
    )
    yield from reads(
        "list/summary", "/servers", versions=("2.1", "2.69", LATEST), personas=("member",), needs=needs, alone=True
    )
    yield from reads(
        "list/empty", "/servers", versions=("2.1", LATEST), personas=("member", "other_member"), needs=(), alone=True
    )
    yield from reads(
        "list/empty detail", "/servers/detail", versions=("2.1", LATEST), personas=("member",), needs=(), alone=True
    )
    for persona in PERSONAS:
        for query in ("", "?all_tenants=1", "?all_tenants=x", "?deleted=true&uuid={gone}", "?limit=x"):
            yield case(
                f"list/detail{query}", persona, "2.74", "GET", f"/servers/detail{query}", needs=needs, alone=True
            )
    for query in (
        "limit=1",
        "limit=1&marker={tagged}",
        "marker=zzz",
        "status=zzz",
        "all_tenants=1&limit=2",
        "changes-since=2020-01-01T00:00:00Z&reservation_id={reservation:pair}",
        "changes-since=2036-01-01T00:00:00Z&uuid={gone}",
    ):
        yield case(f"list/detail {query}", "member", "2.90", "GET", f"/servers/detail?{query}", needs=needs, alone=True)
        yield case(f"list/detail {query}", "admin", "2.90", "GET", f"/servers/detail?{query}", needs=needs, alone=True)
    for query in ("deleted=true&uuid={gone}", "changes-since=2020-01-01T00:00:00Z&uuid={gone}"):
        for version in ("2.1", "2.90", LATEST):
            yield case(
                f"list/detail {query}", "admin", version, "GET", f"/servers/detail?{query}", needs=needs, alone=True
            )
    error = ("error", "stopped", "locked")
    yield from reads(
        "list/states",
        "/servers/detail",
        versions=("2.1", "2.73", LATEST),
        personas=("member", "admin"),
        needs=error,
        alone=True,
    )
    yield from reads(
        "list/by status", "/servers?status=ERROR", versions=("2.1",), personas=("member",), needs=error, alone=True
    )
    yield from reads(
        "list/locked", "/servers?locked=true", versions=("2.73",), personas=("member",), needs=error, alone=True
    )
