"""The two ends of a bus: a way to a host, and what answers there. Transports (`bus`) know no more of either."""

from __future__ import annotations

from typing import Protocol, TypeVar

from cumulet.host.messages import Message

AnswerT = TypeVar("AnswerT")


class Link(Protocol):
    """A way to one host's agent. Raises HostUnreachable when no answer can be had."""

    async def send(self, message: Message[AnswerT]) -> AnswerT: ...
    async def close(self) -> None: ...


class Answers(Protocol):
    """What answers messages on a host: its agent."""

    async def handle(self, message: Message[AnswerT]) -> AnswerT:
        """The message's answer; raises a `messages.HostError`."""
        ...

    async def close(self) -> None:
        """Let go of the host without stopping its guests."""
        ...
