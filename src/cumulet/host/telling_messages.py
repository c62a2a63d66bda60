"""The verb that tells a host's metadata service what has changed. Its order among commands does not matter."""

from __future__ import annotations

from cumulet.host.messages import OnHost, Question
from cumulet.host.telling import Heard, Told


class TellMetadata(Question[Heard], frozen=True, tag="tell-metadata"):
    """What the metadata service tells a guest from now on. `told.revision` keeps late ones out, and so does a server's
    `generation` where the guest was made anew since: the host refuses one that is lower than it has accepted."""

    server_id: str
    generation: int
    told: Told

    async def do(self, host: OnHost) -> Heard:
        return await host.tell(self.server_id, self.generation, self.told)
