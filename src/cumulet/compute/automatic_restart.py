"""Automatic restart: servers of a host that is certainly lost start on another one. Off by default.

Certainly lost means what `evacuate` demands, too: the host's lease has run out, or an administrator has said that the
host is fenced. It is a reconciler without input: on event (a host is marked down) and on timer it does the same work.
"""

from __future__ import annotations

import asyncio
import logging

import sqlalchemy as sa

from cumulet.clock import Clock
from cumulet.compute import evacuation, operations
from cumulet.compute import hosts as host_records
from cumulet.compute.model import PowerState, VmState
from cumulet.compute.store import get_server, hosts, migrations, servers
from cumulet.conductor import findings, saga
from cumulet.db.engine import Database, Tx
from cumulet.periodic import Periodic
from cumulet.settings import Settings
from cumulet.wake import Wake

log = logging.getLogger(__name__)

AGAIN_SECONDS = 30.0
"""How long after a failed evacuation (perhaps no host had room) it is tried again."""

_STRANDED = (
    sa.select(servers.c.id, servers.c.host)
    .join(hosts, hosts.c.name == servers.c.host)
    .where(
        sa.or_(hosts.c.forced_down, ~hosts.c.up),
        servers.c.vm_state == VmState.ACTIVE,
        servers.c.power_state == PowerState.RUNNING,
        servers.c.task_state.is_(None),
        servers.c.deleted_at_us.is_(None),
        ~sa.exists().where(
            migrations.c.server_id == servers.c.id,
            migrations.c.type == "evacuation",
            migrations.c.updated_at_us > sa.bindparam("since_us"),
        ),
    )
    .order_by(servers.c.number)
)


class AutomaticRestart(Periodic):
    """Evacuates servers of lost hosts. `lost` is set when a host is marked down."""

    def __init__(self, *, db: Database, clock: Clock, settings: Settings, wake: Wake, lost: asyncio.Event) -> None:
        every = settings.host_silent_seconds if settings.restart_servers_of_lost_hosts else None
        super().__init__(name="automatic-restart", clock=clock, seconds=every, woken=lost)
        self._db = db
        self._settings = settings
        self._wake = wake

    async def round(self) -> None:
        """Look at every lost host once."""
        await self._db.write_async(self._restart_all)

    def _restart_all(self, tx: Tx) -> None:
        now = self._clock.now_us()
        fenced: dict[str, bool] = {}
        for row in tx.all(_STRANDED, {"since_us": now - int(AGAIN_SECONDS * 1_000_000)}):
            if row.host not in fenced:
                fenced[row.host] = host_records.is_fenced(tx, row.host, self._settings)
            if fenced[row.host] and saga.running_operation(tx, row.id) is None:
                self._restart(tx, row.id, now)

    def _restart(self, tx: Tx, server_id: str, now_us: int) -> None:
        """As an administrator would, in the name of the server's owner."""
        server = get_server(tx, server_id)
        assert server.host is not None
        operations.begin_unasked(
            tx,
            self._wake,
            self._clock,
            server,
            evacuation.EVACUATION,
            lambda *begun: evacuation.first_state(
                tx,
                *begun,
                uuid=self._clock.uuid(),
                host=None,
                run=True,
                user_id=server.user_id,
                project_id=server.project_id,
                now_us=now_us,
            ),
            action="evacuate",
            event="compute_rebuild_instance",
            task_state="rebuilding",
            in_name_of_owner=True,
        )
        findings.note(
            tx,
            "automatic-restart",
            "server-of-a-lost-host",
            "starts on another one",
            now_us=now_us,
            host=server.host,
            subject=server_id,
        )
        log.warning("%s ran on %s, which is lost: it starts elsewhere", server_id, server.host)
