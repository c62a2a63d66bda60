"""What a guest was made with goes along with it: each move asks its destination for that, or says what lacks."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import msgspec
import pytest

from cumulet.drivers.simulated.guest import FEATURES
from cumulet.host import messages as m
from cumulet.host import uneven_memory
from cumulet.host.link import Link
from cumulet.testing import Client, TestCloud
from tests.links import Way, instead

from .servers import AUTO, create_pair, event_details, host_of, last_migration, other
from .test_evacuation import force_down
from .test_preconditions import disable
from .test_resize import larger

__all__ = ["larger"]

BEFORE_2_34 = "2.33"


def of_another_kind(**facts: object) -> Callable[[Link], Way]:
    """The way to a host that says this of itself."""

    class Other(Way):
        async def send(self, message: m.Message[object]) -> object:
            answer = await super().send(message)
            return msgspec.structs.replace(answer, **facts) if isinstance(message, m.AskFacts) else answer

    return Other


LACKS: dict[str, dict[str, object]] = {
    "CPU_INCOMPATIBLE": {"cpu_models": ("another",)},
    "MACHINE_TYPE_MISSING": {"machine_types": ("another-1.0",)},
    "HOSTS_APART": {"address": "198.18.0.1"},
}
MOVES: dict[str, tuple[str, dict[str, object]]] = {
    "live": ("live-migration", {"os-migrateLive": {"host": None, **AUTO}}),
    "cold": ("migrate", {"migrate": None}),
    "resize": ("resize", {"resize": {"flavorRef": "larger"}}),
}


@pytest.fixture
def server(member: Client) -> str:
    return create_pair(member)[0]


@pytest.mark.parametrize("move", MOVES)
@pytest.mark.parametrize("lacks", LACKS)
def test_no_guest_moves_to_where_it_could_not_run(
    cloud: TestCloud, admin: Client, server: str, larger: str, lacks: str, move: str
) -> None:
    source = host_of(admin, server)
    action, body = MOVES[move]
    with instead(cloud, other(source), of_another_kind(**LACKS[lacks])):
        cloud.reconcile()
        assert admin.action(server, body).status == 202
        admin.wait("its end", lambda: last_migration(admin, server)["status"] == "error")
        assert f"{other(source)}: {lacks}" in event_details(admin, server, action)
    assert host_of(admin, server) == source


class MadeUneven(Way):
    """Its host makes guests with uneven memory, as hosts do whose emulator needs that."""

    async def send(self, message: m.Message[object]) -> object:
        if isinstance(message, m.Create) and not message.guest.machine_type:
            guest = msgspec.structs.replace(message.guest, uneven_memory=True)
            message = msgspec.structs.replace(message, guest=guest)
        return await super().send(message)


@pytest.mark.parametrize("move", MOVES)
def test_a_guest_with_uneven_memory_moves_only_to_where_that_is_known(
    cloud: TestCloud, admin: Client, member: Client, larger: str, move: str
) -> None:
    with contextlib.ExitStack() as stack:
        for name in cloud.hosts:
            stack.enter_context(instead(cloud, name, MadeUneven))
        server = create_pair(member)[0]
    source, (action, body) = host_of(admin, server), MOVES[move]
    known = tuple(feature for feature in FEATURES if feature != uneven_memory.FEATURE)
    with instead(cloud, other(source), of_another_kind(features=known)):
        cloud.reconcile()
        assert admin.action(server, body).status == 202
        admin.wait("its end", lambda: last_migration(admin, server)["status"] == "error")
        assert f"{other(source)}: UNEVEN_MEMORY_NOT_OFFERED" in event_details(admin, server, action)
    cloud.reconcile()
    assert admin.action(server, body).status == 202
    admin.wait("the move", lambda: last_migration(admin, server)["status"] in ("completed", "finished"))
    assert host_of(admin, server) == other(source)


NAMED: dict[str, Callable[[str], dict[str, object]]] = {
    "live": lambda host: {"os-migrateLive": {"host": host, **AUTO}},
    "cold": lambda host: {"migrate": {"host": host}},
    "evacuation": lambda host: {"evacuate": {"host": host}},
}


@pytest.mark.parametrize("move", NAMED)
def test_the_record_has_the_reason_against_the_host_that_was_asked_for(admin: Client, server: str, move: str) -> None:
    source = host_of(admin, server)
    disable(admin, other(source))
    if move == "evacuation":
        force_down(admin, source)
    assert admin.action(server, NAMED[move](other(source))).status in (200, 202)
    admin.wait("its end", lambda: last_migration(admin, server)["status"] == "error")
    record = admin.compute("GET", f"/cumulet/migrations/{last_migration(admin, server)['uuid']}")["migration"]
    assert record["reason"] == "HOST_DISABLED"


WORDS = {
    "SAME_HOST": "Unable to migrate instance ({server}) to current host ({host}).",
    "HOST_DOWN": "Compute service of {host} is unavailable at this time.",
    "HOST_DISABLED": "No valid host was found. There are not enough hosts available.",
}


@pytest.mark.parametrize("reason", WORDS)
def test_until_2_33_the_answer_says_what_is_wrong_with_the_host_asked_for(
    admin: Client, server: str, reason: str
) -> None:
    host = host_of(admin, server)
    if reason != "SAME_HOST":
        host = other(host)
        (force_down if reason == "HOST_DOWN" else disable)(admin, host)
    answer = admin.action(server, {"os-migrateLive": {"host": host, **AUTO}}, version=BEFORE_2_34)
    assert answer.status == 400
    assert answer["badRequest"]["message"] == WORDS[reason].format(server=server, host=host)
    assert answer.headers["x-cumulet-reason"] == reason


class Noting(Way):
    """Keeps with which parameters a copy is prepared and begun. `without`: what this host does not offer."""

    def __init__(self, link: Link, told: list[tuple[str, bool]], without: str) -> None:
        super().__init__(link)
        self._told = told
        self._without = without

    async def send(self, message: m.Message[object]) -> object:
        if isinstance(message, m.PrepareIncoming | m.StartCopy):
            self._told.append((type(message).__name__, message.parameters.post_copy))
        answer = await super().send(message)
        if isinstance(message, m.AskFacts):
            features = tuple(one for one in answer.features if one != self._without)
            return msgspec.structs.replace(answer, features=features)
        return answer


@pytest.mark.parametrize("source_can", [True, False], ids=["source can", "source cannot"])
@pytest.mark.parametrize("destination_can", [True, False], ids=["destination can", "destination cannot"])
def test_post_copy_is_offered_to_both_ends_if_both_can(
    cloud: TestCloud, admin: Client, server: str, source_can: bool, destination_can: bool
) -> None:
    source, told = host_of(admin, server), list[tuple[str, bool]]()
    with contextlib.ExitStack() as ways:
        for host, can in ((source, source_can), (other(source), destination_can)):
            without = "" if can else "post-copy"
            ways.enter_context(instead(cloud, host, lambda link, without=without: Noting(link, told, without)))  # type: ignore[misc]
        cloud.reconcile()
        assert admin.action(server, {"os-migrateLive": {"host": None, **AUTO}}).status == 202
        admin.wait("its end", lambda: last_migration(admin, server)["status"] == "completed")
    both = source_can and destination_can
    assert told == [("PrepareIncoming", both), ("StartCopy", both)]
