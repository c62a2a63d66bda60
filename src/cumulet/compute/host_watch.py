"""Watches hosts: marks silent ones down in bounded time and answering ones up; compares their guests with the records.

It asks every host for its facts and guests, and corrects the host or the records (`compute.drift`).
"""

from __future__ import annotations

import asyncio
import functools
import logging
import math
from collections.abc import Callable, Collection, Coroutine

from cumulet.clock import Clock
from cumulet.compute import believed, wiring
from cumulet.compute import hosts as host_records
from cumulet.compute.corrections import Corrector
from cumulet.compute.heard import Heard, Known, Recorded
from cumulet.compute.host_recorder import WATCH, HostRecorder, Said
from cumulet.compute.resume_on_boot import ResumeOnBoot
from cumulet.conductor import findings
from cumulet.conductor.leadership import LeadsNoMore
from cumulet.db.engine import Database, Tx
from cumulet.db.fair_queue import before_all_else
from cumulet.db.reach import is_away
from cumulet.fleet.hosts import Hosts
from cumulet.host import messages as m
from cumulet.host.driver import GuestReport, HostFacts
from cumulet.settings import Settings

log = logging.getLogger(__name__)

NOT_FENCED = "marked down; its servers may run, so nothing else"
FENCED = "marked down; its servers may start elsewhere"
NO_LEASE = "marked down; it had confirmed no lease, so its servers may run: nothing else"
NOT_BELIEVED = "{error}: what it says is not heeded, and it counts as silent"
PARTS = 25
"""Hosts are asked in this many parts, one after the other. A thousand at once would block other work for long. One by
one they would cost several times as much, because the records of a part are read at once."""
ASKED_AT_ONCE = 8
"""After so many hosts of a part the event loop serves others. Where agents are in this process, each question is
answered in the step that asks it, and hundreds of these would hold up a request."""
CORRECTED_AT_START_SECONDS = 5.0
"""How long a start waits until hosts have corrected what differs. They go on with it beside the first rounds."""
LEASE_MARGIN_SECONDS = 2.0
"""How much longer than a host's lease we wait: its watchdog must wake up, and its guests' processes must end."""


class HostWatch:
    """Asks all hosts again and again."""

    def __init__(
        self,
        *,
        db: Database,
        clock: Clock,
        settings: Settings,
        hosts: Hosts,
        require_lead: Callable[[Tx], None],
        boot: ResumeOnBoot | None = None,
    ) -> None:
        """`boot`: decides, at each start of a host's agent, about servers that should run there and do not.

        `require_lead`: `conductor.conductor.Surroundings.require_lead`.
        """
        self._db = db
        self._recorder = HostRecorder(db=db, clock=clock, settings=settings, require_lead=require_lead, boot=boot)
        self._corrector = Corrector(db=db, clock=clock, hosts=hosts)
        self._clock = clock
        self._settings = settings
        self._hosts = hosts
        self._require_lead = require_lead
        self._seen_at: dict[str, float] = {}
        self._records = Heard(db, clock, require_lead)
        self._session = clock.uuid()
        self._number = 0
        self._heard: dict[str, tuple[int, str]] = {}
        """By host: the newest question whose answer was heard, and the session of the agent that gave it."""
        self._welcomed: dict[str, str] = {}
        """By host: the session of its agent that was welcomed."""
        self._fenced_at: dict[str, float] = {}
        """By host: the moment at which its lease has run out for certain, if it is not heard again; monotonic."""
        self._leases: dict[str, float] = {}
        """By host with a watchdog: the seconds for which it may be unheard, as it said last."""
        self._disbelieved: dict[str, str] = {}
        """By host that is not believed: why."""
        self._parts: list[set[str]] = []
        self._watching: list[asyncio.Task[None]] = []
        self._asking: dict[str, asyncio.Task[None]] = {}
        self._following: asyncio.Task[None] | None = None
        self.lost = asyncio.Event()
        """Set whenever a host is marked down, for the reconcilers that act on it."""

    async def start(self) -> None:
        """Ask every host once, so that a cloud that is ready knows its hosts; then watch each.

        What was known is forgotten: another leader may have heard hosts and given leases since.
        """
        with before_all_else():
            self._records = Heard(self._db, self._clock, self._require_lead)
            for known in (self._seen_at, self._heard, self._fenced_at, self._leases):
                known.clear()
            await self._ask_all()
            # The second question tells hosts that their answer was heard: that gives leases.
            if self._settings.fence_silent_hosts:
                await self._ask_all()
            self._parts.clear()
            self._watching.clear()
            names = self._hosts.names
            parts: dict[float, set[str]] = {}
            for number, name in enumerate(names, start=1):
                parts.setdefault(math.ceil(number * PARTS / len(names)) / PARTS, set()).add(name)
            for share, part in parts.items():
                self._watch_part(part, share * self._seconds_between)
            self._following = asyncio.create_task(self._follow(), name="watch-new-hosts")

    async def stop(self) -> None:
        self.kill()
        await asyncio.gather(*self._all_tasks(), return_exceptions=True)

    def kill(self) -> None:
        for task in self._all_tasks():
            task.cancel()

    def _all_tasks(self) -> list[asyncio.Task[None]]:
        following = [self._following] if self._following is not None else []
        return [*self._watching, *self._asking.values(), *following]

    async def _follow(self) -> None:
        """Watch hosts from the moment they join, until they leave."""
        while True:
            await self._hosts.changed.wait()
            self._hosts.changed.clear()
            names = set(self._hosts.names)
            for name in set().union(*self._parts) - names:
                if (asking := self._asking.get(name)) is not None:
                    asking.cancel()
            for part in self._parts:
                part.intersection_update(names)
            self._forget_others(names)
            for name in sorted(names.difference(*self._parts)):
                smallest = min(self._parts, key=len, default=None)
                if smallest is None or (smallest and len(self._parts) < PARTS):
                    self._watch_part({name}, 0.0)
                else:
                    smallest.add(name)
                    self._ask_beside(name, self.round(name))

    def _forget_others(self, names: set[str]) -> None:
        """A host that joins again is waited for as one that this process never heard: for a whole lease."""
        for known in (self._seen_at, self._heard, self._welcomed, self._fenced_at, self._leases, self._disbelieved):
            for gone in known.keys() - names:
                del known[gone]
        self._records.forget_others(names)

    @property
    def _seconds_between(self) -> float:
        return self._settings.host_silent_seconds / 4

    async def _ask_all(self) -> None:
        names = [name for name in self._hosts.names if name not in self._asking]
        known = await self._db.look_up(lambda tx: self._records.known(tx, names))
        asked = (self._hear(name, records) for name, records in known.items())
        for name, heard in zip(names, await asyncio.gather(*asked, return_exceptions=True), strict=True):
            if isinstance(heard, BaseException):
                if isinstance(heard, LeadsNoMore) or is_away(heard):
                    raise heard
                await self._failed(name, heard)  # Such as a hostile agent's answer, which cannot be recorded.
            elif heard is not None:
                self._ask_beside(name, heard())
        if self._asking:
            await asyncio.wait(self._asking.values(), timeout=CORRECTED_AT_START_SECONDS)

    def _watch_part(self, part: set[str], first_seconds: float) -> None:
        self._parts.append(part)
        number = len(self._parts)
        self._watching.append(asyncio.create_task(self._watch(part, first_seconds), name=f"watch-part-{number}"))

    async def _watch(self, part: set[str], first_seconds: float) -> None:
        """Ask the hosts of a part again and again, all at once: a slow one delays no other.

        `first_seconds`: how long to wait before the first time.
        """
        seconds = first_seconds
        while True:
            await self._clock.sleep(seconds)
            seconds = self._seconds_between
            try:
                await self._ask_part(part)
            except Exception:
                log.exception("a round with %d hosts failed, will retry", len(part))

    async def _ask_part(self, part: set[str]) -> None:
        names = sorted(part - self._asking.keys())
        if not names:
            return
        await self._records.record(names)
        known = await self._db.look_up(lambda tx: self._records.known(tx, names))
        for number, (name, records) in enumerate(known.items(), start=1):
            if name in part:  # It may have been removed meanwhile.
                self._ask_beside(name, self._ask(name, records))
            if number % ASKED_AT_ONCE == 0:
                await asyncio.sleep(0)

    def _ask_beside(self, name: str, asking: Coroutine[object, object, None]) -> None:
        task = self._asking[name] = asyncio.create_task(self._seen_through(name, asking), name=f"ask-{name}")
        task.add_done_callback(lambda done: self._asking.get(name) is done and self._asking.pop(name))

    async def _seen_through(self, name: str, asking: Coroutine[object, object, None]) -> None:
        try:
            await asking
        except Exception as error:
            await self._failed(name, error)

    async def _failed(self, name: str, error: BaseException) -> None:
        log.error("round with %s failed, will retry", name, exc_info=error)
        if not (isinstance(error, LeadsNoMore) or is_away(error)):
            await findings.note_failure(self._db, WATCH, error, now_us=self._clock.now_us(), host=name)

    async def round(self, name: str) -> None:
        """Ask one host for its facts and guests, record that it is up or down, and correct what differs."""
        known = await self._db.look_up(lambda tx: self._records.known(tx, [name]))
        await self._ask(name, known[name])
        await self._records.record([name])

    async def _ask(self, name: str, known: Known) -> None:
        if (corrected := await self._hear(name, known)) is not None:
            await corrected()

    async def _hear(self, name: str, known: Known) -> Callable[[], Coroutine[object, object, None]] | None:
        """Ask a host, and record what it says. What has to be corrected then; None: nothing can be."""
        now = self._clock.monotonic()
        if name not in self._records:
            self._learn_lease(name, known.lease_seconds)
        try:
            question = await self._renew_lease(name)
            facts = await self._hosts.facts(name)
            believed.require_own(name, facts, self._settings)
        except m.HostError as error:
            await self._say_once(name, error)
            if isinstance(error, m.BusLost) or name not in self._seen_at:
                self._seen_at[name] = now  # Its silence counts from our first question on.
            if now - self._seen_at[name] >= self._settings.host_silent_seconds and now >= self._fenced_from(name):
                await self._mark_down(name)
            log.debug("%s does not answer: %s", name, error)
            return None
        self._disbelieved.pop(name, None)
        self._seen_at[name] = now
        self._learn_lease(name, facts.lease_seconds)
        if question is not None:
            self._fenced_at[name] = self._lease_end(name)
        reports, linked = await self._look(name, facts)
        reports, cut = believed.reported(reports, known.before.revisions)

        new = self._welcomed.get(name) != facts.session
        if new:
            self._hosts.has_started(name)

        recorded = Recorded()
        if new or cut or self._records.is_news(facts, reports, linked, known):
            said = Said(facts=facts, reports=reports, linked=linked, known=known, new=new, cut=cut)
            recorded = await self._recorder.record(said)
            self._records.recorded(facts, recorded.agreed, now)
        else:
            self._records.again(name, now)
        if new and reports is not None:
            try:
                if recorded.wires:
                    await wiring.wire(self._hosts, self._db.read_async, self._clock, name)
                await self._hosts.send(name, m.Welcome(session=facts.session, generations=recorded.generations))
            except m.HostError as error:
                log.warning("%s cannot be welcomed, will retry: %s", name, error)
                return None
            self._welcomed[name] = facts.session
        answered = None if question is None else (question, facts.session)
        return functools.partial(self._have_corrected, name, recorded, answered, said=reports is not None)

    async def _have_corrected(
        self, name: str, recorded: Recorded, answered: tuple[int, str] | None, *, said: bool
    ) -> None:
        """`answered`: the question that gives a lease, and who answered it. `said`: the host has told its guests."""
        removed = await self._corrector.correct(name, recorded.corrections) and said and not recorded.more
        if removed and not recorded.cleared:
            await self._db.write_async(lambda tx: self._record_cleared(tx, name))
        # It may have a lease from here on: the record says that it is up, and it has removed the guests that it lost.
        if answered is not None and (removed or recorded.cleared):
            self._heard[name] = answered

    async def _say_once(self, name: str, error: m.HostError) -> None:
        """Of a host that is not believed: it counts as silent until it is."""
        if not isinstance(error, believed.NotBelieved) or self._disbelieved.get(name) == str(error):
            return
        self._disbelieved[name] = str(error)
        log.error("%s is not believed, so it counts as silent: %s", name, error)
        now_us, done = self._clock.now_us(), NOT_BELIEVED.format(error=error)
        await self._db.write_async(
            lambda tx: findings.note(tx, WATCH, "host-not-believed", done, now_us=now_us, host=name)
        )

    async def _look(self, name: str, facts: HostFacts) -> tuple[list[GuestReport] | None, Collection[str] | None]:
        """The states of its guests, and the ids of the ports that are plugged; each None if the host does not say.

        It has answered before, so it is up. The next round asks again.
        """
        try:
            reports = await self._hosts.guests(name)
            if "networks" not in facts.features:
                return reports, None
            return reports, (await self._hosts.in_force(name)).linked  # `Wirings` heeds the revision, too.
        except m.HostError as error:
            log.warning("%s does not say what its guests do: %s", name, error)
            return None, None

    async def _renew_lease(self, name: str) -> int | None:
        """Ask a host to renew its lease; the number of the question, or None if it has no lease. See `agent.lease`.

        The host counts from before its answer. We count from when we heard it and add a margin. The caller decides
        when the host learns that its answer was heard. A host with a watchdog is given leases even if nobody counts
        on their end (`fence_silent_hosts`), because its guests would end without one.
        """
        if not self._settings.fence_silent_hosts and name not in self._leases:
            return None
        self._fenced_from(name)
        self._number += 1
        number = self._number
        heard, agent = self._heard.get(name, (None, ""))
        await self._hosts.send(name, m.RenewLease(session=self._session, number=number, heard=heard, agent=agent))
        return number

    def _fenced_from(self, name: str) -> float:
        """When a host is fenced, monotonic. One that we have not heard may have a fresh lease from the last leader."""
        if not self._settings.fence_silent_hosts and name not in self._leases:
            return float("-inf")
        return self._fenced_at.setdefault(name, self._lease_end(name))

    def _lease_end(self, name: str) -> float:
        """The end of a lease that begins now. The agent may have other settings than we: the longer lease counts."""
        seconds = max(self._settings.host_lease_seconds, self._leases.get(name, 0.0))
        return self._clock.monotonic() + seconds + LEASE_MARGIN_SECONDS

    def _learn_lease(self, name: str, seconds: float | None) -> None:
        if seconds is None:
            self._leases.pop(name, None)
        else:
            self._leases[name] = seconds

    def _record_cleared(self, tx: Tx, name: str) -> None:
        self._require_lead(tx)
        host_records.cleared(tx, name)

    async def _mark_down(self, name: str) -> None:
        """The host is silent for too long, and its lease, if it had one, has run out."""
        silent = self._clock.monotonic() - self._seen_at[name] if name in self._records else None

        def record(tx: Tx) -> bool:
            self._require_lead(tx)
            now_us = self._clock.now_us()
            seen_at_us = now_us - round(silent * 1_000_000) if silent is not None else None
            if not host_records.set_up(tx, name, up=False, now_us=now_us, seen_at_us=seen_at_us):
                return False
            finding, done = "host-silent", NOT_FENCED
            if self._settings.fence_silent_hosts:
                held = host_records.kind_of(tx, name).lease_held
                finding, done = ("lease-run-out", FENCED) if held else (finding, NO_LEASE)
            findings.note(tx, WATCH, finding, done, now_us=now_us, host=name)
            return True

        if await self._db.write_async(record):
            log.warning("%s is down", name)
            self.lost.set()
