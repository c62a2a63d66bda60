"""What hangs below a server: metadata, tags, addresses, interfaces, volumes, security groups, diagnostics, consoles."""

from __future__ import annotations

from collections.abc import Iterator

from tests.conformance.case import LATEST, PERSONAS, Case, admin, case, reads


def cases() -> Iterator[Case]:
    yield from metadata()
    yield from tags()
    yield from addresses()
    yield from interfaces()
    yield from volumes()
    yield from others()


def metadata() -> Iterator[Case]:
    path = "/servers/{server}/metadata"
    for persona in PERSONAS:
        yield case("metadata/list", persona, "2.1", "GET", path)
        yield case("metadata/create", persona, "2.1", "POST", path, {"metadata": {"a": "b"}})
        yield case("metadata/delete", persona, "2.1", "DELETE", f"{path}/color")
    yield from reads("metadata/show", f"{path}/color", versions=("2.1", LATEST))
    yield from reads("metadata/show unknown", f"{path}/zzz", versions=("2.1",))
    yield from reads(
        "metadata/list of unknown", "/servers/{unknown}/metadata", versions=("2.1",), personas=("member", "norole")
    )
    sets: dict[str, object] = {
        "one": {"metadata": {"a": "b"}},
        "empty": {"metadata": {}},
        "number": {"metadata": {"a": 1}},
        "null": {"metadata": {"a": None}},
        "list": {"metadata": []},
        "bad key": {"metadata": {"a/b": "x"}},
        "empty key": {"metadata": {"": "x"}},
        "long key": {"metadata": {"k" * 256: "x"}},
        "long value": {"metadata": {"k": "x" * 256}},
        "too many": {"metadata": {f"k{number}": "x" for number in range(129)}},
        "nothing": {},
        "extra": {"metadata": {}, "zzz": 1},
    }
    for name, body in sets.items():
        yield case(f"metadata/create {name}", "member", "2.1", "POST", path, body)
        yield case(f"metadata/replace {name}", "member", "2.1", "PUT", path, body)
    one: dict[str, object] = {
        "other value": {"meta": {"color": "red"}},
        "other key": {"meta": {"shape": "round"}},
        "two": {"meta": {"color": "red", "shape": "round"}},
        "number": {"meta": {"color": 1}},
        "nothing": {"meta": {}},
        "no meta": {},
    }
    for name, body in one.items():
        yield case(f"metadata/update {name}", "member", "2.1", "PUT", f"{path}/color", body)
    yield case("metadata/delete unknown", "member", "2.1", "DELETE", f"{path}/zzz")
    yield case(
        "metadata/create on locked", "member", "2.1", "POST", "/servers/{locked}/metadata", {"metadata": {"a": "b"}}
    )
    yield case(
        "metadata/create on locked_admin",
        "member",
        "2.1",
        "POST",
        "/servers/{locked_admin}/metadata",
        {"metadata": {"a": "b"}},
    )


def tags() -> Iterator[Case]:
    path = "/servers/{tagged}/tags"
    for version in ("2.25", "2.26", LATEST):
        yield case("tags/list", "member", version, "GET", path)
        yield case("tags/show", "member", version, "GET", f"{path}/one")
        yield case("tags/show unknown", "member", version, "GET", f"{path}/zzz")
        yield case("tags/add", "member", version, "PUT", f"{path}/three")
        yield case("tags/add again", "member", version, "PUT", f"{path}/one")
        yield case("tags/replace", "member", version, "PUT", path, {"tags": ["four"]})
        yield case("tags/delete", "member", version, "DELETE", f"{path}/one")
        yield case("tags/delete unknown", "member", version, "DELETE", f"{path}/zzz")
        yield case("tags/delete all", "member", version, "DELETE", path)
    for persona in PERSONAS:
        yield case("tags/list", persona, "2.90", "GET", path)
        yield case("tags/add", persona, "2.90", "PUT", f"{path}/three")
    for name, value in {
        "number": [1],
        "comma": ["a,b"],
        "slash": ["a/b"],
        "empty text": [""],
        "long": ["x" * 61],
        "many": [f"t{number}" for number in range(51)],
        "twice": ["a", "a"],
        "text": "a",
        "null": None,
        "none": [],
    }.items():
        yield case(f"tags/replace {name}", "member", "2.90", "PUT", path, {"tags": value})
    yield case("tags/replace extra", "member", "2.90", "PUT", path, {"tags": [], "zzz": 1})
    yield case("tags/add with a body", "member", "2.90", "PUT", f"{path}/three", {"zzz": 1})
    yield case("tags/add a comma", "member", "2.90", "PUT", f"{path}/a,b")
    yield case("tags/add a long one", "member", "2.90", "PUT", f"{path}/{'x' * 61}")
    yield case("tags/list of unknown", "member", "2.90", "GET", "/servers/{unknown}/tags")
    yield case("tags/add on locked_admin", "member", "2.90", "PUT", "/servers/{locked_admin}/tags/x")


def addresses() -> Iterator[Case]:
    for persona in PERSONAS:
        yield case("ips/list", persona, "2.1", "GET", "/servers/{server}/ips")
    yield case("ips/show", "member", "2.1", "GET", "/servers/{server}/ips/private")
    yield case("ips/show unknown", "member", "2.1", "GET", "/servers/{server}/ips/zzz")
    yield case("ips/list of unknown", "member", "2.1", "GET", "/servers/{unknown}/ips")
    yield case("ips/list without networks", "member", "2.1", "GET", "/servers/{bare}/ips")


def interfaces() -> Iterator[Case]:
    path = "/servers/{server}/os-interface"
    for version in ("2.1", "2.69", "2.70", LATEST):
        yield case("interfaces/list", "member", version, "GET", path)
        yield case("interfaces/show", "member", version, "GET", f"{path}/{{port:server}}")
    for persona in PERSONAS:
        yield case("interfaces/list by", persona, "2.70", "GET", path)
    yield case("interfaces/show unknown", "member", "2.70", "GET", f"{path}/{{unknown}}")
    yield case("interfaces/list none", "member", "2.70", "GET", "/servers/{bare}/os-interface")
    yield case("interfaces/list of unknown", "member", "2.70", "GET", "/servers/{unknown}/os-interface")
    for name, attachment in {
        "zzz": {"zzz": 1},
        "both": {"net_id": "{network}", "port_id": "{unknown}"},
        "unknown port": {"port_id": "{unknown}"},
        "address without network": {"fixed_ips": [{"ip_address": "192.168.1.77"}]},
        "not an id": {"net_id": "zzz"},
        "tag": {"net_id": "zzz", "tag": "x"},
    }.items():
        yield case(f"interfaces/attach {name}", "member", "2.70", "POST", path, {"interfaceAttachment": attachment})
    yield case("interfaces/attach", "reader", "2.70", "POST", path, {"interfaceAttachment": {"net_id": "{network}"}})
    yield case("interfaces/detach unknown", "member", "2.70", "DELETE", f"{path}/{{unknown}}")


def volumes() -> Iterator[Case]:
    path = "/servers/{server}/os-volume_attachments"
    for version in ("2.1", "2.70", "2.79", "2.89", LATEST):
        yield case("volumes/list", "member", version, "GET", path)
    for persona in ("none", "norole", "reader", "other_member", "service"):
        yield case("volumes/list", persona, "2.89", "GET", path)
    yield case("volumes/show unknown", "member", "2.89", "GET", f"{path}/{{unknown}}")
    yield case("volumes/attach malformed", "member", "2.89", "POST", path, {"volumeAttachment": {"zzz": 1}})
    yield case(
        "volumes/attach unknown", "member", "2.89", "POST", path, {"volumeAttachment": {"volumeId": "{unknown}"}}
    )
    yield case("volumes/list of unknown", "member", "2.89", "GET", "/servers/{unknown}/os-volume_attachments")


def others() -> Iterator[Case]:
    for persona in PERSONAS:
        yield case("parts/security groups", persona, "2.1", "GET", "/servers/{server}/os-security-groups")
    for version in ("2.1", "2.47", "2.48", LATEST):
        yield case("parts/diagnostics", "admin", version, "GET", "/servers/{server}/diagnostics")
    for persona in ("none", "reader", "member", "manager", "other_member"):
        yield case("parts/diagnostics", persona, "2.48", "GET", "/servers/{server}/diagnostics")
    yield case("parts/diagnostics of stopped", "admin", "2.48", "GET", "/servers/{stopped}/diagnostics")
    for version in ("2.77", "2.78", LATEST):
        yield case("parts/topology", "member", version, "GET", "/servers/{server}/topology")
        yield case("parts/topology", "admin", version, "GET", "/servers/{server}/topology")
    yield case("parts/password", "member", "2.1", "GET", "/servers/{server}/os-server-password")
    yield case("parts/clear password", "member", "2.1", "DELETE", "/servers/{server}/os-server-password")
    console: dict[str, object] = {"protocol": "vnc", "type": "novnc"}
    for version in ("2.5", "2.6", "2.8", LATEST):
        yield case(
            "parts/console unknown type",
            "member",
            version,
            "POST",
            "/servers/{server}/remote-consoles",
            {"remote_console": {"protocol": "zzz", "type": "zzz"}},
        )
    yield case(
        "parts/console of unknown",
        "member",
        "2.8",
        "POST",
        "/servers/{unknown}/remote-consoles",
        {"remote_console": console},
    )
    yield case(
        "parts/console", "reader", "2.8", "POST", "/servers/{server}/remote-consoles", {"remote_console": console}
    )
    for version in ("2.1", "2.43", "2.44", LATEST):
        yield case("parts/virtual interfaces", "member", version, "GET", "/servers/{server}/os-virtual-interfaces")
    for path in (
        "/os-cells",
        "/os-networks",
        "/os-fping",
        "/os-agents",
        "/os-hosts",
        "/os-certificates",
        "/os-cloudpipe",
        "/os-floating-ips",
        "/os-security-groups",
        "/images",
        "/images/detail",
        "/os-volumes",
        "/os-snapshots",
        "/extensions",
        "/os-instance_usage_audit_log",
        "/os-tenant-networks",
        "/os-baremetal-nodes",
        "/os-floating-ip-pools",
        "/os-fixed-ips/10.0.0.1",
    ):
        for version in ("2.36", "2.90"):
            yield case(f"gone/{path}", "admin", version, "GET", path)
    events = {"events": [{"name": "network-changed", "server_uuid": "{unknown}"}]}
    for persona in ("none", "member", "admin", "service"):
        yield case("parts/external events", persona, "2.1", "POST", "/os-server-external-events", events)
    yield case("parts/actions on gone", "admin", "2.21", "GET", "/servers/{gone}/os-instance-actions")
    yield case("parts/metadata on gone", "admin", "2.21", "GET", "/servers/{gone}/metadata")
    yield case(
        "parts/image of no server", "admin", "2.1", "GET", "/servers/{unknown}/zzz", before=(admin("GET", "/flavors"),)
    )
