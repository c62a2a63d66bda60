"""Servers whose guests do not run any more because their machine, or the cloud, was stopped: started again, or SHUTOFF.

Asked once for each start of a host's agent, with what that host says its guests do. As Nova at the start of a compute
service: `resume_guests_state_on_host_boot` decides. Either way the server's instance actions say what happened.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import msgspec

from cumulet.clock import Clock
from cumulet.compute import operations
from cumulet.compute.drift import Revisions
from cumulet.compute.model import PowerState, Server, VmState
from cumulet.compute.power import POWER, POWER_CHANGE, PowerChange, Verb
from cumulet.compute.store import new_action, select_servers, server_from_row, servers
from cumulet.conductor import saga
from cumulet.db.engine import Tx
from cumulet.db.parts import in_parts
from cumulet.host.driver import GuestReport, GuestState
from cumulet.settings import Settings
from cumulet.wake import Wake

log = logging.getLogger(__name__)

_ENDED = (GuestState.STOPPED, GuestState.CRASHED)


class ResumeOnBoot(msgspec.Struct, frozen=True, kw_only=True):
    """What it needs to begin operations."""

    clock: Clock
    settings: Settings
    wake: Wake

    def settle(self, tx: Tx, host: str, reports: Sequence[GuestReport], *, before: Revisions) -> None:
        """Start, or record as stopped, the servers of `host` that should run and do not.

        Left alone: what an operation is at, and records that are not as they were `before` the host was asked.
        """
        ended = {report.server_id: report.state for report in reports if report.state in _ENDED}
        for part in in_parts(sorted(ended)):
            rows = tx.all(
                select_servers().where(
                    servers.c.id.in_(part),
                    servers.c.host == host,
                    servers.c.deleted_at_us.is_(None),
                    servers.c.vm_state.in_((VmState.ACTIVE, *operations.UNDECIDED)),
                    servers.c.power_state == PowerState.RUNNING,
                    servers.c.task_state.is_(None),
                )
            )
            for server in map(server_from_row, rows):
                if before.get(server.id) != server.revision or saga.running_operation(tx, server.id) is not None:
                    continue
                if self.settings.resume_guests_state_on_host_boot:
                    self._start(tx, server)
                else:
                    self._record_stopped(tx, server, ended[server.id])

    def _start(self, tx: Tx, server: Server) -> None:
        power = POWER[Verb.START]
        operations.begin_unasked(
            tx,
            self.wake,
            self.clock,
            server,
            POWER_CHANGE,
            lambda *begun: PowerChange(**operations.on_host(*begun), verb=Verb.START, stays=_stays(server)),
            action=power.action,
            event=power.event,
            task_state=power.task_state,
            in_name_of_owner=False,
        )
        log.info("%s ran when %s was stopped: it starts again", server.id, server.host)

    def _record_stopped(self, tx: Tx, server: Server, seen: GuestState) -> None:
        now, power = self.clock.now_us(), POWER[Verb.STOP]
        action_id = new_action(
            tx,
            server.id,
            power.action,
            request_id=f"req-{self.clock.uuid()}",
            user_id=None,
            project_id=None,
            now_us=now,
        )
        operations.start_event(tx, action_id, power.event, host=server.host, now_us=now)
        operations.settle(tx, server.id, now_us=now, task_state=None, **operations.as_observed(seen, _stays(server)))
        operations.finish_events(tx, action_id, now_us=now)
        log.info("%s ran when %s was stopped: it is SHUTOFF", server.id, server.host)


def _stays(server: Server) -> VmState | None:
    return server.vm_state if server.vm_state in operations.UNDECIDED else None
