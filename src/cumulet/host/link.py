"""The two ends of a bus: a way to a host, and what answers there. Transports (`bus`) know no more of either."""

from __future__ import annotations

from typing import Any, Protocol

from cumulet.host.messages import Message


class Link(Protocol):
    """A way to one host's agent. Raises HostUnreachable when no answer can be had."""

    async def send(self, message: Message) -> Any: ...
    async def close(self) -> None: ...


class Answers(Protocol):
    """What answers messages on a host: its agent."""

    async def handle(self, message: Message) -> Any:
        """The answer that the message's declaration names; raises a `messages.HostError`."""
        ...

    async def close(self) -> None:
        """Let go of the host without stopping its guests."""
        ...
