"""Reconcilers take no input: on event and on timer they compare what hosts say with the records, and correct either.

`HostWatch` is the one there is now: silent hosts are marked down in bounded time, hosts that answer are marked up, and
each round a host's guests are compared with the records (`compute.drift`).
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import Any

import msgspec

from cumulet.clock import Clock
from cumulet.compute import drift
from cumulet.compute import hosts as host_records
from cumulet.db.engine import Database, Tx
from cumulet.host import messages as m
from cumulet.host.client import Hosts
from cumulet.settings import Settings

log = logging.getLogger(__name__)

REMEMBERED_FINDINGS = 200
LEASE_MARGIN_SECONDS = 2.0
"""What is waited beyond a host's lease: for its watchdog to wake up, and for its guests' processes to end."""


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What a reconciler found and did, for `cumulet status`."""

    at_us: int
    host: str
    server_id: str
    finding: str
    done: str


class HostWatch:
    """Asks every host in turn. `ready` is set once each host has answered or been found silent."""

    def __init__(self, *, db: Database, clock: Clock, settings: Settings, hosts: Hosts) -> None:
        self._db = db
        self._clock = clock
        self._settings = settings
        self._hosts = hosts
        self._seen_at: dict[str, float] = {}
        self._session = clock.uuid()
        self._number = 0
        self._heard: dict[str, int] = {}
        self._fenced_at: dict[str, float] = {}
        """When the lease of each host has run out for certain, were it not heard again."""
        self._tasks: list[asyncio.Task[None]] = []
        self.found: deque[Found] = deque(maxlen=REMEMBERED_FINDINGS)

    async def start(self) -> None:
        """One round with every host at once, so that a cloud that is ready knows its hosts; then watch each."""
        await asyncio.gather(*(self.round(name) for name in self._hosts.names))
        if self._settings.fence_silent_hosts:  # Only what was heard of the first round gives hosts their leases.
            await asyncio.gather(*(self.round(name) for name in self._hosts.names))
        for name in self._hosts.names:
            self._tasks.append(asyncio.create_task(self._watch(name), name=f"watch-{name}"))

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _watch(self, name: str) -> None:
        while True:
            await self._clock.sleep(self._settings.host_silent_seconds / 4)
            try:
                await self.round(name)
            except Exception:
                log.exception("round with %s failed, will retry", name)

    async def round(self, name: str) -> None:
        """Ask one host for its facts and guests; record that it is up or down; correct what differs."""
        now = self._clock.monotonic()
        before = await self._db.read_async(lambda tx: drift.revisions(tx, name))
        try:
            await self._renew_lease(name)
            facts = await self._hosts.facts(name)
        except m.HostError as error:
            silent_since = self._seen_at.setdefault(name, now - self._settings.host_silent_seconds)
            if now - silent_since >= self._settings.host_silent_seconds and now >= self._fenced_from(name):
                await self._mark(name, up=False)
            log.debug("%s does not answer: %s", name, error)
            return
        self._seen_at[name] = now
        try:
            reports = await self._hosts.guests(name)
        except m.HostError as error:
            # It answers, so it is up; what its guests do is asked again in the next round.
            log.warning("%s does not say what its guests do: %s", name, error)
            reports = None

        def record(tx: Tx) -> list[drift.Correction]:
            host_records.register(tx, facts=facts, clock=self._clock, settings=self._settings)
            if reports is None:
                return []
            return drift.compare(tx, name, reports, before=before, now_us=self._clock.now_us())

        for correction in await self._db.write_async(record):
            await self._correct(name, correction)

    async def _renew_lease(self, name: str) -> None:
        """See `host.lease`. The host counts from before its answer, we from when we have heard it, and add a margin."""
        if not self._settings.fence_silent_hosts:
            return
        self._fenced_from(name)
        self._number += 1
        number = self._number
        await self._hosts.send(name, m.RenewLease(session=self._session, number=number, heard=self._heard.get(name)))
        self._fenced_at[name] = self._lease_end()
        self._heard[name] = number

    def _fenced_from(self, name: str) -> float:
        """A host we have not heard yet may have been heard by who was here before us, a moment ago."""
        if not self._settings.fence_silent_hosts:
            return float("-inf")
        return self._fenced_at.setdefault(name, self._lease_end())

    def _lease_end(self) -> float:
        return self._clock.monotonic() + self._settings.lease_seconds + LEASE_MARGIN_SECONDS

    async def _mark(self, name: str, *, up: bool) -> None:
        now_us = self._clock.now_us()
        if await self._db.write_async(lambda tx: host_records.set_up(tx, name, up=up, now_us=now_us)):
            log.warning("%s is %s", name, "up" if up else "down")

    async def _correct(self, name: str, correction: drift.Correction) -> None:
        command: dict[str, Any] = {
            "server_id": correction.server_id,
            "operation_id": "reconciler",
            "generation": correction.generation,
        }
        done = "record corrected"
        try:
            if correction.destroy:
                await self._hosts.send(name, m.Destroy(**command))
                done = "guest removed"
            elif correction.resume:
                await self._hosts.send(name, m.CancelCopy(**command))  # It may still wait for a commit.
                await self._hosts.send(name, m.ResumeSource(**command))
                done = "guest resumed"
            elif correction.let_run:
                await self._hosts.send(name, m.ResumeDestination(**command))
                done = "guest let run"
        except m.StaleGeneration:
            done = "left alone: an operation has begun"
        except m.HostError as error:
            done = f"failed, will retry: {error}"
        log.warning(
            "%s: %s of server %s (%s): %s", name, correction.finding, correction.server_id, correction.seen, done
        )
        self.found.append(
            Found(
                at_us=self._clock.now_us(),
                host=name,
                server_id=correction.server_id,
                finding=correction.finding.value,
                done=done,
            )
        )
