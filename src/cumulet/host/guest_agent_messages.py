"""The verb for a guest's own agent. What it changes is inside the guest: its order among commands does not matter."""

from __future__ import annotations

from cumulet.host.messages import OnHost, Question


class SetPassword(Question[None], frozen=True, tag="set-password"):
    server_id: str
    user: str
    password: str

    def __repr__(self) -> str:
        return f"SetPassword(server_id={self.server_id!r}, user={self.user!r})"

    async def do(self, host: OnHost) -> None:
        await host.driver.set_password(self.server_id, user=self.user, password=self.password)
