"""Automatic restart: servers of a host that is certainly lost start on another one. Off by default.

Certainly lost means what `evacuate` demands, too: the host's lease has run out, or an administrator has said that the
host is fenced. It is a reconciler without input: on event (a host is marked down) and on timer it does the same work.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

import sqlalchemy as sa

from cumulet.clock import Clock
from cumulet.compute import evacuation, operations
from cumulet.compute import hosts as host_records
from cumulet.compute.model import PowerState, VmState
from cumulet.compute.per_server import PerServer
from cumulet.compute.store import get_server, hosts, migrations, servers
from cumulet.conductor import findings, saga
from cumulet.db.engine import Database, Tx
from cumulet.db.parts import OfMany
from cumulet.settings import Settings
from cumulet.wake import Wake

log = logging.getLogger(__name__)

AGAIN_SECONDS = 30.0
"""How long after a failed evacuation (perhaps no host had room) it is tried again."""

_LOST = sa.select(hosts.c.name).where(sa.or_(hosts.c.forced_down, ~hosts.c.up)).order_by(hosts.c.name)
_STRANDED = sa.select(servers.c.id, servers.c.host, servers.c.number).where(
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
_ON_HOSTS = OfMany(_STRANDED, servers.c.host)
_THIS = _STRANDED.where(servers.c.id == sa.bindparam("of_server"))


class AutomaticRestart(PerServer):
    """Evacuates servers of lost hosts. `lost` is set when a host is marked down."""

    def __init__(self, *, db: Database, clock: Clock, settings: Settings, wake: Wake, lost: asyncio.Event) -> None:
        every = settings.host_silent_seconds if settings.restart_servers_of_lost_hosts else None
        super().__init__(db=db, name="automatic-restart", clock=clock, seconds=every, woken=lost)
        self._settings = settings
        self._wake = wake

    def find(self, tx: Tx) -> Sequence[str]:
        """Of all lost hosts."""
        lost = [row.name for row in tx.all(_LOST, {}) if self._is_lost(tx, row.name)]
        found = _ON_HOSTS.rows(tx, lost, since_us=self._since_us())
        return [row.id for row in sorted(found, key=lambda row: row.number)]

    def _is_lost(self, tx: Tx, host: str) -> bool:
        return host_records.is_fenced(tx, host, self._settings)

    def _since_us(self) -> int:
        return self._clock.now_us() - int(AGAIN_SECONDS * 1_000_000)

    def see_to(self, tx: Tx, server_id: str) -> None:
        """As an administrator would, in the name of the server's owner."""
        row = tx.first(_THIS, {"of_server": server_id, "since_us": self._since_us()})
        if row is None or not self._is_lost(tx, row.host) or saga.running_operation(tx, server_id) is not None:
            return
        now_us = self._clock.now_us()
        server = get_server(tx, server_id)
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
            event=evacuation.EVENTS,
            task_state="rebuilding",
            in_name_of_owner=True,
        )
        findings.note(
            tx,
            "automatic-restart",
            "server-of-a-lost-host",
            "starts on another one",
            now_us=now_us,
            host=row.host,
            subject=server_id,
        )
        log.warning("%s ran on %s, which is lost: it starts elsewhere", server_id, row.host)
