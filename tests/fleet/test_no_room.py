"""A full disk ends no task that a host or its cloud needs: what could not be written is written when there is room."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cumulet.agent import joining, staying_joined
from cumulet.agent.staying_joined import keep_renewed
from cumulet.bus.nats_connection import SERVER_NAME
from cumulet.ca import CertificateAuthority
from cumulet.fleet import nats_server
from cumulet.fleet.nats_server import NatsServer
from cumulet.owned import write_whole
from tests.bus.nats_cloud import needs_nats
from tests.fleet.joined import JoinableCloud, SkewedClock, join, membership, tell

pytestmark = needs_nats


def full_for(times: int) -> Callable[..., None]:
    """`write_whole` on a disk that is full, so many times."""
    left = iter(range(times))

    def write(path: Path, content: bytes, mode: int = 0o600) -> None:
        if next(left, None) is not None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        write_whole(path, content, mode)

    return write


def test_a_certificate_that_finds_no_room_is_renewed_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(staying_joined, "RENEWAL_LOOK_SECONDS", 0.0)
    caplog.set_level(logging.INFO, logger=staying_joined.__name__)

    async def story(cloud: JoinableCloud) -> None:
        host = membership(tmp_path / "rack1", SkewedClock(21 * 86_400))
        await join(membership(tmp_path / "rack1"), await cloud.invite("rack1"))
        monkeypatch.setattr(joining, "write_whole", full_for(3))
        before = (host.identity / "client-cert.pem").read_bytes()
        keeping = asyncio.create_task(keep_renewed(host))
        while (host.identity / "client-cert.pem").read_bytes() == before:
            assert not keeping.done(), keeping.exception()
            await asyncio.sleep(0)
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        assert "certificates are not renewed, will retry" in caplog.messages[0]
        assert caplog.messages[0].endswith("client-cert.pem: No space left on device")
        assert set(caplog.messages[1:]) <= {"certificates are renewed"}, "it is said once"

    tell(tmp_path, story)


def test_a_nats_server_whose_settings_find_no_room_is_started_again_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(nats_server, "RESTART_PAUSE_SECONDS", 0.0)

    async def story() -> None:
        issued = CertificateAuthority.load_or_create(tmp_path / "ca").issue_bus(SERVER_NAME)
        server = NatsServer(tmp_path / "bus", issued, address="127.0.0.1", port=-1)
        async with contextlib.AsyncExitStack() as stack, asyncio.timeout(30):
            stack.push_async_callback(server.stop)
            await server.start([])
            before = server._process
            assert before is not None
            assert server._keeping is not None
            monkeypatch.setattr(nats_server, "write_whole", full_for(3))
            before.kill()
            while server._process is before or not server.runs:
                assert not server._keeping.done(), server._keeping.exception()
                await asyncio.sleep(0.01)
        assert sum("No space left on device" in words for words in caplog.messages) == 1, "it is said once"

    asyncio.run(story())
