"""Whether a real guest stands still for longer while it moves, when somebody floods its cloud's API meanwhile.

The guest prints a tick every 10 ms; its console is a socket on both hosts, and the longest pause between ticks is the
gap, as in `qemu_migration`. The moves are asked for through the API, quiet ones and flooded ones in turn; then, too,
the same flood is of another cloud on the same machine: what merely sharing the few cores costs.
"""

from __future__ import annotations

import asyncio
import base64
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import qemu_migration
from benchmarks.cloud import MeasuredCloud, running
from benchmarks.connection import Connection, UnexpectedAnswer
from benchmarks.fairness import COMPUTE, flooding, floods, user_of
from benchmarks.qemu_migration import Ticks
from benchmarks.report import Measure, Result

ROUNDS = 3
WAIT_SECONDS = 180.0
FLOODS = ("the longest list", "changes", "keys whose name is taken")
MORE_GAP = Measure(
    name="flood_more_gap", title="what the worst flood adds to the gap of a real guest's move", unit="ms", goal=50
)
OWN_MORE_GAP = Measure(
    name="flood_more_gap_own",
    title="what the worst flood adds to the gap of a real guest's move, more than one of another cloud does",
    unit="ms",
    goal=50,
)


def measure() -> Iterator[Result]:
    """The difference of medians, of the flood that adds most. Needs QEMU, and root."""
    # In a temporary folder of its own: inside ours the paths of its unix sockets would be too long.
    with tempfile.TemporaryDirectory(prefix="cumulet-bench-") as folder:
        state, beside = Path(folder) / "moves", Path(folder) / "beside"
        with running(state, hosts=2, driver="qemu") as cloud, running(beside, hosts=2) as elsewhere:
            mover = _Mover(cloud, state)
            flooders = [user_of(one, "flooder") for one in (cloud, elsewhere)]
            for flooder in flooders:
                boot(flooder)  # What the floods ask of.
            known = [dict(floods(flooder)) for flooder in flooders]
            quiet: list[float] = []
            gaps: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in FLOODS}
            for _ in range(ROUNDS):
                quiet.append(asyncio.run(mover.gap_ms()))
                for name, both in gaps.items():
                    for flooder, its, found in zip(flooders, known, both, strict=True):
                        with flooding(flooder, its[name]):
                            found.append(asyncio.run(mover.gap_ms()))
    usual = statistics.median(quiet)
    medians = {name: (statistics.median(here), statistics.median(there)) for name, (here, there) in gaps.items()}
    told = (f"{name}: {here:.0f} ms, elsewhere {there:.0f} ms" for name, (here, there) in medians.items())
    print(f"  gap of a move, quiet: {usual:.0f} ms; " + "; ".join(told))
    yield Result(MORE_GAP, max(here for here, _ in medians.values()) - usual)
    yield Result(OWN_MORE_GAP, max(here - there for here, there in medians.values()))


class _Mover:
    """The administrator's guest, and its moves."""

    def __init__(self, cloud: MeasuredCloud, state: Path) -> None:
        self._admin = cloud.admin
        self._state = state
        self._server = boot(self._admin)

    async def gap_ms(self) -> float:
        """One move to the other host."""
        shown = await self._ask("GET", f"{COMPUTE}/servers/{self._server}")
        source = shown["server"]["OS-EXT-SRV-ATTR:host"]
        destination = {"host1": "host2", "host2": "host1"}[source]
        ticks = Ticks()
        await ticks.listen(self._monitor(source))
        async with asyncio.timeout(WAIT_SECONDS):
            await ticks.after(0.0, 20)
            move = {"os-migrateLive": {"host": destination, "block_migration": "auto"}}
            await self._ask("POST", f"{COMPUTE}/servers/{self._server}/action", move)
            await self._listen(ticks, destination)
            begun = time.monotonic()
            while (status := await self._status()) != "completed":
                if status in ("error", "failed", "cancelled"):
                    raise UnexpectedAnswer(f"the move ended as {status}")
                await asyncio.sleep(0.05)
            await ticks.after(time.monotonic(), 20)
        ticks.stop()
        return ticks.worst_gap_ms(begun)

    async def _listen(self, ticks: Ticks, host: str) -> None:
        """As soon as its guest has a monitor there that answers."""
        while True:
            try:
                return await ticks.listen(self._monitor(host))
            except OSError:
                await asyncio.sleep(0.005)

    async def _status(self) -> str:
        found = await self._ask("GET", f"/compute/v2.1/os-migrations?instance_uuid={self._server}&limit=1")
        return str(found["migrations"][0]["status"])

    async def _ask(self, method: str, path: str, body: object | None = None) -> Any:
        """On another thread: ticks are timed here meanwhile."""
        return await asyncio.to_thread(self._admin.ask, method, path, body)

    def _monitor(self, host: str) -> Path:
        return self._state / "hosts" / host / "qemu" / "guests" / self._server / "monitor2.sock"


def boot(owner: Connection) -> str:
    """A server that ticks; its id, once it is ACTIVE."""
    flavors = {one["name"]: one["id"] for one in owner.ask("GET", f"{COMPUTE}/flavors")["flavors"]}
    image = owner.ask("GET", "/image/v2/images?name=cumulet-tiny")["images"][0]["id"]
    wanted = {"name": "moved", "flavorRef": flavors["m1.nano"], "imageRef": image, "networks": "none"}
    data = base64.b64encode(qemu_migration.USER_DATA).decode()
    server: str = owner.ask("POST", f"{COMPUTE}/servers", {"server": {**wanted, "user_data": data}})["server"]["id"]
    deadline = time.monotonic() + WAIT_SECONDS
    while owner.ask("GET", f"{COMPUTE}/servers/{server}")["server"]["status"] != "ACTIVE":
        if time.monotonic() > deadline:
            raise UnexpectedAnswer(f"{server} is not ACTIVE")
        time.sleep(0.1)
    return server


if __name__ == "__main__":
    for result in measure():
        print(f"{result.measure.title}: {result.value:.3g} {result.measure.unit}")
