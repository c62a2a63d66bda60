"""The life of what can be killed: a process of the control plane, or a request that one is serving.

A task that is cancelled may do so much more: take back what it has begun, say in the database that it failed. That is
how a request ends that takes too long. A task whose process was killed does nothing any more. Both are cancelled, so
who kills a process says so here.
"""

from __future__ import annotations

import asyncio
from contextvars import ContextVar


class Life:
    """It is `over` once its process was killed."""

    def __init__(self) -> None:
        self.over = False


LIFE: ContextVar[Life | None] = ContextVar("LIFE", default=None)
"""That of the running code; None outside of the control plane."""


def require_alive() -> None:
    """CancelledError if the process of the running code was killed."""
    life = LIFE.get()
    if life is not None and life.over:
        raise asyncio.CancelledError("its process was killed")


def end() -> None:
    """The process of the running code is killed."""
    life = LIFE.get()
    if life is not None:
        life.over = True
