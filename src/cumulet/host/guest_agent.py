"""What a guest's agent, a program inside the guest, can be asked: a protocol of `host.driver`."""

from __future__ import annotations

from typing import Protocol


class GuestAgent(Protocol):
    """QEMU's guest agent, in a guest whose description says that it has one."""

    async def set_password(self, server_id: str, *, user: str, password: str) -> None:
        """Set a user's password in the guest. DriverError: NO_AGENT if it has none, AGENT_... if the agent does not
        answer, its answer is not understood, or it refuses."""
        ...
