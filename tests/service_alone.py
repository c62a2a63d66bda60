"""A service alone behind the real dispatcher, policy and database: a token is the name of a persona."""

from __future__ import annotations

from collections.abc import Mapping

from cumulet.clock import SystemClock
from cumulet.db.engine import Database, Tx
from cumulet.fleet.hosts import Hosts
from cumulet.settings import Settings
from cumulet.web.context import Cloud
from cumulet.web.operation import Caller
from cumulet.web.policy import Policy


def persona(roles: str, project: str | None, *, user: str | None = None, system: bool = False) -> Caller:
    """`roles`: their names, with blanks between them."""
    return Caller(
        user_id=user or f"user-{roles}-{project}",
        user_name="somebody",
        user_domain_id="default",
        roles=frozenset(roles.split()),
        project_id=project,
        project_domain_id="default" if project else None,
        system=system,
    )


class PersonaTokens:
    """Stands in for identity."""

    def __init__(self, personas: Mapping[str, Caller]) -> None:
        self._personas = personas

    async def authenticate(self, token: str, *, service: str, method: str, path: str) -> Caller | None:
        return self._personas.get(token)


class NobodyToWake:
    """There is no conductor: what these services do must start no long operation."""

    def operation(self, tx: Tx, operation_id: str) -> None:
        raise AssertionError(f"the operation {operation_id} was started, and nobody carries it")


def cloud_of(database: Database, settings: Settings, personas: Mapping[str, Caller]) -> Cloud:
    return Cloud(
        settings=settings,
        db=database,
        clock=SystemClock(),
        state_dir=settings.state_dir,
        wake=NobodyToWake(),
        hosts=Hosts(),
        identity=PersonaTokens(personas),
        policy=Policy.load(),
    )
