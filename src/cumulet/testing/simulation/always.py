"""Invariants that hold at every moment: checked after every commit, at every change of a guest, between requests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import sqlalchemy as sa

from cumulet.conductor.leadership import leases
from cumulet.conductor.saga import operations
from cumulet.host.driver import GuestState
from cumulet.testing.simulation import claims
from cumulet.testing.simulation.invariants import Broken
from cumulet.testing.simulation.network_invariants import Served, floating_ips, subports
from cumulet.testing.simulation.process import Process

if TYPE_CHECKING:
    from cumulet.testing.simulation.cloud import SimulatedCloud

TAKEN_OVER_LEASES = 3.0
"""After so many leases another conductor must have taken an operation over. It needs one lease to see that it has run
out; the rest is for sweeps, every quarter of a lease, and for commits that fail."""
GIVEN_WAY_LEASES = 5.0
"""After so many leases a conductor without the bus leads no more, and holds nothing, while another one has the bus."""
SETTLED_SECONDS = 0.1
"""For so long a process that was stopped may believe that it leads: it reads its clock and tries to renew."""
WITHOUT_MEMORY = (GuestState.STOPPED, GuestState.SUSPENDED, GuestState.CRASHED)
"""States of guests without a process, which take no memory."""
_HELD = sa.select(operations.c.saga, operations.c.subject, operations.c.lease_owner).where(
    operations.c.ended_at_us.is_(None), operations.c.lease_owner.is_not(None)
)
_LEADER = sa.select(leases.c.owner).where(leases.c.name == "reconcilers")


class Always:
    """Keeps the first invariant that does not hold, and raises it when the run asks."""

    def __init__(self, cloud: SimulatedCloud) -> None:
        self._cloud = cloud
        self._broken: Broken | None = None
        self._claimants: set[str] = set()
        """Who had a claim at the last check."""
        self._moves: set[str] = set()
        """Moves whose copies have begun."""
        self._served = Served(cloud)

    def break_(self, kind: str, problem: str) -> None:
        if self._broken is None:
            self._broken = Broken(kind, problem)
            self._cloud.say(f"BROKEN NOW: {problem}")

    def look(self) -> None:
        """Called between requests. Raises Broken, also for what was found since the last call."""
        self._taken_over()
        self._one_leads()
        self._given_way()
        self.host_wired()
        if self._broken is not None:
            raise self._broken

    # -- guests

    def guest_changed(self) -> None:
        """No guest runs twice, and the guests of a machine do not need more memory than it has."""
        cloud = self._cloud
        where: dict[str, str] = {}
        taken = dict.fromkeys(cloud.machines, 0)
        for name, machine in cloud.machines.items():
            for server_id, found in machine.driver.modelled().items():
                if found.state not in WITHOUT_MEMORY:
                    taken[name] += found.guest.memory_mib
                if found.state is not GuestState.RUNNING:
                    continue
                if server_id in where:
                    self.break_("double run", f"two running copies of {server_id}: on {where[server_id]} and on {name}")
                where[server_id] = name
        if cloud.shared:
            taken = {"the machine of all hosts": sum(taken.values())}
        for name, mib in taken.items():
            if mib > cloud.settings.simulated_memory_mib:
                self.break_("over memory", f"guests take {mib} MiB of {name}, which has less")

    def copy_begins(self, move: str) -> None:
        """The credentials of a move are good for its one copy; no other copy trusts them."""
        if move in self._moves:
            self.break_("key used twice", f"another copy has begun with what was made for the move {move[:8]}")
        self._moves.add(move)

    def host_wired(self) -> None:
        """Whenever a host's network has changed."""
        for kind, problem in self._served.broken():
            self.break_(kind, problem)

    # -- the database

    def written(self) -> None:
        """Called after every commit. It raises nothing: the product would take an error here for a failed commit."""
        try:
            self._judge_commit()
        except Exception as error:
            self.break_("not judged", f"the simulation cannot judge a commit: {error!r}")

    def _judge_commit(self) -> None:
        db, machines = self._cloud.db, self._cloud.machines
        self._claims()
        while db.lost:
            server_id, host = db.lost.pop()
            if server_id in machines[host].driver.present():
                self.break_("wrong record", f"{host} is said to have lost the guest of {server_id}, and has it")
        for story in db.done_again:
            self.break_("done twice", f"an operation went back, or on after its end: {story}")
        for kind, problem in db.at_once.broken(self._cloud):
            self.break_(kind, problem)
        if db.floating_touched:
            db.floating_touched = False
            for kind, problem in floating_ips(db.driver):
                self.break_(kind, problem)
        if db.trunks_touched:
            db.trunks_touched = False
            for kind, problem in subports(db.driver):
                self.break_(kind, problem)
        if db.host_marked:
            db.host_marked = False
            self.host_wired()
            leader = db.read(lambda tx: tx.scalar(_LEADER, {}))
            if leader is not None and db.writer.startswith("conductor") and leader != db.writer:
                self.break_("two watchers", f"{db.writer} has said of a host whether it answers, and {leader} leads")

    def _claims(self) -> None:
        """Called after every commit that wrote a claim, an inventory, or a server's host, flavor or deletion."""
        cloud = self._cloud
        if not cloud.db.claims_touched:
            return
        cloud.db.claims_touched = False
        guests = {name: machine.driver.described() for name, machine in cloud.machines.items()}
        driver = cloud.db.driver
        problems = (
            *claims.broken(driver),
            *claims.wrong_guests(driver, guests),
            *(claims.counted_twice(driver, cloud.settings.simulated_memory_mib) if cloud.shared else ()),
            *claims.begun_off_dead_hosts(driver, self._claimants),
        )
        for kind, problem in problems:
            self.break_(kind, problem)

    # -- conductors

    def _taken_over(self) -> None:
        """What a dead conductor held is taken over by one that has been up for long enough."""
        cloud = self._cloud
        up_since = min(self._looking_since(), default=None)
        if up_since is None:
            return
        for row in cloud.db.read(lambda tx: tx.all(_HELD, {})):
            waits = cloud.loop.now - max(up_since, cloud.died_at.get(row.lease_owner, cloud.loop.now))
            if waits > TAKEN_OVER_LEASES * cloud.settings.lease_seconds:
                self.break_("not taken over", f"{row.saga} of {row.subject[:8]} waits {waits:.1f} s for a conductor")

    def _one_leads(self) -> None:
        """Among conductors that are not stopped, and have read their clocks since then, at most one leads."""
        leading = []
        for one in self._cloud.conductors:
            process = one.runner.clock
            assert isinstance(process, Process)
            settled = process.going_since is not None and self._cloud.loop.now - process.going_since > SETTLED_SECONDS
            if one.leadership.leads and settled:
                leading.append(one.runner.name)
        if len(leading) > 1:
            self.break_("two watchers", f"{' and '.join(leading)} look after the hosts at once")

    def _given_way(self) -> None:
        """Who has lost the bus reaches no host. It leaves all work to who has it, if there is one."""
        cloud = self._cloud
        settled = cloud.loop.now - GIVEN_WAY_LEASES * cloud.settings.lease_seconds
        lost, able = set[str](), False
        for one in cloud.conductors:
            process = one.runner.clock
            assert isinstance(process, Process)
            looking, on_bus = process.looking_since, process.on_bus_since
            able = able or (on_bus is not None and max(on_bus, cloud.started_at[one.runner.name]) < settled)
            if (
                looking is not None
                and (off := process.lost_bus()) is not None
                and max(looking, cloud.loop.now - off) < settled
            ):
                lost.add(one.runner.name)
        if not lost or not able:
            return
        for row in cloud.db.read(lambda tx: tx.all(_HELD, {})):
            if row.lease_owner in lost:
                self.break_("no way given", f"{row.saga} of {row.subject[:8]} is held by one without the bus")
        leader = cloud.db.read(lambda tx: tx.scalar(_LEADER, {}))
        if leader in lost:
            self.break_("no way given", f"{leader} leads without the bus")

    def _looking_since(self) -> Iterator[float]:
        """Each conductor that is up, not stopped, and reaches the database -> since when this has been so."""
        for runner in self._cloud.runners:
            assert isinstance(runner.clock, Process)
            since = runner.clock.looking_since
            if since is not None:
                yield max(self._cloud.started_at[runner.name], since)
