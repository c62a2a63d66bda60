"""What is told that a long operation waits, once the transaction that began it is durable."""

from __future__ import annotations

from typing import Protocol

from cumulet.db.engine import Tx

OPERATIONS_BEGUN = "cumulet_operations"
"""The channel on which processes without a conductor say the ids of operations they have begun, or wish for."""


class Wake(Protocol):
    """'Look at this operation now.' Losing it costs only time: the sweep finds it."""

    def operation(self, tx: Tx, operation_id: str) -> None:
        """Register on `tx` that a runner should look at `operation_id` after the commit."""
        ...


class SaidToConductors:
    """A `Wake` of a process without a conductor: all that listen look at once; one that does not, when it sweeps."""

    def operation(self, tx: Tx, operation_id: str) -> None:
        tx.say(OPERATIONS_BEGUN, operation_id)
