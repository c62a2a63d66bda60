"""Key pairs: whose, of which type, at which microversions."""

from __future__ import annotations

from collections.abc import Iterator

from tests.conformance.case import LATEST, PERSONAS, Case, Request, case, reads
from tests.conformance.things import PUBLIC_KEY

UNDO = (Request(method="DELETE", path="/os-keypairs/conf-new", persona="member"),)


def cases() -> Iterator[Case]:
    versions = ("2.1", "2.2", "2.9", "2.10", "2.35", "2.75", "2.92", LATEST)
    yield from reads("keypairs/list", "/os-keypairs", versions=versions, needs=("keypair",))
    yield from reads("keypairs/show", "/os-keypairs/{keypair}", versions=versions)
    yield from reads("keypairs/show unknown", "/os-keypairs/zzz", versions=("2.1", LATEST))
    for persona in PERSONAS:
        yield case("keypairs/show by others", persona, "2.35", "GET", "/os-keypairs/{keypair}")
    for query in (
        "user_id={user:member}",
        "limit=1",
        "limit=x",
        "limit=-1",
        "marker=zzz",
        "marker={keypair}",
        "zzz=1",
        "user_id={user:reader}",
    ):
        for version in ("2.9", "2.10", "2.35", "2.75"):
            for persona in ("member", "admin"):
                yield case(
                    f"keypairs/list {query}", persona, version, "GET", f"/os-keypairs?{query}", needs=("keypair",)
                )
    yield case("keypairs/show of a user", "admin", "2.10", "GET", "/os-keypairs/{keypair}?user_id={user:member}")
    yield case("keypairs/show of a user", "reader", "2.10", "GET", "/os-keypairs/{keypair}?user_id={user:member}")
    yield from creating()
    path = "/os-keypairs/{keypair}"
    for version in ("2.1", "2.2", "2.10", LATEST):
        yield case("keypairs/delete", "member", version, "DELETE", path)
        yield case("keypairs/delete unknown", "member", version, "DELETE", "/os-keypairs/zzz")
    yield case("keypairs/delete of a user", "admin", "2.10", "DELETE", f"{path}?user_id={{user:member}}")
    yield case("keypairs/delete of a user", "other_member", "2.10", "DELETE", f"{path}?user_id={{user:member}}")
    yield case("keypairs/delete", "none", "2.10", "DELETE", path)


def creating() -> Iterator[Case]:
    imported: dict[str, object] = {"name": "conf-new", "public_key": PUBLIC_KEY}
    for version in ("2.1", "2.2", "2.10", "2.35", "2.91", "2.92", LATEST):
        yield case("keypairs/import", "member", version, "POST", "/os-keypairs", {"keypair": imported}, undo=UNDO)
        yield case(
            "keypairs/generate", "member", version, "POST", "/os-keypairs", {"keypair": {"name": "conf-new"}}, undo=UNDO
        )
    bad: dict[str, dict[str, object]] = {
        "type ssh": {**imported, "type": "ssh"},
        "type x509 without a certificate": {**imported, "type": "x509"},
        "type zzz": {**imported, "type": "zzz"},
        "name empty": {**imported, "name": ""},
        "name slash": {**imported, "name": "a/b"},
        "name dot": {**imported, "name": "a.b"},
        "name number": {**imported, "name": 5},
        "name long": {**imported, "name": "x" * 256},
        "no name": {"public_key": PUBLIC_KEY},
        "key number": {**imported, "public_key": 5},
        "key garbage": {**imported, "public_key": "not a key"},
        "extra": {**imported, "zzz": 1},
        "for another user": {**imported, "user_id": "{user:reader}"},
    }
    for name, body in bad.items():
        for version in ("2.1", "2.2", "2.10", "2.92"):
            undo = (
                UNDO if name == "type ssh" else (Request(method="DELETE", path="/os-keypairs/a.b", persona="member"),)
            )
            yield case(
                f"keypairs/create {name}", "member", version, "POST", "/os-keypairs", {"keypair": body}, undo=undo
            )
    yield case(
        "keypairs/create taken",
        "member",
        "2.10",
        "POST",
        "/os-keypairs",
        {"keypair": {**imported, "name": "{keypair}"}},
    )
    yield case("keypairs/create nothing", "member", "2.10", "POST", "/os-keypairs", {})
    for persona in ("none", "bad", "system_admin"):
        yield case("keypairs/import", persona, "2.2", "POST", "/os-keypairs", {"keypair": imported})
