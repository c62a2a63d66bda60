"""The real driver does what the contract says, as the simulated one does (`tests/drivers/test_contract.py`)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path

import pytest

from cumulet.drivers.qemu import live_migration_destination
from cumulet.drivers.qemu.driver import QemuDriver
from cumulet.drivers.qemu.facts import QemuFacts
from cumulet.drivers.qemu.hypervisor import Hypervisor
from cumulet.drivers.qemu.qmp import Arguments
from cumulet.host.driver import Driver
from tests.drivers.contract import TABLE, Pair, broken, shared

from .conftest import PARAMETERS, SLOW, Rig, Template


async def story(rig: Rig, state: str, verbs: Iterable[str]) -> list[str]:
    source, destination = await rig.resumed("host1"), await rig.open("host2")
    pair = Pair(
        source=source, destination=destination, guest=rig.guest, parameters=PARAMETERS, slow=SLOW, end=end_process
    )
    try:
        return await broken(pair, state, verbs)
    finally:
        await source.close()
        await destination.close()
        await rig.remove_all()


async def end_process(driver: Driver, server_id: str) -> None:
    assert isinstance(driver, QemuDriver)
    await driver._host.running_hypervisor(server_id).kill()


@pytest.mark.parametrize("state", TABLE)
def test_each_verb_does_what_the_contract_says(
    tmp_path: Path, facts: QemuFacts, template: Template, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What leaves a guest as it is, is asked of one guest, verb after verb; each of the others of a guest of its own.

    A guest to which nothing is copied loads nothing, however long a verb waits for it.
    """
    if state == "incoming":
        monkeypatch.setattr(live_migration_destination, "_LOAD_SECONDS", 1.0)
    if state == "copying":  # It is answered of the disk's copy, which takes some twenty seconds then.
        ask = Hypervisor.ask

        async def slowly(
            hypervisor: Hypervisor, command: str, arguments: Arguments | None = None, **more: float | None
        ) -> object:
            if command == "blockdev-mirror" and arguments is not None:
                arguments = {**arguments, "speed": 1 << 20}
            return await ask(hypervisor, command, arguments, **more)  # type: ignore[arg-type]

        monkeypatch.setattr(Hypervisor, "ask", slowly)
    of_one = shared(state)
    wrong: list[str] = []
    for number, verbs in enumerate([of_one, *([verb] for verb in TABLE[state] if verb not in of_one)]):
        base = tmp_path / str(number)
        base.mkdir()
        wrong += asyncio.run(story(Rig(base, facts, template), state, verbs))
    assert wrong == []
