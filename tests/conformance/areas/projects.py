"""What belongs to a project as a whole: limits, quotas, usage, server groups."""

from __future__ import annotations

from collections.abc import Iterator

from tests.conformance.case import LATEST, PERSONAS, Case, Request, admin, case, reads

QUOTA = "/os-quota-sets/{project:other_member}"
RESET = (admin("DELETE", QUOTA),)


def cases() -> Iterator[Case]:
    versions = ("2.1", "2.35", "2.36", "2.38", "2.39", "2.56", "2.57", "2.75", LATEST)
    yield from reads("limits/show", "/limits", versions=versions, alone=True)
    for query in ("tenant_id={project:other_member}", "reserved=1", "zzz=1", "tenant_id=zzz"):
        for version in ("2.1", "2.57", "2.75"):
            for persona in ("member", "admin"):
                yield case(f"limits/show {query}", persona, version, "GET", f"/limits?{query}", alone=True)
    yield from quotas()
    yield from usage()
    yield from server_groups()


def quotas() -> Iterator[Case]:
    versions = ("2.1", "2.35", "2.36", "2.49", "2.50", "2.56", "2.57", LATEST)
    for name, path in (("show", ""), ("detail", "/detail"), ("defaults", "/defaults")):
        for version in versions:
            yield case(
                f"quotas/{name}", "admin", version, "GET", f"/os-quota-sets/{{project:member}}{path}", alone=True
            )
            yield case(
                f"quotas/{name}", "member", version, "GET", f"/os-quota-sets/{{project:member}}{path}", alone=True
            )
        for persona in PERSONAS:
            yield case(f"quotas/{name} of the other project", persona, "2.57", "GET", f"{QUOTA}{path}")
        yield case(f"quotas/{name} of a user", "admin", "2.57", "GET", f"{QUOTA}{path}?user_id={{user:other_member}}")
        yield case(f"quotas/{name} of an unknown project", "admin", "2.57", "GET", f"/os-quota-sets/zzz{path}")
        yield case(f"quotas/{name} unknown query", "admin", "2.74", "GET", f"{QUOTA}{path}?zzz=1")
        yield case(f"quotas/{name} unknown query", "admin", "2.75", "GET", f"{QUOTA}{path}?zzz=1")
    for version in versions:
        yield case("quotas/class", "admin", version, "GET", "/os-quota-class-sets/default")
        yield case("quotas/update", "admin", version, "PUT", QUOTA, {"quota_set": {"instances": 5}}, undo=RESET)
        yield case("quotas/reset", "admin", version, "DELETE", QUOTA)
    changes: dict[str, dict[str, object]] = {
        "nothing": {},
        "unlimited": {"cores": -1},
        "below unlimited": {"cores": -2},
        "text": {"cores": "7"},
        "words": {"cores": "x"},
        "float": {"cores": 1.5},
        "huge": {"cores": 2**31},
        "null": {"cores": None},
        "forced": {"cores": 1, "force": True},
        "forced maybe": {"cores": 1, "force": "maybe"},
        "networks": {"floating_ips": 5},
        "files": {"injected_files": 5},
        "groups": {"server_groups": 5, "server_group_members": 5},
        "unknown": {"zzz": 5},
        "tenant id": {"tenant_id": "{project:other_member}", "ram": 4096},
        "own": {"instances": 7},
    }
    for name, change in changes.items():
        for version in ("2.1", "2.36", "2.57"):
            yield case(f"quotas/update {name}", "admin", version, "PUT", QUOTA, {"quota_set": change}, undo=RESET)
    for persona in PERSONAS:
        if persona != "admin":
            yield case("quotas/update", persona, "2.57", "PUT", QUOTA, {"quota_set": {"instances": 5}})
            yield case("quotas/reset", persona, "2.57", "DELETE", QUOTA)
    yield case("quotas/class unknown", "admin", "2.57", "GET", "/os-quota-class-sets/zzz")
    yield case("quotas/update without a set", "admin", "2.57", "PUT", QUOTA, {})


def usage() -> Iterator[Case]:
    one, every = "/os-simple-tenant-usage/{project:member}", "/os-simple-tenant-usage"
    period = "start=2020-01-01T00:00:00&end=2036-01-01T00:00:00"
    for version in ("2.1", "2.39", "2.40", "2.75", LATEST):
        yield case("usage/list", "admin", version, "GET", f"{every}?{period}", needs=("server", "gone"), alone=True)
        yield case(
            "usage/list detailed",
            "admin",
            version,
            "GET",
            f"{every}?detailed=1&{period}",
            needs=("server", "gone"),
            alone=True,
        )
        yield case("usage/show", "member", version, "GET", f"{one}?{period}", needs=("server", "gone"), alone=True)
    for query in (
        "start=2020-01-01T00:00:00",
        "start=x",
        "end=2020-01-01T00:00:00",
        "start=2030-01-01T00:00:00&end=2020-01-01T00:00:00",
        "zzz=1",
        "limit=1",
        "limit=x",
        "detailed=x",
    ):
        yield case(
            f"usage/list {query}", "admin", "2.40", "GET", f"{every}?{query}", needs=("server", "gone"), alone=True
        )
    yield case(
        "usage/show nothing",
        "other_member",
        "2.40",
        "GET",
        "/os-simple-tenant-usage/{project:other_member}",
        needs=("server", "gone"),
        alone=True,
    )


def server_groups() -> Iterator[Case]:
    versions = ("2.1", "2.12", "2.13", "2.15", "2.63", "2.64", LATEST)
    yield from reads("groups/list", "/os-server-groups", versions=versions, needs=("group",))
    yield from reads("groups/show", "/os-server-groups/{group}", versions=versions)
    for persona in PERSONAS:
        yield case("groups/show by", persona, "2.64", "GET", "/os-server-groups/{group}")
    for query in ("limit=1", "limit=x", "offset=1", "all_projects=1", "zzz=1"):
        for version in ("2.1", "2.75"):
            for persona in ("member", "admin"):
                yield case(
                    f"groups/list {query}", persona, version, "GET", f"/os-server-groups?{query}", needs=("group",)
                )
    undo = (Request(method="DELETE", path="/os-server-groups/{answer:server_group.id}", persona="member"),)
    bodies: dict[str, dict[str, object]] = {
        "policies": {"name": "g", "policies": ["affinity"]},
        "soft policies": {"name": "g", "policies": ["soft-anti-affinity"]},
        "policy": {"name": "g", "policy": "affinity"},
        "policy and rules": {"name": "g", "policy": "anti-affinity", "rules": {"max_server_per_host": 2}},
        "rules as text": {"name": "g", "policy": "anti-affinity", "rules": {"max_server_per_host": "2"}},
        "rules zero": {"name": "g", "policy": "anti-affinity", "rules": {"max_server_per_host": 0}},
        "rules with affinity": {"name": "g", "policy": "affinity", "rules": {"max_server_per_host": 2}},
        "rules unknown": {"name": "g", "policy": "anti-affinity", "rules": {"zzz": 2}},
        "unknown policy": {"name": "g", "policy": "zzz"},
        "two policies": {"name": "g", "policies": ["affinity", "anti-affinity"]},
        "no policy": {"name": "g"},
        "empty policies": {"name": "g", "policies": []},
        "no name": {"policy": "affinity"},
        "name empty": {"name": "", "policy": "affinity"},
        "extra": {"name": "g", "policy": "affinity", "zzz": 1},
    }
    for name, body in bodies.items():
        for version in ("2.1", "2.15", "2.64"):
            yield case(
                f"groups/create {name}",
                "member",
                version,
                "POST",
                "/os-server-groups",
                {"server_group": body},
                undo=undo,
            )
    for persona in ("none", "norole", "reader", "service", "system_admin"):
        yield case("groups/create", persona, "2.64", "POST", "/os-server-groups", {"server_group": bodies["policy"]})
        yield case("groups/delete", persona, "2.64", "DELETE", "/os-server-groups/{group}")
    yield case("groups/delete", "other_member", "2.64", "DELETE", "/os-server-groups/{group}")
    yield case("groups/delete", "member", "2.64", "DELETE", "/os-server-groups/{group}")
    yield case("groups/delete", "admin", "2.64", "DELETE", "/os-server-groups/{group}")
    for method in ("GET", "DELETE"):
        yield case(f"groups/{method} unknown", "member", "2.64", method, "/os-server-groups/{unknown}")
        yield case(f"groups/{method} not an id", "member", "2.64", method, "/os-server-groups/zzz")
