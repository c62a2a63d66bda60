"""The two ends of a bus: the link to a host, and what answers on it. Transports (`bus`) know nothing else of them."""

from __future__ import annotations

from typing import Protocol, TypeVar

from cumulet.host.messages import Message

AnswerT = TypeVar("AnswerT")


class Link(Protocol):
    """A link to one host's agent. Raises HostUnreachable if there is no answer."""

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
