"""What a guest's own agent can be asked, a program inside the guest: part of `host.driver`, and its verb."""

from __future__ import annotations

from typing import Protocol


class GuestAgent(Protocol):
    """QEMU's guest agent, in a guest whose description says that it has one."""

    async def set_password(self, server_id: str, *, user: str, password: str) -> None:
        """Set a user's password in the guest. DriverError with NO_AGENT where it has none, with AGENT_... where the
        agent does not answer, answers nonsense, or refuses."""
        ...
