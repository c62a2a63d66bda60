"""Every step of every saga, and every undo, fails or takes the process along: afterwards all agree, nothing is left.

The cases are made from the registry of sagas. The cloud is the whole one with simulated hosts; where the process dies,
a new one starts on the state folder that the dead one left.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

import cumulet.testing
from cumulet.compute.model import VmState
from cumulet.compute.store import migrations, servers
from cumulet.conductor.saga import is_host_step, nothing, request_force, running_operation
from cumulet.db.engine import Tx
from cumulet.processes.parts import SAGAS
from cumulet.testing import TestCloud, agreement

from .faults import Fault, Place, Script

SETTLED_SECONDS = 30.0
POLL_SECONDS = 0.005


class Stage:
    """A cloud that is killed and started again on the same folder, as often as it takes."""

    def __init__(self, state: Path, **settings: Any) -> None:
        self._state = state
        self._settings = settings
        self._stack = ExitStack()
        self.left_well = True
        self.cloud: TestCloud
        self.start()

    def start(self) -> None:
        self.cloud = self._stack.enter_context(cumulet.testing.cloud(state=self._state, **self._settings))

    def stop(self) -> None:
        self._stack.close()

    def plan(self, faults: dict[Place, Fault]) -> Script:
        """From now on operations meet these faults."""
        script = Script(kill=self.cloud.kill_conductor, planned=dict(faults))
        self.cloud.embedded.runner.sagas = script.sagas()
        return script

    def read(self, fn: Callable[[Tx], Any]) -> Any:
        return self.cloud.embedded.db.read(fn)

    def ports(self, server_id: str) -> list[dict[str, Any]]:
        answer = self.cloud.persona("admin").compute("GET", f"/servers/{server_id}/os-interface")
        found: list[dict[str, Any]] = answer["interfaceAttachments"]
        return found

    def problems(self) -> list[str]:
        guests = {host: self.cloud.guests(host) for host in self.cloud.hosts}
        return list(self.read(lambda tx: list(agreement.disagreements(tx, guests))))

    def unfinished(self) -> list[str]:
        return list(self.read(lambda tx: list(agreement.unfinished(tx))))

    def record(self, server_id: str) -> Any:
        return self.read(lambda tx: tx.first(sa.select(servers).where(servers.c.id == server_id)))

    def move(self, server_id: str) -> Any:
        return self.read(lambda tx: tx.first(sa.select(migrations).where(migrations.c.server_id == server_id)))

    def is_rescued(self, record: Any) -> bool:
        """Whether its host says so."""
        world = self.cloud.embedded.world
        assert world is not None
        return world.drivers[record.host]._guests[record.id].rescue_image is not None

    def create(self, *, dirty_rate_mib_s: int | None = None) -> str:
        """Ask for a server with a port; its id."""
        client = self.cloud.persona("admin")
        image = client.request("GET", "/image/v2/images?name=cumulet-tiny")["images"][0]["id"]
        flavor = next(f["id"] for f in client.compute("GET", "/flavors")["flavors"] if f["name"] == "m1.nano")
        if dirty_rate_mib_s is not None:
            flavor = self.busy_flavor(dirty_rate_mib_s)
        body = {"server": {"name": "one", "imageRef": image, "flavorRef": flavor, "networks": "auto"}}
        answer = client.compute("POST", "/servers", body)
        assert answer.status == 202, answer.text
        server_id: str = answer["server"]["id"]
        return server_id

    def busy_flavor(self, rate_mib_s: int) -> str:
        """A flavor whose guests dirty so much memory."""
        client = self.cloud.persona("admin")
        wanted = {"name": f"busy-{uuid.uuid4()}", "vcpus": 1, "ram": 1024, "disk": 1}
        flavor_id: str = client.compute("POST", "/flavors", {"flavor": wanted})["flavor"]["id"]
        specs = {"extra_specs": {"cumulet:dirty_rate_mib_s": str(rate_mib_s)}}
        assert client.compute("POST", f"/flavors/{flavor_id}/os-extra_specs", specs).status == 200
        return flavor_id

    def force_complete(self, server_id: str) -> None:
        """Wish it on the running operation, whatever step it is at: the API would have us wait for the copy."""
        database, wake = self.cloud.embedded.db, self.cloud.embedded.runner

        def wish(tx: Tx) -> None:
            operation = running_operation(tx, server_id)
            if operation is not None:
                request_force(tx, wake, operation.id)

        database.write(wish)

    def created(self, *, dirty_rate_mib_s: int | None = None) -> str:
        """A server that runs."""
        server_id = self.create(dirty_rate_mib_s=dirty_rate_mib_s)
        self.settle()
        assert self.record(server_id).vm_state == VmState.ACTIVE
        return server_id

    def force_down(self, host: str, down: bool) -> None:
        admin = self.cloud.persona("admin")
        services = admin.compute("GET", "/os-services?binary=nova-compute")["services"]
        service_id = next(service["id"] for service in services if service["host"] == host)
        assert admin.compute("PUT", f"/os-services/{service_id}", {"forced_down": down}).status == 200

    def all_back(self) -> None:
        """No host is away any more, and each has been looked at since."""
        for host in self.cloud.hosts:
            self.force_down(host, False)
        self.cloud.reconcile()

    def settle(self) -> None:
        """Wait until nobody is at work any more."""
        until = time.monotonic() + SETTLED_SECONDS
        while left := self.unfinished():
            assert time.monotonic() < until, left
            time.sleep(POLL_SECONDS)


@dataclass(frozen=True, slots=True)
class Case:
    """A fault at a place. Undos are reached by a failure of the last step above the line, when it has done its work."""

    story: str
    place: Place
    fault: Fault

    @property
    def faults(self) -> dict[Place, Fault]:
        if not self.place.undo:
            return {self.place: self.fault}
        last = Place(self.place.saga, len(SAGAS[self.place.saga].steps) - 1)
        return {last: Fault.FAILS_AFTER, self.place: self.fault}

    @property
    def below(self) -> bool:
        """Struck when the decision to go on had been committed before."""
        return self.place.position > len(SAGAS[self.place.saga].steps)

    @property
    def done(self) -> bool:
        """What was asked for must be done: there was no failure, or the decision to go on had been committed."""
        return self.below or (self.fault.dies and not self.place.undo)

    def __str__(self) -> str:
        variant = "" if self.story == self.place.saga else f" ({self.story})"
        return f"{self.place}{variant}: {self.fault}"


def cases() -> Iterator[Case]:
    for name, story in STORIES.items():
        saga = SAGAS[story.saga]
        places = [Place(saga.name, position) for position in range(len(saga.plan))]
        undos = [Place(saga.name, position, undo=True) for position in reversed(range(len(saga.steps)))]
        for run in (places, undos):
            for place, following in zip(run, [*run[1:], None], strict=False):
                if place.function is nothing or place.position < story.differs_from:
                    continue
                yield from (
                    Case(name, place, fault) for fault in Fault if not (fault.dies and shares(place, following))
                )


def shares(place: Place, following: Place | None) -> bool:
    """Database steps in a row are one transaction: dying in it is one case, told of its last step."""
    return following is not None and not is_host_step(place.function) and not is_host_step(following.function)


# -- a story a saga: what begins it, and where it must have ended


def booted(stage: Stage) -> str:
    return stage.create()


def judge_boot(stage: Stage, server_id: str, case: Case) -> None:
    """A host's failure sends it to another host; only when none can be picked at all is it in ERROR."""
    record = stage.record(server_id)
    nowhere = case.place.function.__name__ == "pick_host" and not case.fault.dies
    assert record.vm_state == (VmState.ERROR if nowhere else VmState.ACTIVE)
    assert (record.fault_message is not None) == nowhere


def deleted(stage: Stage) -> str:
    server_id = stage.created()
    assert stage.cloud.persona("admin").compute("DELETE", f"/servers/{server_id}").status == 204
    return server_id


def judge_deletion(stage: Stage, server_id: str, case: Case) -> None:
    assert stage.record(server_id).deleted_at_us is not None, "an acknowledged delete is done"


def moved(stage: Stage) -> str:
    server_id = stage.created()
    body = {"os-migrateLive": {"host": None, "block_migration": "auto"}}
    assert stage.cloud.persona("admin").action(server_id, body).status == 202
    return server_id


def moved_in_post_copy(stage: Stage) -> str:
    """It is forced to complete, so that it is ours before all of its memory has come."""
    server_id = stage.created(dirty_rate_mib_s=100_000)
    body = {"os-migrateLive": {"host": None, "block_migration": "auto"}}
    assert stage.cloud.persona("admin").action(server_id, body).status == 202
    stage.force_complete(server_id)
    return server_id


def judge_move(stage: Stage, server_id: str, case: Case) -> None:
    """Above the line a failure leaves it at the source; below, and whoever dies, it arrives."""
    record, move = stage.record(server_id), stage.move(server_id)
    assert record.vm_state == VmState.ACTIVE
    arrived = record.host == move.destination_host
    assert arrived != (record.host == move.source_host)
    assert move.status == ("completed" if arrived else "error")
    if case.below:
        assert arrived
    elif case.place.undo or not case.fault.dies:
        assert not arrived


def evacuated(stage: Stage) -> str:
    """Its host is said to be fenced, which it is not: the worst case."""
    server_id = stage.created()
    stage.force_down(stage.record(server_id).host, True)
    admin = stage.cloud.persona("admin")
    assert admin.action(server_id, {"evacuate": {}}, version="2.94").status == 200
    return server_id


def judge_evacuation(stage: Stage, server_id: str, case: Case) -> None:
    """As for a move; when its host is back, it says what is left of the server there, and removes what it lost."""
    record, move = stage.record(server_id), stage.move(server_id)
    arrived = record.host == move.destination_host
    assert move.status == ("done" if arrived else "error")
    assert arrived == case.done
    assert record.vm_state in ((VmState.ACTIVE,) if arrived else (VmState.ACTIVE, VmState.STOPPED))


def resized(stage: Stage) -> str:
    """A cold migration: a resize to the size it has."""
    server_id = stage.created()
    assert stage.cloud.persona("admin").action(server_id, {"migrate": None}, version="2.55").status == 202
    return server_id


def judge_resize(stage: Stage, server_id: str, case: Case) -> None:
    """Above the line a failure leaves it running where it was; else it is moved, and keeps what it came from."""
    record, move = stage.record(server_id), stage.move(server_id)
    arrived = record.host == move.destination_host
    assert move.status == ("finished" if arrived else "error")
    assert record.vm_state == (VmState.RESIZED if arrived else VmState.ACTIVE)
    if case.below:
        assert arrived
    elif case.place.undo or not case.fault.dies:
        assert not arrived


def confirmed(stage: Stage) -> str:
    server_id = resized(stage)
    stage.settle()
    assert stage.cloud.persona("admin").action(server_id, {"confirmResize": None}).status == 204
    return server_id


def judge_confirmation(stage: Stage, server_id: str, case: Case) -> None:
    record, move = stage.record(server_id), stage.move(server_id)
    assert (record.host, record.vm_state) == (move.destination_host, VmState.ACTIVE)
    assert move.status == "confirmed"


def reverted(stage: Stage) -> str:
    server_id = resized(stage)
    stage.settle()
    assert stage.cloud.persona("admin").action(server_id, {"revertResize": None}).status == 202
    return server_id


def judge_reversion(stage: Stage, server_id: str, case: Case) -> None:
    """It is back, or it waits as before for its user's word."""
    record, move = stage.record(server_id), stage.move(server_id)
    back = record.host == move.source_host
    assert move.status == ("reverted" if back else "finished")
    assert record.vm_state == (VmState.ACTIVE if back else VmState.RESIZED)
    if case.below:
        assert back
    elif case.place.undo or not case.fault.dies:
        assert not back


def stopped(stage: Stage) -> str:
    server_id = stage.created()
    assert stage.cloud.persona("admin").action(server_id, {"os-stop": None}).status == 202
    return server_id


def judge_power(stage: Stage, server_id: str, case: Case) -> None:
    """The record says what is; a stop that was not even tried has left it running."""
    untouched = (case.place, case.fault) == (Place("power", 0), Fault.FAILS_BEFORE)
    assert stage.record(server_id).vm_state == (VmState.ACTIVE if untouched else VmState.STOPPED)


def image_made(stage: Stage) -> str:
    server_id = stage.created()
    body = {"createImage": {"name": server_id}}
    assert stage.cloud.persona("admin").action(server_id, body).status == 202
    return server_id


def judge_snapshot(stage: Stage, server_id: str, case: Case) -> None:
    """The server runs on. There is an image, whole, or there is none."""
    assert stage.record(server_id).vm_state == VmState.ACTIVE
    found = stage.cloud.persona("admin").request("GET", f"/image/v2/images?name={server_id}")["images"]
    assert [image["status"] for image in found] in ([], ["active"])
    if case.done:
        assert found
    elif case.fault is Fault.FAILS_BEFORE and not case.place.undo and case.place.position == 0:
        assert not found


def attached(stage: Stage) -> str:
    server_id = stage.created()
    answer = stage.cloud.persona("admin").compute("POST", f"/servers/{server_id}/os-interface", {})
    assert answer.status == 200, answer.text
    return server_id


def judge_attachment(stage: Stage, server_id: str, case: Case) -> None:
    """It has both ports, or the new one is gone; `agreement` says that its guest has the same."""
    ports = stage.ports(server_id)
    assert [port["port_state"] for port in ports] == ["ACTIVE"] * len(ports)
    assert len(ports) == (2 if case.done else 1)


def detached(stage: Stage) -> str:
    server_id = stage.created()
    (port,) = stage.ports(server_id)
    path = f"/servers/{server_id}/os-interface/{port['port_id']}"
    assert stage.cloud.persona("admin").compute("DELETE", path).status == 202
    return server_id


def judge_detachment(stage: Stage, server_id: str, case: Case) -> None:
    ports = stage.ports(server_id)
    assert len(ports) == (0 if case.done else 1)


def rebuilt(stage: Stage) -> str:
    server_id = stage.created()
    admin = stage.cloud.persona("admin")
    image = admin.server(server_id)["image"]["id"]
    assert admin.action(server_id, {"rebuild": {"imageRef": image}}).status == 202
    return server_id


def judge_rebuild(stage: Stage, server_id: str, case: Case) -> None:
    """It runs with a new disk, or with its old one, or has none and is in ERROR, from which it can be rebuilt."""
    record = stage.record(server_id)
    untouched = (case.place, case.fault) == (Place("rebuild", 0), Fault.FAILS_BEFORE)
    assert record.vm_state == (VmState.ACTIVE if untouched or case.done else VmState.ERROR)
    if record.vm_state == VmState.ERROR:
        stage.plan({})
        admin = stage.cloud.persona("admin")
        assert admin.action(server_id, {"rebuild": {"imageRef": record.image_id}}).status == 202
        stage.settle()
        assert stage.record(server_id).vm_state == VmState.ACTIVE


def shelved(stage: Stage) -> str:
    server_id = stage.created()
    assert stage.cloud.persona("admin").action(server_id, {"shelve": None}).status == 202
    return server_id


def judge_shelve(stage: Stage, server_id: str, case: Case) -> None:
    """It has an image and no host, or a host, runs, and has no image."""
    record = stage.record(server_id)
    found = stage.cloud.persona("admin").request("GET", "/image/v2/images")["images"]
    mine = [image for image in found if image.get("instance_uuid") == server_id]
    if record.vm_state == VmState.SHELVED_OFFLOADED:
        assert record.host is None
        assert [image["status"] for image in mine] == ["active"]
    else:
        assert record.vm_state == VmState.ACTIVE
        assert case.place.undo or not case.fault.dies
        assert mine == [] or case.fault is Fault.FAILS_AFTER or case.place.undo
    if case.below:
        assert record.host is None


def unshelved(stage: Stage) -> str:
    server_id = shelved(stage)
    stage.settle()
    assert stage.cloud.persona("admin").action(server_id, {"unshelve": None}).status == 202
    return server_id


def judge_unshelve(stage: Stage, server_id: str, case: Case) -> None:
    """It runs and has no image, or is shelved as before."""
    record = stage.record(server_id)
    found = stage.cloud.persona("admin").request("GET", "/image/v2/images")["images"]
    mine = [image for image in found if image.get("instance_uuid") == server_id]
    runs = record.vm_state == VmState.ACTIVE
    assert runs or (record.vm_state == VmState.SHELVED_OFFLOADED and record.host is None)
    assert len(mine) == (0 if runs else 1)
    assert runs == case.done


def rescued(stage: Stage) -> str:
    server_id = stage.created()
    assert stage.cloud.persona("admin").action(server_id, {"rescue": None}).status == 200
    return server_id


def judge_rescue(stage: Stage, server_id: str, case: Case) -> None:
    """It runs from the rescue image, or from its own disk as before."""
    record = stage.record(server_id)
    assert record.vm_state == (VmState.RESCUED if case.done else VmState.ACTIVE)
    assert stage.is_rescued(record) == case.done


def unrescued(stage: Stage) -> str:
    server_id = rescued(stage)
    stage.settle()
    assert stage.cloud.persona("admin").action(server_id, {"unrescue": None}).status == 202
    return server_id


def judge_unrescue(stage: Stage, server_id: str, case: Case) -> None:
    """The record says what is."""
    record = stage.record(server_id)
    untouched = (case.place, case.fault) == (Place("unrescue", 0), Fault.FAILS_BEFORE)
    assert record.vm_state == (VmState.RESCUED if untouched else VmState.ACTIVE)
    assert stage.is_rescued(record) == untouched


def dumped(stage: Stage) -> str:
    server_id = stage.created()
    assert stage.cloud.persona("admin").action(server_id, {"trigger_crash_dump": None}).status == 202
    return server_id


def judge_crash_dump(stage: Stage, server_id: str, case: Case) -> None:
    """Whatever its guest was told, the record says what it is."""
    assert stage.record(server_id).vm_state == VmState.ACTIVE


@dataclass(frozen=True, slots=True)
class Story:
    """How a saga is begun, and judged. `differs_from`: the position from which on it is none of the saga's others."""

    saga: str
    begin: Callable[[Stage], str]
    judge: Callable[[Stage, str, Case], None]
    differs_from: int = 0


COPY_MEMORY = [step.name for step in SAGAS["live-migration"].plan].index("copy_memory")
STORIES: dict[str, Story] = {
    "boot": Story("boot", booted, judge_boot),
    "deletion": Story("deletion", deleted, judge_deletion),
    "evacuation": Story("evacuation", evacuated, judge_evacuation),
    "live-migration": Story("live-migration", moved, judge_move),
    "post-copy": Story("live-migration", moved_in_post_copy, judge_move, differs_from=COPY_MEMORY),
    "resize": Story("resize", resized, judge_resize),
    "resize-confirmation": Story("resize-confirmation", confirmed, judge_confirmation),
    "resize-reversion": Story("resize-reversion", reverted, judge_reversion),
    "power": Story("power", stopped, judge_power),
    "snapshot": Story("snapshot", image_made, judge_snapshot),
    "interface-attachment": Story("interface-attachment", attached, judge_attachment),
    "interface-detachment": Story("interface-detachment", detached, judge_detachment),
    "crash-dump": Story("crash-dump", dumped, judge_crash_dump),
    "rebuild": Story("rebuild", rebuilt, judge_rebuild),
    "rescue": Story("rescue", rescued, judge_rescue),
    "unrescue": Story("unrescue", unrescued, judge_unrescue),
    "shelve": Story("shelve", shelved, judge_shelve),
    "unshelve": Story("unshelve", unshelved, judge_unshelve),
}


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Stage]]:
    made: list[Stage] = []
    yield made
    for stage in made:
        stage.stop()


@pytest.fixture
def stage(stages: list[Stage], tmp_path: Path) -> Stage:
    """The cloud that the case before has left, if it left it well."""
    if not stages or not stages[-1].left_well:
        stages.append(Stage(tmp_path / "state"))
    stages[-1].left_well = False
    return stages[-1]


@pytest.mark.parametrize("saga", SAGAS)
def test_there_is_a_story_for_every_saga(saga: str) -> None:
    assert saga in {story.saga for story in STORIES.values()}


@pytest.mark.parametrize("case", list(cases()), ids=str)
def test_afterwards_all_agree_and_nothing_is_left(stage: Stage, case: Case) -> None:
    story = STORIES[case.story]
    script = stage.plan(case.faults)
    server_id = story.begin(stage)
    if case.fault.dies:
        assert script.died.wait(SETTLED_SECONDS), "the step was reached"
        stage.stop()
        stage.start()
    stage.settle()
    assert not script.planned, "every fault has struck"
    if case.place.saga == "evacuation":
        stage.all_back()
    assert stage.problems() == []
    story.judge(stage, server_id, case)
    stage.plan({})
    if stage.record(server_id).deleted_at_us is None:
        assert stage.cloud.persona("admin").compute("DELETE", f"/servers/{server_id}").status == 204
        stage.settle()
    assert stage.problems() == []
    stage.left_well = True
