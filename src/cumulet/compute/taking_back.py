"""The undo of making a guest, which spares a guest that came after the records."""

from __future__ import annotations

import logging
from typing import TypeVar

from cumulet.compute.operations import observe, unless_down
from cumulet.conductor.saga import Context
from cumulet.host import messages as m
from cumulet.host.driver import GuestState

log = logging.getLogger(__name__)
OtherwiseT = TypeVar("OtherwiseT")


async def take_back(
    context: Context, host: str | None, message: m.Destroy, *, otherwise: OtherwiseT | None = None
) -> OtherwiseT | None:
    """As `unless_down`. A host that has a guest which came after the records (`compute.restored`) refuses this, as it
    has refused to make another: nothing was made there."""
    try:
        return await unless_down(context, host, message, otherwise=otherwise)
    except m.StaleGeneration as stale:
        if host is None or stale.accepted is None:
            raise
        if await observe(context, host, message.server_id) is GuestState.ABSENT:
            raise
        log.warning("%s has a newer guest of %s, which is left alone", host, message.server_id)
        return None
