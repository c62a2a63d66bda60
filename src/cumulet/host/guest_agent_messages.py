"""Verbs for what runs inside a guest: its agent, and who asks the metadata service. Their order among commands does
not matter."""

from __future__ import annotations

from cumulet.host.messages import OnHost, Question
from cumulet.host.telling import Heard, Told


class SetPassword(Question[None], frozen=True, tag="set-password"):
    server_id: str
    user: str
    password: str

    def __repr__(self) -> str:
        return f"SetPassword(server_id={self.server_id!r}, user={self.user!r})"

    async def do(self, host: OnHost) -> None:
        await host.driver.set_password(self.server_id, user=self.user, password=self.password)


class TellMetadata(Question[Heard], frozen=True, tag="tell-metadata"):
    """What the metadata service tells a guest from now on. `told.revision` keeps late ones out, and so does a server's
    `generation` where the guest was made anew since: the host refuses one that is lower than it has accepted."""

    server_id: str
    generation: int
    told: Told

    async def do(self, host: OnHost) -> Heard:
        return await host.tell(self.server_id, self.generation, self.told)
