"""How a part of the workload asks Network, and looks at the tables to know what there is."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cumulet.testing.simulation.cloud import SimulatedCloud
    from cumulet.testing.simulation.network_workload import Ask

Asked = tuple[str, Coroutine[object, None, None]]
"""The story of a request, and the request."""


class Requests:
    """`cloud`: whom it asks; `ask`: as `NetworkWorkload`'s."""

    def __init__(self, cloud: SimulatedCloud, ask: Ask) -> None:
        self.cloud = cloud
        self._ask = ask

    async def asked(self, caller: str, method: str, path: str, body: object = None) -> None:
        """A request whose answer is only logged. `path`: below Network's."""
        await self._ask(caller, method, f"/network/v2.0/{path}", body)

    def ids(self, statement: str, *values: str) -> list[str]:
        """The first column of what SQL finds, in its order."""
        return [row[0] for row in self.cloud.db.driver.execute(statement, values)]
