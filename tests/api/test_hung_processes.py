"""A guest's process that is there and answers nothing: what was begun with it ends, and its user has ways out."""

from __future__ import annotations

from collections.abc import Iterator
from unittest import mock

import pytest

from cumulet.host.driver import DriverError
from cumulet.host.errors import HANGS
from cumulet.testing import Client, TestCloud

from .servers import create_pair, host_of
from .test_shelve import images_of

BEGUN: dict[str, dict[str, object]] = {
    "reboot": {"reboot": {"type": "SOFT"}},
    "pause": {"pause": None},
    "suspend": {"suspend": None},
    "image": {"createImage": {"name": "i"}},
    "backup": {"createBackup": {"name": "b", "backup_type": "daily", "rotation": 1}},
}
WAYS_OUT: dict[str, tuple[dict[str, object], str]] = {
    "hard reboot": ({"reboot": {"type": "HARD"}}, "ACTIVE"),
    "stop": ({"os-stop": None}, "SHUTOFF"),
    "reset": ({"os-resetState": {"state": "error"}}, "ERROR"),
}


@pytest.fixture
def server(member: Client) -> str:
    return create_pair(member)[0]


@pytest.fixture
def hung(cloud: TestCloud, admin: Client, server: str) -> Iterator[None]:
    """As with QEMU: every verb that asks the process fails, and ending it by force does not."""
    assert cloud.embedded.world is not None
    driver = cloud.embedded.world.drivers[host_of(admin, server)]

    async def hangs(*_given: object, **_named: object) -> None:
        raise DriverError(f"{HANGS}: query-status: no answer within 10 s")

    reboot = driver.reboot

    async def rebooted(server_id: str, *, hard: bool) -> None:
        await (reboot(server_id, hard=True) if hard else hangs())

    destroy, end_snapshot = driver.destroy, driver.end_snapshot
    killed: set[str] = set()

    async def destroyed(server_id: str) -> None:
        killed.add(server_id)
        await destroy(server_id)

    async def ended(server_id: str) -> None:
        await (end_snapshot(server_id) if server_id in killed else hangs())

    patches = {name: mock.AsyncMock(side_effect=hangs) for name in ("observe", "pause", "suspend", "begin_snapshot")}
    with mock.patch.multiple(driver, reboot=rebooted, destroy=destroyed, end_snapshot=ended, **patches):
        yield


@pytest.mark.usefixtures("hung")
@pytest.mark.parametrize("begun", BEGUN)
@pytest.mark.parametrize("way_out", WAYS_OUT)
def test_what_was_begun_ends_and_it_is_ended_by_force(
    cloud: TestCloud, admin: Client, member: Client, server: str, begun: str, way_out: str
) -> None:
    assert member.action(server, BEGUN[begun]).status == 202
    cloud.idle()
    shown = member.server(server)
    assert (shown["status"], shown["OS-EXT-STS:task_state"]) == ("ACTIVE", None)
    assert images_of(member, server) == []
    action, status = WAYS_OUT[way_out]
    assert admin.action(server, action).status == 202
    admin.wait_for_status(server, status)


@pytest.mark.usefixtures("hung")
@pytest.mark.parametrize("begun", BEGUN)
def test_it_is_deleted(cloud: TestCloud, member: Client, server: str, begun: str) -> None:
    assert member.action(server, BEGUN[begun]).status == 202
    assert member.compute("DELETE", f"/servers/{server}").status == 204
    cloud.idle()
    assert member.compute("GET", f"/servers/{server}").status == 404
    assert cloud.embedded.world is not None
    left = [name for name, driver in cloud.embedded.world.drivers.items() if server in driver._guests]
    assert left == []
