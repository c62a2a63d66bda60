"""`kill -9` of everything at once, at any moment, again and again: nothing acknowledged is lost, nothing is left over.

`CUMULET_KILL_RUNS` says how often, `CUMULET_KILL_SEED` at which moments. Hosts are simulated, and die along.
"""

from __future__ import annotations

import contextlib
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import httpx
import msgspec

from cumulet.cli.client import Persona, credentials_of, https, log_in
from cumulet.db.engine import Database
from cumulet.drivers.simulated.guest import SimulatedGuest
from cumulet.host.driver import GuestState
from cumulet.testing import agreement

from .conftest import Up, up

RUNS = int(os.environ.get("CUMULET_KILL_RUNS", "4"))
SEED = int(os.environ.get("CUMULET_KILL_SEED", "1"))
SERVERS = "/compute/v2.1/servers"
MOST_SERVERS = 8
SETTLED_SECONDS = 60.0


@dataclass(slots=True)
class Book:
    """What was asked for and acknowledged. What was asked for without an answer may have happened or not."""

    created: set[str] = field(default_factory=set)
    asked_to_delete: set[str] = field(default_factory=set)
    deleted: set[str] = field(default_factory=set)
    moves: int = 0

    @property
    def alive(self) -> list[str]:
        return sorted(self.created - self.asked_to_delete)


def admin_of(cloud: Up) -> Persona:
    credentials, authority = credentials_of(cloud.clouds_file, "cumulet")
    return log_in(https(cloud.url.rstrip("/"), authority), "admin", credentials)


def work(admin: Persona, book: Book, random: Random) -> None:
    """Create, move and delete servers until the cloud does not answer."""
    try:
        find(admin, book)
        image = admin.get("/image/v2/images?name=cumulet-tiny")["images"][0]["id"]
        flavor = next(one["id"] for one in admin.get("/compute/v2.1/flavors")["flavors"] if one["name"] == "m1.nano")
        while True:
            alive = book.alive
            if len(alive) < MOST_SERVERS and random.random() < 0.5:
                body = {"name": "one", "imageRef": image, "flavorRef": flavor, "networks": "auto"}
                answer = admin.ask("POST", SERVERS, {"server": body})
                if answer.status == 202:
                    book.created.add(answer.json["server"]["id"])
            elif alive and random.random() < 0.3:
                victim = random.choice(alive)
                book.asked_to_delete.add(victim)
                if admin.ask("DELETE", f"{SERVERS}/{victim}").status == 204:
                    book.deleted.add(victim)
            elif alive:
                move = {"os-migrateLive": {"host": None, "block_migration": "auto"}}
                book.moves += admin.act(random.choice(alive), move).status == 202
    except httpx.HTTPError:
        return


def find(admin: Persona, book: Book) -> None:
    """What was asked for without an answer before the kill, and happened: created counts, deleted is asked for again.

    Left alone, such servers would take up the quota in time, and the work would come to nothing.
    """
    present = {one["id"] for one in admin.get(SERVERS)["servers"]}
    book.created |= present
    for server_id in sorted(present & book.asked_to_delete):
        if admin.ask("DELETE", f"{SERVERS}/{server_id}").status == 204:
            book.deleted.add(server_id)


def guests(state: Path) -> dict[str, dict[str, GuestState]]:
    """The guests of each simulated host, from the files on its disk."""
    found: dict[str, dict[str, GuestState]] = {}
    for host in sorted((state / "hosts").iterdir()):
        seen = found[host.name] = {}
        for path in (host / "guests").glob("*.json"):
            with contextlib.suppress(FileNotFoundError):  # It was removed just now.
                seen[path.stem] = msgspec.json.decode(path.read_bytes(), type=SimulatedGuest).state
    return found


def problems(state: Path, database: Database) -> list[str]:
    return database.read(lambda tx: [*agreement.unfinished(tx), *agreement.disagreements(tx, guests(state))])


def test_nothing_acknowledged_is_lost_when_everything_is_killed_at_once(tmp_path: Path) -> None:
    state, random, book = tmp_path / "state", Random(SEED), Book()
    for _ in range(RUNS):
        # Each thread draws from numbers of its own: else the seed would not say at which moments it is killed.
        moment, requests = random.uniform(0.2, 2.0), Random(random.random())
        with up(state, "--simulated-speed", "20") as cloud, ThreadPoolExecutor(1) as pool:
            working = pool.submit(work, admin_of(cloud), book, requests)
            time.sleep(moment)
            cloud.process.kill()
            working.result()
    with up(state) as cloud:
        admin = admin_of(cloud)
        database = Database(f"sqlite:///{state / 'cumulet.db'}")
        until = time.monotonic() + SETTLED_SECONDS
        while left := problems(state, database):
            assert time.monotonic() < until, left
            time.sleep(0.2)
        database.close()
        present = {one["id"] for one in admin.get(SERVERS)["servers"]}
        print(
            f"\n{RUNS} kills; {len(book.created)} created, {len(book.deleted)} deleted, {book.moves} moves acknowledged"
        )
        assert book.created
        assert set(book.alive) <= present, "acknowledged, and lost"
        assert not book.deleted & present, "its delete was acknowledged, and lost"
        assert cloud.stop() == 0
