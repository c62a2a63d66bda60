"""What is refused, to whom, with which words - and that a refusal leaves the server exactly as it was."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from cumulet.cli.client import Answer, Persona
from cumulet.cli.demo.evidence import Evidence
from cumulet.cli.demo.migration import ENDED, Moved, latest_record
from cumulet.cli.demo.personas import People
from cumulet.cli.demo.servers import SERVERS, Pair, show, until

SETTLE_SECONDS = 15.0
STOP_SECONDS = 40.0
CODED_REASON = re.compile(r"\b[A-Z]+(?:_[A-Z]+)+\b")
REASON_HEADER = "X-Cumulet-Reason"


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """A request that must not be granted. `version`: compute microversion; `reason`: coded, for administrators."""

    title: str
    who: Persona
    body: object
    status: int
    version: str | None = None
    reason: str | None = None
    afterwards: bool = False
    """Accepted with 202, as Nova does from 2.34 on, and refused in the migration record at once."""


def migrate_body(host: object, **more: object) -> dict[str, object]:
    return {"os-migrateLive": {"host": host, "block_migration": "auto", **more}}


def show_refusals(evidence: Evidence, people: People, pair: Pair, moved: Moved) -> None:
    """Everybody who may not, and every request that makes no sense."""
    here, there = moved.destination, moved.source
    for refusal in (
        Refusal(title="a reader", who=people.reader, body=migrate_body(None), status=403),
        Refusal(title="a member", who=people.member, body=migrate_body(None), status=403),
        Refusal(title="a manager who names a host", who=people.manager, body=migrate_body(there), status=403),
        Refusal(title="no token", who=people.nobody, body=migrate_body(there), status=401),
    ):
        _refused(evidence, people, pair.moving, refusal)
    _stranger(evidence, people, pair, there)
    _bad_targets(evidence, people, pair, here=here, there=there)
    _bad_bodies(evidence, people, pair, there)
    _stopped(evidence, people, pair, there)


def _bad_targets(evidence: Evidence, people: People, pair: Pair, *, here: str, there: str) -> None:
    admin = people.admin
    same, off = "the host it is on", "a disabled host"
    unknown = Refusal(
        title="an unknown host", who=admin, body=migrate_body("nohost"), status=400, reason="HOST_UNKNOWN"
    )
    _refused(evidence, people, pair.moving, unknown)
    for title, host, reason in ((same, here, "SAME_HOST"), (off, there, "HOST_DISABLED")):
        with _disabled(admin, there) if title == off else _as_it_is():
            for version, status in (("2.30", 400), ("2.96", 202)):
                refusal = Refusal(
                    title=f"{title}, at {version}",
                    who=admin,
                    body=migrate_body(host),
                    version=version,
                    status=status,
                    reason=reason,
                    afterwards=status == 202,
                )
                _refused(evidence, people, pair.moving, refusal)


def _bad_bodies(evidence: Evidence, people: People, pair: Pair, there: str) -> None:
    bodies: tuple[tuple[str, object, str | None], ...] = (
        ("an extra key", migrate_body(there, colour="blue"), None),
        ("a missing key", {"os-migrateLive": {"host": there}}, None),
        ("a wrong type", migrate_body(["host1"]), None),
        ("force, which 2.68 no longer has", migrate_body(there, force=True), "2.68"),
    )
    for title, body, version in bodies:
        _refused(
            evidence,
            people,
            pair.moving,
            Refusal(title=title, who=people.admin, body=body, status=400, version=version),
        )


def _refused(evidence: Evidence, people: People, server_id: str, refusal: Refusal) -> None:
    """Ask for it, see it refused as expected, and the server unchanged."""
    before = _without_time(show(people.admin, server_id), refusal)
    answer = refusal.who.ask("POST", f"{SERVERS}/{server_id}/action", refusal.body, version=refusal.version)
    words = answer.message
    held = answer.status == refusal.status
    reason = answer.headers.get(REASON_HEADER)
    if held and refusal.afterwards:
        status, reason = _became(people.admin, server_id, answer)
        words = f"and then the migration record says {status}"
        held = status == "error"
    if refusal.reason is not None:
        held = held and reason == refusal.reason
        words = f"{words} [{reason}]"
    unchanged = _without_time(show(people.admin, server_id), refusal) == before
    _told(evidence, refusal.title, answer, words, held, unchanged)


def _without_time(server: Mapping[str, object], refusal: Refusal) -> dict[str, Any]:
    """What was accepted first touches the server's `updated`, in Nova as here; everything else must be as it was."""
    return {key: value for key, value in server.items() if not (refusal.afterwards and key == "updated")}


def _told(evidence: Evidence, title: str, answer: Answer, words: str, held: bool, unchanged: bool) -> None:
    evidence.claim(
        f"refused: {title}",
        held and unchanged,
        f"{answer.status} {words}{'' if unchanged else ' - AND THE SERVER CHANGED'}",
    )


def _became(admin: Persona, server_id: str, answer: Answer) -> tuple[str, str | None]:
    """How an accepted migration ended, and the coded reason in the server's instance actions."""
    request_id = answer.headers["X-OpenStack-Request-ID"]
    with until("the migration record has ended", SETTLE_SECONDS) as waiting:
        for _ in waiting:
            record = latest_record(admin, server_id)
            task_state = show(admin, server_id)["OS-EXT-STS:task_state"]
            if record is not None and record["status"] in ENDED and task_state is None:
                break
    action = admin.get(f"{SERVERS}/{server_id}/os-instance-actions/{request_id}")["instanceAction"]
    details = " ".join(str(event.get("details") or "") for event in action["events"])
    found = CODED_REASON.search(details)
    return (str(record["status"]) if record is not None else "none"), (found.group() if found else None)


def _stranger(evidence: Evidence, people: People, pair: Pair, there: str) -> None:
    """Another project's member learns nothing: the answer is that for an id that was never given out."""
    before = show(people.admin, pair.moving)
    never = str(uuid.uuid4())
    answer = people.stranger.act(pair.moving, migrate_body(there))
    unknown = people.stranger.act(never, migrate_body(there))
    same = answer.text.replace(pair.moving, never) == unknown.text and answer.status == unknown.status
    same = same and answer.headers.get("Content-Length") == unknown.headers.get("Content-Length")
    _told(
        evidence,
        "another project's member",
        answer,
        f"{answer.message} (byte-equal to the answer for an unknown id)" if same else "DIFFERS from an unknown id",
        answer.status == 404 and same,
        show(people.admin, pair.moving) == before,
    )


def _stopped(evidence: Evidence, people: People, pair: Pair, there: str) -> None:
    """A stopped server cannot be live-migrated."""
    people.member.must("POST", f"{SERVERS}/{pair.staying}/action", {"os-stop": None})
    with until("the sibling is stopped", STOP_SECONDS) as waiting:
        for _ in waiting:
            if show(people.member, pair.staying)["status"] == "SHUTOFF":
                break
    refusal = Refusal(
        title="a stopped server", who=people.admin, body=migrate_body(there), status=409, reason="WRONG_STATE"
    )
    _refused(evidence, people, pair.staying, refusal)


@contextmanager
def _disabled(admin: Persona, host: str) -> Iterator[None]:
    """A host that takes no servers, until the end of the block."""
    services = admin.get("/compute/v2.1/os-services?binary=nova-compute")["services"]
    path = f"/compute/v2.1/os-services/{next(one['id'] for one in services if one['host'] == host)}"
    admin.must("PUT", path, {"status": "disabled", "disabled_reason": "shown in the demo"})
    try:
        yield
    finally:
        admin.must("PUT", path, {"status": "enabled"})


@contextmanager
def _as_it_is() -> Iterator[None]:
    yield
