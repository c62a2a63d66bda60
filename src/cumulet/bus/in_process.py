"""Control plane and agent in one process: a message is handed over as it is."""

from __future__ import annotations

from typing import Any

from cumulet.host.agent import Agent
from cumulet.host.messages import Message


class InProcessLink:
    """A `host.client.Link` to an agent in this process."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    async def send(self, message: Message) -> Any:
        return await self._agent.handle(message)

    async def close(self) -> None:
        await self._agent.driver.close()
