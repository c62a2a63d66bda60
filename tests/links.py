"""Ways to a host that tests bend: some of what is sent is lost, failed, answered wrongly or only listened to."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from cumulet.host import messages as m
from cumulet.host.link import Link
from cumulet.testing import TestCloud


class Way:
    """As good as the link it stands for; others override `send`."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def send(self, message: m.Message[Any]) -> Any:
        return await self._link.send(message)

    async def close(self) -> None:
        await self._link.close()


class Silence(Way):
    """It is cut: what is sent never arrives, and is never answered."""

    async def send(self, message: m.Message[Any]) -> Any:
        raise m.HostUnreachable("a test has cut the way to this host")


WayT = TypeVar("WayT", bound=Way)


@contextlib.contextmanager
def instead(cloud: TestCloud, host: str, bent: Callable[[Link], WayT]) -> Iterator[WayT]:
    """What is sent to `host` goes this way, until the block ends."""
    hosts = cloud.embedded.hosts
    link = hosts._links[host]
    way = bent(link)
    hosts.add(host, way)
    try:
        yield way
    finally:
        hosts.add(host, link)


@contextlib.contextmanager
def silent(cloud: TestCloud, host: str) -> Iterator[None]:
    """Nothing reaches `host`; its guests know nothing of it."""
    with instead(cloud, host, Silence):
        yield
