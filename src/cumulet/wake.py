"""What is told that a long operation waits, once the transaction that began it is durable."""

from __future__ import annotations

from typing import Protocol

from cumulet.db.engine import Tx


class Wake(Protocol):
    """'Look at this operation now.' Losing it costs only time: the sweep finds it."""

    def operation(self, tx: Tx, operation_id: str) -> None:
        """Register on `tx` that a runner should look at `operation_id` after the commit."""
        ...
