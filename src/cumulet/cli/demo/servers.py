"""Two servers from one request, up and ticking."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from cumulet.cli.client import Persona, Unexpected
from cumulet.cli.demo.consoles import console_lines, newest_tick
from cumulet.cli.demo.evidence import Evidence
from cumulet.cli.demo.personas import People

ACTIVE_SECONDS = 30.0
BOOT_SECONDS = 120.0
POLL_SECONDS = 0.05
BOOT_LOOK_SECONDS = 0.25
SERVERS = "/compute/v2.1/servers"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """The two servers of the story: `moving` will be moved, `staying` must not notice."""

    moving: str
    staying: str
    reservation_id: str


@contextmanager
def until(what: str, seconds: float, *, pause: float = POLL_SECONDS) -> Iterator[Iterator[float]]:
    """An iterator over elapsed seconds, to break out of; it raises `Unexpected` when `what` takes too long."""
    begun = time.monotonic()

    def elapsed() -> Iterator[float]:
        while (passed := time.monotonic() - begun) < seconds:
            yield passed
            time.sleep(pause)
        raise Unexpected(f"{what}: not within {seconds:.0f} s")

    yield elapsed()


def show(who: Persona, server_id: str) -> dict[str, Any]:
    """The server as `who` sees it."""
    server: dict[str, object] = who.get(f"{SERVERS}/{server_id}")["server"]
    return server


def host_of(admin: Persona, server_id: str) -> str:
    """Where a server runs: only an administrator is told."""
    return str(show(admin, server_id)["OS-EXT-SRV-ATTR:host"])


def create_pair(evidence: Evidence, people: People, *, flavor: str, networks: object) -> Pair:
    """One request, two servers, both ACTIVE."""
    member = people.member
    flavors = {one["name"]: one["id"] for one in member.get("/compute/v2.1/flavors")["flavors"]}
    images = member.get("/image/v2/images?name=cumulet-tiny")["images"]
    if not images:
        raise Unexpected("there is no image `cumulet-tiny` in this cloud (see `cumulet doctor` for why)")
    request = {
        "name": "twin",
        "flavorRef": flavors[flavor],
        "imageRef": images[0]["id"],
        "networks": networks,
        "min_count": 2,
        "max_count": 2,
        "return_reservation_id": True,
    }
    begun = time.monotonic()
    reservation = str(member.must("POST", SERVERS, {"server": request})["reservation_id"])
    evidence.tell(f"member: POST /servers with min_count 2 and return_reservation_id: {reservation}")
    with until("two servers ACTIVE", ACTIVE_SECONDS) as waiting:
        for _ in waiting:
            found = member.get(f"{SERVERS}/detail?reservation_id={reservation}")["servers"]
            states = sorted(server["status"] for server in found)
            if "ERROR" in states:
                raise Unexpected(f"a server went to ERROR: {[server.get('fault') for server in found]}")
            if states == ["ACTIVE", "ACTIVE"]:
                break
    names = sorted(server["name"] for server in found)
    evidence.claim(
        "one request made two servers, both ACTIVE",
        len(found) == 2,
        f"{' and '.join(names)} in {time.monotonic() - begun:.2f} s",
    )
    moving, staying = sorted(found, key=lambda server: server["name"])
    pair = Pair(moving=moving["id"], staying=staying["id"], reservation_id=reservation)
    for server_id in (pair.moving, pair.staying):
        evidence.tell(f"{server_id} runs on {host_of(people.admin, server_id)} (only the administrator is told)")
    return pair


def show_consoles(evidence: Evidence, people: People, pair: Pair) -> None:
    """Both guests tick, each with its own id in every line."""
    for server_id in (pair.moving, pair.staying):
        output, first = _ticking(people.member, server_id)
        for line in output.strip().splitlines()[-3:]:
            evidence.tell(line)
        with until("the counter goes on", BOOT_SECONDS) as waiting:
            for _ in waiting:
                later = newest_tick(console_lines(people.member, server_id, 5), server_id)
                if later is not None and later > first:
                    break
        evidence.claim(
            f"guest {server_id[:8]} is alive", True, f"its counter went from {first} to {later} as we looked"
        )


def _ticking(who: Persona, server_id: str) -> tuple[str, int]:
    """Wait until a guest has booted and ticks: what its console shows, and the newest tick."""
    output = ""
    try:
        # Looked at seldom: an emulated guest needs the processor more than we do.
        with until(f"server {server_id} ticks on its console", BOOT_SECONDS, pause=BOOT_LOOK_SECONDS) as waiting:
            for _ in waiting:
                output = console_lines(who, server_id, 5)
                newest = newest_tick(output, server_id)
                if newest is not None and output.count("tick ") >= 3:
                    return output, newest
    except Unexpected as problem:
        raise Unexpected(f"{problem}; it shows: {output[-300:]!r}") from problem
    raise AssertionError("unreachable: `until` raises")
