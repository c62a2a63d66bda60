"""A machine that gets another address: its agent finds out, and a move to the one of before has a coded reason."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest

from cumulet.agent.joining import Joined
from cumulet.drivers.qemu import sockets
from cumulet.fleet import addresses
from cumulet.fleet.addresses import another_address, is_here
from cumulet.host.driver import DriverError
from cumulet.host.joining import Granted
from cumulet.processes import joined_agent
from cumulet.processes.joined_agent import JoinedPlace

NOT_HERE, NOT_HERE_6 = "192.0.2.77", "2001:db8::77"
URL = "https://127.0.0.1:8775"


@pytest.fixture(autouse=True)
def _look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "LOOK_SECONDS", 0.01)


def test_only_an_address_that_is_lost_while_there_is_another_one_is_news(monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_here("127.0.0.1")
    assert not is_here(NOT_HERE)
    assert not is_here(NOT_HERE_6)
    assert asyncio.run(another_address(URL, NOT_HERE)) == "127.0.0.1"

    async def stays(address: str) -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(another_address(URL, address), 0.2)

    asyncio.run(stays("127.0.0.2"))  # Another one than towards the cloud, which is still here.

    def no_route(_url: str) -> str:
        raise OSError("no route")

    monkeypatch.setattr(addresses, "address_towards", no_route)
    asyncio.run(stays(NOT_HERE))


@pytest.mark.parametrize("address", [NOT_HERE, NOT_HERE_6])
def test_a_move_to_an_address_that_is_gone_has_a_coded_reason(address: str) -> None:
    with pytest.raises(DriverError, match=f"ADDRESS_GONE: this host receives moves at {address}"):
        sockets.listener(address)


class _Bus:
    is_connected = True
    quiet_seconds = 0.0

    async def connected(self) -> None:
        pass


def test_the_agent_starts_anew_with_the_new_address_unless_it_was_told_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [NOT_HERE, "127.0.0.1"]
    served: list[tuple[str, str]] = []
    stops: list[asyncio.Event] = []

    async def granted(_membership: object, _session: str) -> Granted:
        return Granted(bus=())

    async def serve(*given: object) -> _Bus:
        *_, session, address, stack = given
        assert isinstance(stack, contextlib.AsyncExitStack)
        served.append((str(session), str(address)))
        if len(served) == 2 or address == NOT_HERE_6:
            asyncio.get_running_loop().call_later(0.1, stops[-1].set)
        return _Bus()

    async def waits(*_given: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(joined_agent, "granted_to", granted)
    monkeypatch.setattr(joined_agent, "_serve", serve)
    monkeypatch.setattr(joined_agent, "keep_renewed", waits)
    monkeypatch.setattr(joined_agent, "address_towards", lambda _url: found.pop(0))
    joined = Joined(url=URL, ca_fingerprint="f", name="rack1", machine="m")

    async def told(place: JoinedPlace) -> list[str]:
        stops.append(stop := asyncio.Event())
        served.clear()
        while not stop.is_set():
            await joined_agent._be_agent(place, None, joined, stop)  # type: ignore[arg-type]
        assert len({session for session, _ in served}) == len(served), "each is a start of its own"
        return [address for _, address in served]

    assert asyncio.run(told(JoinedPlace(state=tmp_path))) == [NOT_HERE, "127.0.0.1"]
    assert asyncio.run(told(JoinedPlace(state=tmp_path, migration_address=NOT_HERE_6))) == [NOT_HERE_6]
