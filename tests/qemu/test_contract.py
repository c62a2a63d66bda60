"""The real driver does what the contract says, as the simulated one does (`tests/drivers/test_contract.py`)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest

from cumulet.drivers.qemu import live_migration_destination
from cumulet.drivers.qemu.driver import QemuDriver
from cumulet.drivers.qemu.facts import QemuFacts
from cumulet.drivers.qemu.hypervisor import Hypervisor
from cumulet.drivers.qemu.life import power_button
from cumulet.drivers.qemu.qmp import Arguments
from cumulet.host.driver import Driver
from tests.drivers.contract import OVER, TABLE, Pair, broken, has_its_ports_changed_when_it_is_over, shared

from .conftest import PARAMETERS, SLOW, Rig, Template

T = TypeVar("T")


async def with_pair(rig: Rig, story: Callable[[Pair], Awaitable[T]]) -> T:
    source, destination = await rig.resumed("host1"), await rig.open("host2")
    pair = Pair(
        source=source,
        destination=destination,
        guest=rig.guest,
        parameters=PARAMETERS,
        slow=SLOW,
        end=end_process,
        power_off=power_off,
        fail=fail,
    )
    try:
        return await story(pair)
    finally:
        await source.close()
        await destination.close()
        await rig.remove_all()


async def end_process(driver: Driver, server_id: str) -> None:
    assert isinstance(driver, QemuDriver)
    await driver._host.running_hypervisor(server_id).kill()


async def power_off(driver: Driver, server_id: str) -> None:
    """QEMU keeps its process, in the run state "shutdown"."""
    assert isinstance(driver, QemuDriver)
    assert await power_button(driver._host.running_hypervisor(server_id), 30.0)


FAILED: set[int] = set()
"""Numbers of processes that say that their machine has failed. No guest can be asked to do that here."""


async def fail(driver: Driver, server_id: str) -> None:
    assert isinstance(driver, QemuDriver)
    hypervisor = driver._host.running_hypervisor(server_id)
    await hypervisor.stop()
    FAILED.add(hypervisor.process.pid)


@pytest.fixture(autouse=True)
def _failed_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    run_state = Hypervisor.run_state

    async def said(hypervisor: Hypervisor) -> str:
        return "internal-error" if hypervisor.process.pid in FAILED else await run_state(hypervisor)

    monkeypatch.setattr(Hypervisor, "run_state", said)


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
        wrong += asyncio.run(with_pair(Rig(base, facts, template), partial(broken, state=state, verbs=verbs)))
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("state", sorted(OVER))
def test_a_guest_that_is_over_has_its_ports_changed(rig: Rig, state: str) -> None:
    asyncio.run(with_pair(rig, partial(has_its_ports_changed_when_it_is_over, state=state)))
