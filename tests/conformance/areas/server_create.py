"""Creating servers: each attribute, at the microversions that have it and at those that do not, right and wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tests.conformance.case import LATEST, PERSONAS, Case, case

SCHEMA_VERSIONS = ("2.1", "2.37", "2.90")


def body(
    version: str, attributes: Mapping[str, object], leave_out: str, outside: Mapping[str, object]
) -> dict[str, object]:
    """A request that works at this version, with these attributes more or other."""
    server: dict[str, object] = {"name": "conf-new", "flavorRef": "{flavor}", "imageRef": "{image}"}
    if int(version.split(".")[1]) >= 37:
        server["networks"] = "auto"
    server |= attributes
    server.pop(leave_out, None)
    return {"server": server, **outside}


def create(
    label: str,
    version: str,
    persona: str = "member",
    /,
    *,
    leave_out: str = "",
    outside: Mapping[str, object] | None = None,
    attributes: Mapping[str, object] | None = None,
    **more: object,
) -> Case:
    request = body(version, {**(attributes or {}), **more}, leave_out, outside or {})
    return case(f"create/{label}", persona, version, "POST", "/servers", request, watch="created", alone=True)


def cases() -> Iterator[Case]:
    for version in ("2.1", "2.3", "2.9", "2.19", "2.26", "2.36", "2.37", "2.57", "2.74", "2.90", "2.96", LATEST):
        yield create("plain", version)
    for persona in PERSONAS:
        if persona != "member":
            yield create("plain", "2.90", persona)
            yield case("create/malformed", persona, "2.90", "POST", "/servers", {"server": {}})
    yield from since()
    yield from right()
    yield from wrong()
    yield from networks()
    yield from refused()
    yield from counts()
    yield from placed()


def since() -> Iterator[Case]:
    """Attributes around the version that brought or removed them."""
    attributes: tuple[tuple[str, object, tuple[str, ...]], ...] = (
        ("description", "text", ("2.18", "2.19")),
        ("description", None, ("2.19",)),
        ("tags", ["one", "two"], ("2.51", "2.52")),
        ("personality", [{"path": "/x", "contents": "eA=="}], ("2.56", "2.57")),
        ("trusted_image_certificates", ["one"], ("2.62",)),
        ("host", "host1", ("2.73", "2.74")),
        ("hypervisor_hostname", "host1", ("2.73",)),
        ("hostname", "conf-host", ("2.89", "2.90")),
        ("hostname", "conf.example.org", ("2.93", "2.94")),
    )
    for name, value, versions in attributes:
        for version in versions:
            yield create(
                f"{name} {'null' if value is None else 'given'} {value if name == 'hostname' else ''}".strip(),
                version,
                attributes={name: value},
            )


def right() -> Iterator[Case]:
    attributes: dict[str, dict[str, object]] = {
        "metadata": {"metadata": {"a": "b", "c-d_e:f.g h": ""}},
        "admin password": {"adminPass": "secret"},
        "config drive": {"config_drive": True},
        "config drive as text": {"config_drive": "yes"},
        "user data": {"user_data": "aGVsbG8="},
        "key": {"key_name": "{keypair}"},
        "disk config auto": {"OS-DCF:diskConfig": "AUTO"},
        "disk config manual": {"OS-DCF:diskConfig": "MANUAL"},
        "access addresses": {"accessIPv4": "192.0.2.1", "accessIPv6": "2001:db8::1"},
        "security group": {"security_groups": [{"name": "default"}]},
        "zone": {"availability_zone": "nova"},
        "image as empty text and no device": {"imageRef": ""},
        "block devices from the image": {
            "block_device_mapping_v2": [
                {"boot_index": 0, "uuid": "{image}", "source_type": "image", "destination_type": "local"}
            ]
        },
    }
    for name, more in attributes.items():
        for version in ("2.1", "2.90"):
            yield create(name, version, attributes=more)
    group: dict[str, object] = {"os:scheduler_hints": {"group": "{group}"}}
    for version in ("2.1", "2.90", LATEST):
        yield create("in a group", version, outside=group)
        yield create("hint unknown key", version, outside={"os:scheduler_hints": {"zzz": "1"}})
    yield create("old hint key", "2.1", outside={"OS-SCH-HNT:scheduler_hints": {"zzz": "1"}})
    for name, hints in {
        "group unknown": {"group": "{unknown}"},
        "group number": {"group": 5},
        "group not an id": {"group": "zzz"},
        "different host": {"different_host": ["{unknown}"]},
        "different host not an id": {"different_host": "zzz"},
        "same host number": {"same_host": 5},
        "not an object": [],
    }.items():
        yield create(f"hint {name}", "2.90", outside={"os:scheduler_hints": hints})


def wrong() -> Iterator[Case]:
    attributes: dict[str, dict[str, object]] = {
        "name empty": {"name": ""},
        "name blanks": {"name": "  "},
        "name leading blank": {"name": " a"},
        "name long": {"name": "x" * 256},
        "name number": {"name": 5},
        "name null": {"name": None},
        "name list": {"name": []},
        "name tab": {"name": "a\tb"},
        "name newline at the end": {"name": "a\n"},
        "flavor null": {"flavorRef": None},
        "flavor list": {"flavorRef": []},
        "flavor empty": {"flavorRef": ""},
        "flavor number": {"flavorRef": 99999},
        "image number": {"imageRef": 5},
        "image null": {"imageRef": None},
        "image not an id": {"imageRef": "zzz"},
        "image url": {"imageRef": "http://localhost/images/{image}"},
        "metadata list": {"metadata": []},
        "metadata number": {"metadata": {"a": 1}},
        "metadata null value": {"metadata": {"a": None}},
        "metadata null": {"metadata": None},
        "metadata empty key": {"metadata": {"": "x"}},
        "metadata long key": {"metadata": {"k" * 256: "x"}},
        "metadata long value": {"metadata": {"k": "x" * 256}},
        "metadata bad key": {"metadata": {"a/b": "x"}},
        "metadata too many": {"metadata": {f"k{number}": "x" for number in range(129)}},
        "user data not base64": {"user_data": "x!"},
        "user data number": {"user_data": 5},
        "user data long": {"user_data": "eHh4" * 16385},
        "user data null": {"user_data": None},
        "password number": {"adminPass": 5},
        "config drive maybe": {"config_drive": "maybe"},
        "config drive null": {"config_drive": None},
        "key unknown": {"key_name": "zzz"},
        "key null": {"key_name": None},
        "key number": {"key_name": 5},
        "disk config zzz": {"OS-DCF:diskConfig": "zzz"},
        "address wrong": {"accessIPv4": "999.0.0.1"},
        "address of the other family": {"accessIPv4": "2001:db8::1"},
        "address empty": {"accessIPv4": ""},
        "zone empty": {"availability_zone": ""},
        "zone unknown": {"availability_zone": "zzz"},
        "zone null": {"availability_zone": None},
        "zone number": {"availability_zone": 5},
        "min count zero": {"min_count": 0},
        "min count text": {"min_count": "x"},
        "min count empty": {"min_count": ""},
        "min count negative": {"min_count": -1},
        "min count null": {"min_count": None},
        "min count float": {"min_count": 1.5},
        "max count zero": {"max_count": 0},
        "min above max": {"min_count": 3, "max_count": 2},
        "reservation maybe": {"return_reservation_id": "maybe"},
        "security groups text": {"security_groups": "default"},
        "security groups nameless": {"security_groups": [{"zzz": 1}]},
        "extra": {"zzz": 1},
        "host status": {"host_status": "UP"},
        "tenant": {"tenant_id": "{project:other_member}"},
        "block devices text": {"block_device_mapping_v2": "x"},
        "block devices without a boot index": {
            "block_device_mapping_v2": [{"uuid": "{image}", "source_type": "image", "destination_type": "local"}]
        },
        "block devices unknown source": {"block_device_mapping_v2": [{"source_type": "zzz"}]},
    }
    for name, more in attributes.items():
        for version in SCHEMA_VERSIONS:
            yield create(name, version, attributes=more)
    for key in ("name", "flavorRef", "imageRef", "networks"):
        for version in SCHEMA_VERSIONS:
            yield create(f"without {key}", version, leave_out=key)
    for version in SCHEMA_VERSIONS:
        yield create("extra outside", version, outside={"zzz": 1})
        for name, whole in {
            "list": {"server": []},
            "null": {"server": None},
            "text": {"server": "x"},
            "none": {},
        }.items():
            yield case(f"create/server is {name}", "member", version, "POST", "/servers", whole)
    newer: dict[str, dict[str, object]] = {
        "description number": {"description": 5},
        "description long": {"description": "x" * 256},
        "tags text": {"tags": "one"},
        "tags number": {"tags": [1]},
        "tags comma": {"tags": ["a,b"]},
        "tags slash": {"tags": ["a/b"]},
        "tags empty": {"tags": [""]},
        "tags long": {"tags": ["x" * 61]},
        "tags many": {"tags": [f"t{number}" for number in range(51)]},
        "tags twice": {"tags": ["a", "a"]},
        "tags null": {"tags": None},
        "hostname blank": {"hostname": "a b"},
        "hostname dot": {"hostname": "a.b"},
        "hostname dash": {"hostname": "a-"},
        "hostname one letter": {"hostname": "a"},
        "hostname long": {"hostname": "x" * 64},
        "hostname null": {"hostname": None},
        "hostname number": {"hostname": 5},
        "host blank": {"host": "a b"},
        "host null": {"host": None},
        "host empty": {"host": ""},
        "hypervisor number": {"hypervisor_hostname": 5},
        "certificates text": {"trusted_image_certificates": "one"},
        "certificates many": {"trusted_image_certificates": [f"c{number}" for number in range(51)]},
    }
    for name, more in newer.items():
        for version in ("2.90", LATEST):
            yield create(name, version, attributes=more)


def networks() -> Iterator[Case]:
    kinds: dict[str, object] = {
        "auto": "auto",
        "none": "none",
        "zzz": "zzz",
        "null": None,
        "empty list": [],
        "one": [{"uuid": "{network}"}],
        "one with an address": [{"uuid": "{network}", "fixed_ip": "999.1.1.1"}],
        "unknown": [{"uuid": "{unknown}"}],
        "not an id": [{"uuid": "zzz"}],
        "unknown port": [{"port": "{unknown}"}],
        "port null": [{"uuid": "{network}", "port": None}],
        "empty object": [{}],
        "extra": [{"uuid": "{network}", "zzz": 1}],
        "tagged": [{"uuid": "{network}", "tag": "nic1"}],
        "tagged empty": [{"uuid": "{network}", "tag": ""}],
        "auto in a list": ["auto"],
    }
    for name, value in kinds.items():
        for version in ("2.1", "2.32", "2.36", "2.37", "2.42", "2.90"):
            yield create(f"networks {name}", version, networks=value)


def refused() -> Iterator[Case]:
    for version in ("2.1", "2.90"):
        yield create("unknown flavor", version, flavorRef="zzz")
        yield create("another project's flavor", version, flavorRef="{flavor_private}")
        yield create("unknown image", version, imageRef="{unknown}")
        yield create("more cores than the quota", version, flavorRef="{flavor_many}")
        yield create("nowhere to run", version, flavorRef="{flavor_huge}")
        yield create("more servers than the quota", version, min_count=11, max_count=11)
        yield create("many with names of one hostname", version, min_count=11, max_count=12, name="x")
    yield create("hostname and many", "2.90", min_count=2, max_count=2, hostname="conf-host")


def counts() -> Iterator[Case]:
    for version in ("2.1", "2.90"):
        yield create("two", version, min_count=2)
        yield create("two as text", version, min_count="2", max_count="2")
        yield create("one or two", version, min_count=1, max_count=2)
        yield create("up to what fits the quota", version, min_count=1, max_count=30, flavorRef="{flavor}")
        yield create("two with a reservation id", version, min_count=2, return_reservation_id=True)
        yield create("one with a reservation id", version, return_reservation_id="true")
        yield create("one without a reservation id", version, return_reservation_id=False)


def placed() -> Iterator[Case]:
    """On a host that the caller names."""
    for persona in ("member", "manager", "admin"):
        yield create("on a host", "2.74", persona, host="host1")
        yield create("on an unknown host", "2.74", persona, host="nohost")
        yield create("on a hypervisor", "2.90", persona, hypervisor_hostname="host1")
        yield create("on an unknown hypervisor", "2.90", persona, hypervisor_hostname="nohost")
        yield create("on a host and in a zone", "2.90", persona, host="host1", availability_zone="nova")
        yield create("in a zone with a host", "2.90", persona, availability_zone="nova:host1")
        yield create("in a zone with an unknown host", "2.90", persona, availability_zone="nova:nohost")
        yield create("in a zone with a hypervisor", "2.90", persona, availability_zone="nova::host1")
        yield create("in a zone with both", "2.90", persona, availability_zone="nova:host1:host1")
        yield create("in a zone with too much", "2.90", persona, availability_zone="nova:host1:host1:x")
