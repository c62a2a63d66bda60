"""Nothing is left on the source: asked of Placement, Network, Compute and, for real guests, the machine itself."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from cumulet.cli.client import Persona
from cumulet.cli.demo.evidence import Evidence
from cumulet.cli.demo.migration import Moved
from cumulet.cli.demo.personas import People

FENCE = "fence"
"""Where a host remembers, for good, the highest generation it has accepted for a server: what refuses late commands."""


def show_nothing_left(evidence: Evidence, people: People, moved: Moved, state: Path, *, qemu: bool) -> None:
    """Every place that knew the server on its source must know it on its destination only."""
    admin = people.admin
    _allocations(evidence, admin, moved)
    _hypervisors(evidence, admin, moved)
    _ports(evidence, admin, moved)
    if qemu:
        _machine(evidence, moved, state)


def _allocations(evidence: Evidence, admin: Persona, moved: Moved) -> None:
    providers = {one["uuid"]: one["name"] for one in admin.get("/placement/resource_providers")["resource_providers"]}
    mine = admin.get(f"/placement/allocations/{moved.server_id}")["allocations"]
    of_move = admin.get(f"/placement/allocations/{moved.record['uuid']}")["allocations"]
    places = sorted(providers[uuid] for uuid in mine)
    evidence.claim(
        "placement holds its share on the destination only, and none for the move",
        places == [moved.destination] and not of_move,
        f"{', '.join(places)}: {_amounts(mine)}; the move itself: {len(of_move) or 'none'}",
    )


def _amounts(allocations: dict[str, Any]) -> str:
    return ", ".join(
        f"{amount} {name}" for one in allocations.values() for name, amount in sorted(one["resources"].items())
    )


def _hypervisors(evidence: Evidence, admin: Persona, moved: Moved) -> None:
    listed = admin.get("/compute/v2.1/os-hypervisors?with_servers=true")["hypervisors"]
    holding = sorted(
        one["hypervisor_hostname"]
        for one in listed
        if moved.server_id in {server["uuid"] for server in one.get("servers") or []}
    )
    evidence.claim(
        "only the destination lists it among its servers", holding == [moved.destination], ", ".join(holding)
    )


def _ports(evidence: Evidence, admin: Persona, moved: Moved) -> None:
    ports = admin.get(f"/network/v2.0/ports?device_id={moved.server_id}")["ports"]
    if not ports:
        evidence.tell("it has no ports (wiring real guests takes root), so there are no bindings to look at")
        return
    seen = []
    held = True
    for port in ports:
        bindings = admin.get(f"/network/v2.0/ports/{port['id']}/bindings")["bindings"]
        seen += [f"{one['host']} {one['status']}" for one in bindings]
        held = held and port["binding:host_id"] == moved.destination
        held = held and [(one["host"], one["status"]) for one in bindings] == [(moved.destination, "ACTIVE")]
    evidence.claim("its port is bound on the destination only", held, ", ".join(seen))


def _machine(evidence: Evidence, moved: Moved, state: Path) -> None:
    """Both hosts are agents on this machine, so a second QEMU or a left disk would be in sight."""
    processes = [pid for pid, command in _commands() if "qemu-system" in command and moved.server_id in command]
    evidence.claim("exactly one QEMU process runs it", len(processes) == 1, f"process {', '.join(processes) or 'none'}")
    left = [
        str(path.relative_to(state))
        for path in state.rglob(f"*{moved.server_id}*")
        if moved.source in path.relative_to(state).parts and FENCE not in path.relative_to(state).parts
    ]
    evidence.claim("the source keeps no disk, socket or record of it", not left, ", ".join(left) or "only its fence")


def _commands() -> list[tuple[str, str]]:
    found = []
    for name in filter(str.isdecimal, os.listdir("/proc")):
        try:
            words = Path("/proc", name, "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue  # It ended while we looked.
        if words and b"qemu-system" in words[0]:
            found.append((name, b" ".join(words).decode(errors="replace")))
    return found
