"""Makes the corrections that `compute.drift` has decided, and says what it has done.

That is ordinary work of the cloud: what a host has to be told, be it a hostile one, holds up no lease.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from cumulet.clock import Clock
from cumulet.compute import drift, operations, shelved, wiring
from cumulet.compute.host_recorder import WATCH
from cumulet.conductor import findings
from cumulet.db.engine import Database, Tx
from cumulet.db.fair_queue import like_other_work
from cumulet.errors import Conflict
from cumulet.fleet.hosts import Hosts
from cumulet.host import messages as m
from cumulet.host.looking import Look

log = logging.getLogger(__name__)

ROUND_SECONDS = 10.0
"""After so long a host is told nothing more in this round: it may be slow with each."""
MOST_SAID = 10
"""Of more guests that are not a host's, one line and one finding say how many."""
MANY = "{done}; more than {most} guests at once, which the log counts"
LONGEST_REASON = 300
"""Characters of what a host says of its failure."""


class Outcome(NamedTuple):
    """What was done, in words. `failed`: the next round tries again."""

    done: str
    failed: bool = False


class Corrector:
    """Corrects what differs, of one host after the other."""

    def __init__(self, *, db: Database, clock: Clock, hosts: Hosts) -> None:
        self._db = db
        self._clock = clock
        self._hosts = hosts

    async def correct(self, name: str, corrections: Sequence[drift.Correction]) -> bool:
        """Make these corrections of a host. False if a guest that was to be removed may still be there."""
        if not corrections:
            return True
        with like_other_work():
            return await self._correct_all(name, corrections)

    async def _correct_all(self, name: str, corrections: Sequence[drift.Correction]) -> bool:
        found = Counter(correction.finding for correction in corrections)
        many = {finding: Counter[str]() for finding in drift.STRANGE if found[finding] > MOST_SAID}
        removed = True
        until = self._clock.monotonic() + ROUND_SECONDS
        for correction in corrections:
            if correction.acts and self._clock.monotonic() >= until:
                removed = removed and not correction.destroy
                continue
            done, failed = await self._correct(name, correction)
            removed = removed and not (failed and correction.destroy)
            if (counted := many.get(correction.finding)) is not None:
                counted[done] += 1
                continue
            log.warning(
                "%s: %s of server %s (%s): %s", name, correction.finding, correction.server_id, correction.seen, done
            )
            await self._note(name, correction.finding, done, server_id=correction.server_id)
        for finding, counted in many.items():
            if counted:
                await self._say_many(name, finding, counted)
        return removed

    async def _say_many(self, name: str, finding: drift.Finding, counted: Counter[str]) -> None:
        (done, times), *others = counted.most_common()
        more = f", and {sum(number for _, number in others)} otherwise" if others else ""
        log.warning("%s: %s of many servers: %s (%d of %d%s)", name, finding, done, times, counted.total(), more)
        await self._note(name, finding, MANY.format(done=done, most=MOST_SAID))

    async def _correct(self, name: str, correction: drift.Correction) -> Outcome:
        """Tell the host what it has to do."""
        command: operations.CommandFields = {
            "server_id": correction.server_id,
            "operation_id": "reconciler",
            "generation": correction.generation,
            "step": m.AFTER_ALL_STEPS,
        }
        done, failed = "record corrected", False
        try:
            if correction.destroy:
                await self._hosts.send(name, m.Destroy(**command))
                done = "guest removed"
                if correction.shelve:  # From here on the host refuses late commands to make this guest.
                    await self._db.write_async(lambda tx: self._shelve(tx, name, correction))
                    done = "shelved again"
            elif correction.cancel:
                await self._hosts.send(name, m.CancelCopy(**command))
                done = "copy ended"
            elif correction.resume:
                # It may wait for a commit that will not come.
                await self._hosts.send(name, m.CancelCopy(**command))
                await self._hosts.send(name, m.ResumeSource(**command))
                done = "guest resumed"
            elif correction.let_run:
                await self._hosts.send(name, m.ResumeDestination(**command))
                done = "guest let run"
            elif correction.look:
                seen = await self._hosts.send(name, Look(**command))
                now_us = self._clock.now_us()
                if not await self._db.write_async(lambda tx: drift.record_found(tx, correction, seen, now_us)):
                    done = "left alone: its guest has gone"
            elif correction.plug or correction.unplug:
                await self._replug(name, correction, command)
                done = "ports plugged as recorded"
        except (m.StaleGeneration, Conflict):
            done, failed = "left alone: an operation has begun", correction.destroy
        except m.HostError as error:
            done, failed = f"failed, will retry: {str(error)[:LONGEST_REASON]}", True
        return Outcome(done, failed)

    def _shelve(self, tx: Tx, name: str, correction: drift.Correction) -> None:
        """Conflict if the server has changed since the decision."""
        now_us, generation = self._clock.now_us(), correction.generation
        shelved.offload(tx, correction.server_id, old=name, generation=generation, now_us=now_us)

    async def _replug(self, name: str, correction: drift.Correction, command: operations.CommandFields) -> None:
        for port_id in correction.unplug:
            await self._hosts.send(name, m.Unplug(**command, port_id=port_id, insist=False))
        if correction.plug:
            await wiring.wire(self._hosts, self._db.read_async, self._clock, name)
        for nic in correction.plug:
            await self._hosts.send(name, m.Plug(**command, nic=nic))

    async def _note(self, host: str, finding: drift.Finding, done: str, *, server_id: str = "") -> None:
        now_us = self._clock.now_us()
        await self._db.write_async(
            lambda tx: findings.note(tx, WATCH, finding.value, done, now_us=now_us, host=host, subject=server_id)
        )
