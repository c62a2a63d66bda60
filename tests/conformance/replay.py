"""Runs cases against a cloud, observes the answers without their values, and reports differences by operation."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx

from tests.conformance.case import LATEST, Case, Request
from tests.conformance.deviations import DEVIATIONS, Deviation
from tests.conformance.shape import Shape, differences, shape
from tests.conformance.target import NotOffered, Target, checked
from tests.conformance.world import World

GOLDEN: Final = Path(__file__).parent.parent / "golden" / "nova"
PRESENT: Final = ("www-authenticate", "location", "retry-after", "x-openstack-request-id", "x-compute-request-id")
VALUED: Final = ("openstack-api-version", "x-openstack-nova-api-version", "allow")


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """An answer: status, the headers that matter, the shape of its JSON, and what became of the server watched."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Shape = "nothing"
    fate: Mapping[str, object] = field(default_factory=dict)

    def data(self) -> dict[str, object]:
        """For the golden file; `headers` and `fate` only when there is something in them."""
        data: dict[str, object] = {"status": self.status, "body": self.body}
        if self.headers:
            data["headers"] = dict(self.headers)
        if self.fate:
            data["fate"] = dict(self.fate)
        return data

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> Seen:
        return cls(status=data["status"], headers=data.get("headers", {}), body=data["body"], fate=data.get("fate", {}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One case that Cumulet answers otherwise; `deviation` if that is meant so."""

    case: Case
    lines: tuple[str, ...]
    deviation: Deviation | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A whole replay."""

    total: int
    differences: tuple[Difference, ...]


def usual(request: Request, body: Shape) -> dict[str, str]:
    """The headers of nearly every answer; they are recorded as no headers at all."""
    version = {None: "2.1", "latest": LATEST}.get(request.version, request.version or "")
    headers = {"x-openstack-request-id": "given", "x-compute-request-id": "given", "vary": ", ".join(VALUED[:2])}
    headers |= {"openstack-api-version": f"compute {version}", "x-openstack-nova-api-version": version}
    return headers if body == "nothing" else {**headers, "content-type": "application/json"}


def observe(request: Request, answer: httpx.Response) -> Seen:
    """Status, headers and shape of one answer."""
    seen = _observe(answer)
    if seen.headers == usual(request, seen.body):
        return Seen(status=seen.status, body=seen.body)
    return seen


def _observe(answer: httpx.Response) -> Seen:
    headers = {name: "given" for name in PRESENT if name in answer.headers}
    headers |= {name: answer.headers[name] for name in VALUED if name in answer.headers}
    if vary := answer.headers.get_list("vary", split_commas=True):
        headers["vary"] = ", ".join(sorted({name.strip().lower() for name in vary} & {*VALUED}))
    kind = answer.headers.get("content-type", "").split(";")[0]
    if not answer.content:
        return Seen(status=answer.status_code, headers=headers)
    headers["content-type"] = kind
    try:
        body = shape(answer.json())
    except json.JSONDecodeError:
        body = "text"
    return Seen(status=answer.status_code, headers=headers, body=body)


class Replayer:
    """Runs cases in order against one target, keeping what they need from one to the next."""

    def __init__(self, world: World) -> None:
        self.world = world
        world.begin()

    def run(self, case: Case) -> Seen:
        world = self.world
        named = _named(case)
        kinds = {name.rpartition(":")[2] for name in (*case.needs, *named)}
        world.held = kinds
        if "moving" in kinds:
            world.refresh_moving()
        for name in (*case.needs, *sorted(named)):
            if not name.startswith("answer:"):
                world.value(name)
        if case.alone:
            world.only(kinds)
        for request in case.before:
            checked(world.send(request))
        before = world.server(case.watch) if case.watch and case.watch != "created" and _moves(case) else {}
        answer = world.send(case.request)
        world.answer = answer.json() if "json" in answer.headers.get("content-type", "") and answer.content else None
        seen = observe(case.request, answer)
        changed = case.request.method not in ("GET", "HEAD") and answer.status_code < 400
        if case.watch and changed:
            seen = Seen(status=seen.status, headers=seen.headers, body=seen.body, fate=self.fate(case, before))
        self.clear_up(case, kinds, changed)
        return seen

    def fate(self, case: Case, before: Mapping[str, Any]) -> dict[str, object]:
        """Where the watched server is now, told so that it can be compared."""
        if case.watch == "created":
            answer = self.world.answer or {}
            if "server" not in answer:
                return {}
            after = self.world.settle(answer["server"]["id"])
            return {"server": after.get("status", "gone")}
        server = self.world.value(case.watch or "")
        after = self.world.settle(server, moves=_moves(case))
        if not after:
            return {"server": "gone"}
        fate = {"server": after["status"], "locked": after["locked"]}
        if not _moves(case):
            return fate
        migrations = self.world.ask("GET", f"/os-migrations?instance_uuid={server}")["migrations"]
        return {
            **fate,
            "moved": after["OS-EXT-SRV-ATTR:host"] != before["OS-EXT-SRV-ATTR:host"],
            "migration": migrations[0]["status"] if migrations else "none",
        }

    def clear_up(self, case: Case, kinds: set[str], changed: bool) -> None:
        if changed:
            for request in case.undo:
                checked(self.world.send(request))
        for request in case.after:
            checked(self.world.send(request))
        if changed:
            self.world.spoil(kinds)
            if case.request.path == "/servers":
                self.world.sweep()


def _moves(case: Case) -> bool:
    return "os-migrateLive" in str(case.request.body) or case.area == "running"


def _named(case: Case) -> set[str]:
    """The placeholders in a case's path and body."""
    request = case.request
    body = getattr(request.body, "text", None) or (json.dumps(request.body) if _is_json(request.body) else "")
    pattern = r"\{([a-z0-9_]+(?::[a-z0-9_.]+)?)\}"
    return set(
        re.findall(pattern, f"{request.path} {body} {' '.join(request.headers.values())} {case.watch or ''}")
    ) | ({case.watch} if case.watch and case.watch != "created" else set())


def _is_json(body: object) -> bool:
    return body is None or isinstance(body, (dict, list, str, int, float, bool))


def golden() -> dict[str, Seen]:
    """What real Nova answered, by case id."""
    recorded: dict[str, Seen] = {}
    for path in sorted(GOLDEN.glob("*.json")):
        cases = json.loads(path.read_text())["cases"]
        recorded |= {name: Seen.of(data) for name, data in cases.items()}
    return recorded


def compare(request: Request, nova: Seen, cumulet: Seen) -> tuple[str, ...]:
    """The differences of two answers, most telling first. Where the statuses differ, nothing else is told."""
    if nova.status != cumulet.status:
        return (f"Nova answers {nova.status}, Cumulet {cumulet.status}",)
    lines = []
    expected_headers = nova.headers or usual(request, nova.body)
    actual_headers = cumulet.headers or usual(request, cumulet.body)
    for name in sorted({*expected_headers, *actual_headers}):
        expected, actual = expected_headers.get(name, "none"), actual_headers.get(name, "none")
        if expected != actual:
            lines.append(f"header {name}: Nova {expected}, Cumulet {actual}")
    lines += differences(nova.body, cumulet.body)
    for name in sorted({*nova.fate, *cumulet.fate}):
        if nova.fate.get(name) != cumulet.fate.get(name):
            lines.append(f"afterwards {name}: Nova {nova.fate.get(name)}, Cumulet {cumulet.fate.get(name)}")
    return tuple(lines)


def explained(case: Case, cumulet: Seen, lines: tuple[str, ...]) -> Deviation | None:
    """The entry of the table that says why this difference is meant, if any."""
    for deviation in DEVIATIONS:
        if deviation.covers(case.id, cumulet.status, lines):
            return deviation
    return None


def replayed(target: Target, cases: Sequence[Case], nova: Mapping[str, Seen]) -> Outcome:
    """Run the cases against `target` and compare with what Nova answered."""
    replayer = Replayer(World(target))
    found = []
    for case in cases:
        if case.id not in nova:
            continue
        try:
            seen = replayer.run(case)
        except NotOffered:
            seen = Seen(status=501)
        except (RuntimeError, TimeoutError) as error:
            found.append(Difference(case=case, lines=(f"set-up: {error}",), deviation=None))
            continue
        lines = compare(case.request, nova[case.id], seen)
        if lines:
            found.append(Difference(case=case, lines=lines, deviation=explained(case, seen, lines)))
    return Outcome(total=len(cases), differences=tuple(found))


def report(found: Iterable[Difference], total: int) -> str:
    """The differences by area and operation, alike ones told once."""
    groups: dict[str, dict[tuple[str, ...], list[str]]] = defaultdict(lambda: defaultdict(list))
    count = 0
    for difference in found:
        count += 1
        operation = f"{difference.case.request.method} {difference.case.request.path.split('?')[0]}"
        groups[operation][difference.lines].append(difference.case.id)
    text = [f"{total - count} of {total} requests are answered as by Nova, or otherwise as meant; {count} differ."]
    for operation, kinds in sorted(groups.items()):
        text.append(f"\n{operation}")
        for lines, ids in sorted(kinds.items(), key=lambda item: -len(item[1])):
            more = f" and {len(ids) - 3} more" if len(ids) > 3 else ""
            text.append(f"  {', '.join(ids[:3])}{more}")
            text += [f"      {line}" for line in lines[:12]]
            if len(lines) > 12:
                text.append(f"      ... {len(lines) - 12} further differences")
    return "\n".join(text)
