"""The verb that has a guest write down its state: what it does then is set up inside it."""

from __future__ import annotations

from cumulet.host.messages import Command, OnHost


class InjectNmi(Command[None], frozen=True, tag="inject-nmi"):
    async def do(self, host: OnHost) -> None:
        await host.driver.inject_nmi(self.server_id)
