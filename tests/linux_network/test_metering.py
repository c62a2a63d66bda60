"""What routers pass to and from the outside is counted by label: real packets, real counters."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from cumulet.drivers.linux_network import metering, names, namespaces, nft
from cumulet.host import wiring as w
from cumulet.host.traffic import Metered
from tests.linux_network.lab import needs_packets, reopened
from tests.linux_network.stacks import Outside
from tests.linux_network.test_routers import OTHER, ROUTES, Site, routers_of, site
from tests.linux_network.wirings import port

pytestmark = needs_packets

LABEL, EXCLUDING, NOTHING, BACK = (f"00000000-0000-4000-8000-00000000000{number}" for number in range(1, 5))
OUT, IN = w.Direction.OUT, w.Direction.IN


def rule(
    direction: w.Direction, *, excluded: bool = False, source: str | None = None, to: str | None = None
) -> w.MeterRule:
    return w.MeterRule(direction=direction, excluded=excluded, source=source, destination=to)


METERS = (
    w.Meter(label=LABEL, rules=(rule(OUT, source="10.0.0.0/24"), rule(OUT, source="0.0.0.0/0"))),
    w.Meter(label=EXCLUDING, rules=(rule(OUT, excluded=True, source="10.0.0.1/32"), rule(OUT, source="0.0.0.0/0"))),
    w.Meter(
        label=NOTHING, rules=(rule(OUT, to="10.0.1.0/24"), rule(OUT, source="::/0"), rule(IN, source="10.0.0.1/32"))
    ),
    w.Meter(label=BACK, rules=(rule(IN, source=f"{Outside.ADDRESS}/32", to="10.0.0.1/32"),)),
)


async def packets(at: Site, host: str = "host2") -> dict[str, int]:
    return {label: one.packets for label, one in (await at.place.networks[host].traffic([])).metered.items()}


async def test_each_packet_that_goes_out_or_comes_in_counts_once_for_each_label_about_it() -> None:
    async with site() as at:
        a, b, c = port("10.0.0.1"), port("10.0.1.1", network=OTHER), port("10.0.0.2")
        where = {"host1": [a, c], "host2": [b]}
        routed = replace(ROUTES, meters=METERS)
        await at.wire(where, {"host2": [routed]})
        one, far = await at.guest("host1", a, "10.0.0.254"), await at.guest("host2", b, "10.0.1.254")
        assert one.pings("10.0.1.1"), "between networks nothing is outside"
        assert await packets(at) == dict.fromkeys((LABEL, EXCLUDING, NOTHING, BACK), 0)
        assert one.pings(Outside.ADDRESS, data=100)
        once = await packets(at)
        assert (once[LABEL], once[EXCLUDING], once[NOTHING], once[BACK]) == (1, 0, 0, 1)
        found = (await at.place.networks["host2"].traffic([])).metered
        assert found[LABEL] == Metered(packets=1, bytes=20 + 8 + 100)
        assert far.pings(Outside.ADDRESS)
        assert (await packets(at))[EXCLUDING] == 1
        assert not {name for name in await at.place.networks["host2"].counters() if name.startswith("meter")}
        # Another rule, and a label less: what was counted stays.
        fewer = replace(ROUTES, meters=(w.Meter(label=LABEL, rules=(rule(OUT, source="10.0.0.0/24"),)), METERS[3]))
        await at.wire(where, {"host2": [fewer]})
        assert await packets(at) == {LABEL: 2, BACK: 1}
        assert far.pings(Outside.ADDRESS)
        assert (await packets(at))[LABEL] == 2
        # A new agent finds them.
        await at.place.networks["host2"].close()
        at.place.networks["host2"] = await reopened("192.0.2.2", at.place.namespaces["host2"], public=True)
        await at.wire(where, {"host2": [replace(ROUTES, meters=METERS[:1])]})
        assert await packets(at) == {LABEL: 2}
        assert one.pings(Outside.ADDRESS)
        assert (await packets(at))[LABEL] == 3
        # The router goes elsewhere, and nothing of its labels is kept here.
        await at.wire(where, {"host1": [routed], "host2": []})
        assert (await packets(at), (await packets(at, "host1"))[LABEL]) == ({}, 0)


async def test_a_router_without_labels_has_no_trace_of_those_it_had() -> None:
    async with site() as at:
        await at.wire({"host1": [], "host2": []}, {"host1": [replace(ROUTES, meters=METERS)]})
        (name,) = routers_of(at.place.namespaces["host1"])
        await at.wire({"host1": [], "host2": []}, {"host1": [ROUTES]})
        with namespaces.inside(at.place.namespaces["host1"]), namespaces.inside(name):
            assert metering.names_in(nft.counters("inet", names.TABLE)) == set()
            listed = nft.run_json("list", "table", "inet", names.TABLE) or []
        chains = {entry["chain"]["name"] for entry in listed if "chain" in entry}
        assert "metered" in chains
        assert not {chain for chain in chains if chain.startswith("meter_")}


async def test_counters_are_those_that_nft_lists_and_no_program_is_started_to_read_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with site() as at:
        a = port("10.0.0.1")
        await at.wire({"host1": [a], "host2": []}, {"host2": [replace(ROUTES, meters=METERS)]})
        one = await at.guest("host1", a, "10.0.0.254")
        assert one.pings(Outside.ADDRESS, data=100)
        (name,) = routers_of(at.place.namespaces["host2"])
        with namespaces.inside(at.place.namespaces["host2"]), namespaces.inside(name):
            listed = nft.run_json("list", "counters", "table", "inet", names.TABLE) or []
            read = nft.counted("inet", names.TABLE)
            assert nft.counted("inet", "no such table") == {}
        found = [entry["counter"] for entry in listed if "counter" in entry]
        assert read == {one["name"]: (one["packets"], one["bytes"]) for one in found}
        assert (1, 128) in read.values()

        def started(*_arguments: object, **_options: object) -> None:
            raise AssertionError("a program was started")

        with monkeypatch.context() as patched:
            patched.setattr(nft, "_nft", started)
            assert (await packets(at))[LABEL] == 1
