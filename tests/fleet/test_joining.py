"""Machines join with a token that is good once. An error is one sentence. A removed machine is refused."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import logging
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from cumulet.agent import joining
from cumulet.agent.images import ImagesOfControlPlane
from cumulet.agent.joining import Unreachable
from cumulet.bus.nats_connection import SERVER_NAME
from cumulet.compute.joined_hosts import joined_hosts
from cumulet.fleet import image_door
from cumulet.host import messages as m
from cumulet.host.driver import DriverError, Image
from cumulet.host.joining import Admitted, Refused, Renew
from cumulet.web import strangers
from cumulet.web.log import end_log, log_to
from tests.bus.nats_cloud import needs_nats
from tests.fleet.joined import HOSTS, JoinableCloud, SkewedClock, agent_of, join, membership, tell, until

pytestmark = needs_nats


def without_certificate() -> ssl.SSLContext:
    """Of anybody, who trusts whatever answers."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def test_a_machine_joins_and_is_a_host_that_servers_run_on(tmp_path: Path) -> None:
    async def story(cloud: JoinableCloud) -> None:
        machine = membership(tmp_path / "rack1")
        joined = await join(machine, await cloud.invite("rack1"))
        assert joined.name == "rack1"
        async with agent_of(machine, "first"):
            await until(lambda: cloud.up("rack1"))
            assert await cloud.joined() == ["rack1"]
            images = (await cloud.ask("GET", "/image/v2/images")).json["images"]
            flavors = (await cloud.ask("GET", "/compute/v2.1/flavors")).json["flavors"]
            body = {
                "server": {
                    "name": "s",
                    "imageRef": images[0]["id"],
                    "flavorRef": flavors[0]["id"],
                    "networks": "none",
                    "host": "rack1",
                }
            }
            made = await cloud.ask("POST", "/compute/v2.1/servers", body)
            path = f"/compute/v2.1/servers/{made.json['server']['id']}"

            async def active() -> bool:
                return bool((await cloud.ask("GET", path)).json["server"]["status"] == "ACTIVE")

            await until(active)
            shown = (await cloud.ask("GET", path)).json["server"]
            assert shown["OS-EXT-SRV-ATTR:host"] == "rack1"
            refused = await cloud.ask("DELETE", f"{HOSTS}/rack1")
            assert refused.status == 409
            assert "has servers" in refused.message

    tell(tmp_path, story)


def test_a_host_that_joined_is_found_again_by_the_next_control_plane(tmp_path: Path) -> None:
    machine = membership(tmp_path / "rack1")

    async def first(cloud: JoinableCloud) -> None:
        await join(machine, await cloud.invite("rack1"))

    async def second(cloud: JoinableCloud) -> None:
        found = machine.joined()
        assert found is not None
        door = cloud.cloud.context.door
        assert door is not None
        (tmp_path / "rack1" / "joined.json").write_bytes(
            (tmp_path / "rack1" / "joined.json").read_bytes().replace(found.url.encode(), door.url.encode())
        )
        async with agent_of(machine, "first"):
            await until(lambda: cloud.up("rack1"))

    tell(tmp_path, first)
    tell(tmp_path, second)


async def _expire(cloud: JoinableCloud) -> None:
    def change(tx: Any) -> None:
        tx.execute(sa.update(joined_hosts).values(token_ends_at_us=1))

    await cloud.cloud.db.write_async(change)


async def _nothing(cloud: JoinableCloud) -> None:
    pass


@pytest.mark.parametrize(
    ("code", "words", "changed", "clock", "driver", "protocol", "before"),
    [
        ("WRONG_TOKEN", "not one of the cloud's", {"token": "x" * 43}, 0, "simulated", 1, _nothing),
        ("TOKEN_EXPIRED", "older than 15 minutes", {}, 0, "simulated", 1, _expire),
        ("WRONG_CA", "is not the cloud that printed", {"ca_fingerprint": "00" * 32}, 0, "simulated", 1, _nothing),
        ("WRONG_CLOCK", "120 s ahead of", {}, 120, "simulated", 1, _nothing),
        ("WRONG_CLOCK", "120 s behind", {}, -120, "simulated", 1, _nothing),
        ("OTHER_DRIVER", "hosts are simulated", {}, 0, "qemu", 1, _nothing),
        ("OTHER_VERSION", "is older than", {}, 0, "simulated", 0, _nothing),
        ("OTHER_VERSION", "is newer than", {}, 0, "simulated", 99, _nothing),
    ],
)
def test_what_is_wrong_is_one_sentence_and_leaves_nothing_behind(
    code: str,
    words: str,
    changed: dict[str, str],
    clock: int,
    driver: str,
    protocol: int,
    before: Callable[[JoinableCloud], Awaitable[None]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = io.StringIO()

    async def story(cloud: JoinableCloud) -> None:
        made = await cloud.invite("rack1")
        await before(cloud)
        monkeypatch.setattr(joining, "PROTOCOL", protocol)
        machine = membership(tmp_path / "rack1", SkewedClock(clock), driver=driver)
        with pytest.raises(Refused, match=words) as refused:
            await join(machine, made | changed)
        assert refused.value.refusal.code == code
        assert "\n" not in str(refused.value)
        assert not (tmp_path / "rack1").exists()
        assert await cloud.joined() == []
        assert cloud.cloud.hosts.names == ("host1",)
        if code != "WRONG_CA":  # The cloud has it in its log, and nothing in it is taken for a secret.
            assert f"join refused ({code}): {refused.value}" in {
                json.loads(one)["message"] for one in log.getvalue().splitlines()
            }

    handler = log_to(log, level=logging.WARNING)
    try:
        tell(tmp_path, story)
    finally:
        end_log(handler)


def test_a_token_is_good_once_but_for_the_machine_whose_answer_was_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(cloud: JoinableCloud) -> None:
        made = await cloud.invite("rack1")
        machine, fetch = membership(tmp_path / "rack1"), joining._fetch

        async def lost(client: Any, method: str, path: str, body: bytes = b"") -> bytes:
            answer = await fetch(client, method, path, body)
            if path == "/join":
                raise Unreachable("cut off")
            return answer

        monkeypatch.setattr(joining, "_fetch", lost)
        with pytest.raises(Unreachable):
            await join(machine, made)
        monkeypatch.undo()
        assert await cloud.joined() == ["rack1"]
        with pytest.raises(Refused, match="good once"):
            await join(membership(tmp_path / "other"), made)
        assert not (tmp_path / "other").exists()
        assert (await join(machine, made)).name == "rack1"
        async with agent_of(machine, "first"):
            await until(lambda: cloud.up("rack1"))

    tell(tmp_path, story)


def test_no_secret_of_it_is_kept(tmp_path: Path) -> None:
    async def story(cloud: JoinableCloud) -> None:
        made = await cloud.invite("rack1")
        machine = membership(tmp_path / "rack1")
        await join(machine, made)
        key = (machine.identity / "client-key.pem").read_text().splitlines()[1]
        for file in (tmp_path / "cloud").rglob("*"):
            if file.is_file():
                content = file.read_bytes()
                assert made["token"].encode() not in content, file
                assert key.encode() not in content, file
        for file in (tmp_path / "rack1").rglob("*"):
            assert file.stat().st_mode & 0o077 == 0, file

    tell(tmp_path, story)


def test_a_host_that_was_removed_is_nobody_even_if_its_name_joins_again(tmp_path: Path) -> None:
    async def story(cloud: JoinableCloud) -> None:
        old = membership(tmp_path / "old")
        await join(old, await cloud.invite("rack1"))
        async with agent_of(old, "first") as bus:
            await until(lambda: cloud.up("rack1"))
            assert (await cloud.ask("DELETE", f"{HOSTS}/rack1")).status == 204

            async def cut_off() -> bool:
                await asyncio.gather(cloud.cloud.hosts.facts("rack1"), return_exceptions=True)
                return not bus.is_connected

            await until(cut_off)
            shown = await cloud.ask("GET", "/compute/v2.1/os-hypervisors")
            assert [one["hypervisor_hostname"] for one in shown.json["hypervisors"]] == ["host1"]
            with pytest.raises(Refused, match="does not know this host: it was removed, or") as unknown:
                await old.claim("second")
            assert unknown.value.refusal.code == "NO_MEMBER"
            new = membership(tmp_path / "new")
            await join(new, await cloud.invite("rack1"))
            for ask in (old.claim("second"), old.renew()):
                with pytest.raises(Refused, match="rack1 has joined with another key than this machine has") as refused:
                    await ask
                assert refused.value.refusal.code == "OTHER_MEMBER"
            async with agent_of(new, "fresh"):
                assert (await cloud.cloud.hosts.facts("rack1")).session == "fresh"
                assert not bus.is_connected

    tell(tmp_path, story)


def test_a_host_gets_no_image_that_is_not_its_guests_and_none_without_its_certificate(tmp_path: Path) -> None:
    async def story(cloud: JoinableCloud) -> None:
        machine = membership(tmp_path / "rack1")
        joined = await join(machine, await cloud.invite("rack1"))
        found = (await cloud.ask("GET", "/image/v2/images")).json["images"][0]
        wanted = Image(
            id=found["id"], disk_format="raw", size_bytes=1, virtual_size_bytes=1, sha512=found["os_hash_value"]
        )
        for tls in (machine.identity, cloud.cloud.authority.issue_host("host1")):
            with pytest.raises(DriverError, match="not to be had: 404"):
                async for _ in ImagesOfControlPlane(joined.url, tls).stream(wanted):
                    pass

    tell(tmp_path, story)


def test_the_certificate_of_a_host_of_the_cloud_s_machine_opens_neither_the_bus_nor_the_door(tmp_path: Path) -> None:
    """A certificate of the same authority for another purpose."""

    async def story(cloud: JoinableCloud) -> None:
        from nats.aio.client import Client

        machine = membership(tmp_path / "rack1")
        joined = await join(machine, await cloud.invite("rack1"))
        granted = await machine.claim("first")
        folder = cloud.cloud.authority.issue_host("rack1")
        tls = ssl.create_default_context(cafile=str(folder / "ca-cert.pem"))
        tls.load_cert_chain(folder / "client-cert.pem", folder / "client-key.pem")
        with pytest.raises(Exception, match=r"(?i)authorization"):
            await Client().connect(list(granted.bus), tls=tls, tls_hostname=SERVER_NAME, allow_reconnect=False)
        with pytest.raises(Refused) as refused:
            await joining._fetch(joining._client(joined.url, tls), "POST", "/claim", b"{}")
        assert refused.value.refusal.code == "NO_CERTIFICATE"

    tell(tmp_path, story)


def test_certificates_are_renewed_for_the_same_key_only(tmp_path: Path) -> None:
    async def story(cloud: JoinableCloud) -> None:
        machine, other = membership(tmp_path / "rack1"), membership(tmp_path / "rack2")
        await join(machine, await cloud.invite("rack1"))
        await join(other, await cloud.invite("rack2"))
        before = (machine.identity / "client-cert.pem").read_bytes()
        assert not machine.needs_renewal()
        assert membership(tmp_path / "rack1", SkewedClock(21 * 86_400)).needs_renewal()
        with pytest.raises(Refused, match="has ended"):
            await membership(tmp_path / "rack1", SkewedClock(31 * 86_400)).claim("first")
        await machine.renew()
        assert (machine.identity / "client-cert.pem").read_bytes() != before
        async with agent_of(machine, "first"):
            await until(lambda: cloud.up("rack1"))
        asked = Renew(request=joining._request(other.identity))
        client = joining._client(cloud.cloud.context.door.url, machine.tls())  # type: ignore[union-attr]
        with pytest.raises(Refused, match="another key"):
            await joining._ask(client, "/renew", asked, Admitted)

    tell(tmp_path, story)


def test_joining_is_bounded_and_what_is_no_request_does_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strangers, "JOINS_PER_MINUTE_OF_ONE", 5)

    async def story(cloud: JoinableCloud) -> None:
        made = await cloud.invite("rack1")

        async def post(path: str, body: bytes) -> str:
            with pytest.raises(Refused) as refused:
                await joining._fetch(joining._client(made["join"], without_certificate()), "POST", path, body)
            return refused.value.refusal.code

        assert await post("/join", b"{") == "NOT_UNDERSTOOD"
        assert await post("/join", b'{"token":"x"}') == "NOT_UNDERSTOOD"
        assert await post("/join", b'{"token":"\xff"}') == "NOT_UNDERSTOOD"
        assert await post("/join", b'{"token":' + b"[" * 30_000) == "NOT_UNDERSTOOD"
        assert await post("/claim", b"{}") == "NO_CERTIFICATE"
        assert await post("/join", b"x" * 40_000) == "NO_CLOUD"  # 404: too long to be read
        assert await post("/nothing", b"{}") == "NO_CLOUD"
        machine = membership(tmp_path / "rack1")
        await join(machine, made)
        with pytest.raises(Refused, match="too many machines"):
            await join(membership(tmp_path / "other"), made)
        async with agent_of(machine, "first"):
            await until(lambda: cloud.up("rack1"))

    tell(tmp_path, story)


@pytest.mark.parametrize("shakes_hands", [True, False])
def test_who_shows_no_certificate_and_says_nothing_keeps_no_machine_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shakes_hands: bool
) -> None:
    monkeypatch.setattr(strangers, "CONNECTIONS_OF_ONE", 4)
    monkeypatch.setattr(image_door, "MOST_TRANSFERS", 1)

    async def story(cloud: JoinableCloud) -> None:
        made = await cloud.invite("rack1")
        port = int(made["join"].rpartition(":")[2])
        tls = without_certificate() if shakes_hands else None
        silent = [await asyncio.open_connection("127.0.0.1", port, ssl=tls) for _ in range(10)]
        async with asyncio.timeout(image_door.HEAD_SECONDS / 2):
            with contextlib.suppress(ConnectionError):
                assert await silent[0][0].read() == b"", "it made room"
            machine = membership(tmp_path / "rack1")
            await join(machine, made)
            await machine.claim("first")
        for _, writer in silent:
            writer.close()

    tell(tmp_path, story)


def test_a_cloud_without_machines_that_join_listens_for_none(tmp_path: Path) -> None:
    async def story(cloud: JoinableCloud) -> None:
        door = cloud.cloud.context.door
        assert door is not None
        assert not (tmp_path / "cloud" / "bus").exists()
        assert cloud.cloud.hosts.names == ("host1",)
        with pytest.raises(m.HostUnreachable):
            await cloud.cloud.hosts.facts("rack1")

    tell(tmp_path, story)
