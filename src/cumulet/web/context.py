"""The cloud a request runs against: what handlers may reach besides their transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import msgspec

if TYPE_CHECKING:
    from pathlib import Path

    from cumulet.clock import Clock
    from cumulet.db.engine import Database, Tx
    from cumulet.settings import Settings


class Wake(Protocol):
    """What an API process tells the conductor after a commit: 'look at this operation now'.

    Losing it costs only time.
    """

    def operation(self, tx: Tx, operation_id: str) -> None:
        """Register on `tx` that the runner should look at `operation_id` once this transaction is durable."""
        ...


class Cloud(msgspec.Struct, frozen=True, kw_only=True):
    """One running cloud."""

    settings: Settings
    db: Database
    clock: Clock
    state_dir: Path
    wake: Wake
    hosts: Any
    """`fleet.hosts.Hosts`: questions to host agents (console output, diagnostics)."""
    identity: Any
    """`identity.service.Identity`: keys, token cache, password pool, login limiter."""
    policy: Any
    """`web.policy.Policy`: the compiled rules."""
