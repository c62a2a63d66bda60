"""Control plane and agent in one process: a message is handed over as it is."""

from __future__ import annotations

from typing import TypeVar

from cumulet.host.link import Answers
from cumulet.host.messages import Message

AnswerT = TypeVar("AnswerT")


class InProcessLink:
    """A `host.link.Link` to an agent in this process."""

    def __init__(self, agent: Answers) -> None:
        self._agent = agent

    async def send(self, message: Message[AnswerT]) -> AnswerT:
        return await self._agent.handle(message)

    async def close(self) -> None:
        await self._agent.close()
