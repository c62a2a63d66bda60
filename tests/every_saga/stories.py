"""A story a saga: what begins it, and where it must have ended, whichever fault it met at whichever place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from cumulet.compute.model import VmState
from cumulet.conductor.saga import nothing
from cumulet.processes.parts import SAGAS

from .faults import Case, Fault, Place, shares
from .stage import Stage


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


def booted(stage: Stage) -> str:
    return stage.create()


def judge_boot(stage: Stage, server_id: str, case: Case) -> None:
    """A host's failure sends it to another host; only when none can be picked at all is it in ERROR."""
    record = stage.record(server_id)
    nowhere = case.place.function.__name__ == "pick_host" and not case.fault.dies
    assert record.vm_state == (VmState.ERROR if nowhere else VmState.ACTIVE)
    assert (record.fault_message is not None) == nowhere
    assert len(stage.ports(server_id)) == (0 if nowhere else 1)


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
    body = {"createImage": {"name": "one"}}
    assert stage.cloud.persona("admin").action(server_id, body).status == 202
    return server_id


def judge_snapshot(stage: Stage, server_id: str, case: Case) -> None:
    """The server runs on. There is an image, whole, or there is none."""
    assert stage.record(server_id).vm_state == VmState.ACTIVE
    found = stage.images_of(server_id)
    assert found in ([], ["active"])
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
    record, mine = stage.record(server_id), stage.images_of(server_id)
    if record.vm_state == VmState.SHELVED_OFFLOADED:
        assert record.host is None
        assert mine == ["active"]
    else:
        assert record.vm_state == VmState.ACTIVE
        assert case.place.undo or not case.fault.dies
        assert mine == []
    if case.below:
        assert record.host is None


def judge_resting(stage: Stage, server_id: str, case: Case) -> None:
    """It has an image and rests on its host; or runs, and has no image."""
    record, mine = stage.record(server_id), stage.images_of(server_id)
    assert record.host is not None
    assert (record.vm_state, mine) == ((VmState.SHELVED, ["active"]) if case.done else (VmState.ACTIVE, []))


def offloaded(stage: Stage) -> str:
    server_id = shelved(stage)
    stage.settle()
    assert stage.cloud.persona("admin").action(server_id, {"shelveOffload": None}).status == 202
    return server_id


def judge_offload(stage: Stage, server_id: str, case: Case) -> None:
    """It was acknowledged, so it is done."""
    record = stage.record(server_id)
    assert (record.vm_state, record.host) == (VmState.SHELVED_OFFLOADED, None)


def unshelved(stage: Stage) -> str:
    server_id = shelved(stage)
    stage.settle()
    assert stage.cloud.persona("admin").action(server_id, {"unshelve": None}).status == 202
    return server_id


def judge_unshelve(stage: Stage, server_id: str, case: Case) -> None:
    """It runs and has no image, or is shelved as before."""
    record, mine = stage.record(server_id), stage.images_of(server_id)
    runs = record.vm_state == VmState.ACTIVE
    assert runs or (record.vm_state == VmState.SHELVED_OFFLOADED and record.host is None)
    assert len(mine) == (0 if runs else 1)
    assert runs == case.done


def judge_start(stage: Stage, server_id: str, case: Case) -> None:
    """It runs where it rested and has no image, or rests as before."""
    record, mine = stage.record(server_id), stage.images_of(server_id)
    assert record.host is not None
    assert (record.vm_state, len(mine)) == ((VmState.ACTIVE, 0) if case.done else (VmState.SHELVED, 1))


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


CONTENT = b"content" * 1000


def image_imported(stage: Stage) -> str:
    admin = stage.cloud.persona("admin")
    body = {"name": "imported", "disk_format": "raw", "container_format": "bare"}
    image_id: str = admin.request("POST", "/image/v2/images", body)["id"]
    path, data = f"/image/v2/images/{image_id}", {"Content-Type": "application/octet-stream"}
    assert admin.request("PUT", f"{path}/stage", content=CONTENT, headers=data).status == 204
    assert admin.request("POST", f"{path}/import", {"method": {"name": "glance-direct"}}).status == 202
    return image_id


def judge_import(stage: Stage, image_id: str, case: Case) -> None:
    """The image has all of its data, or it is queued and the store has nothing of it."""
    admin, path = stage.cloud.persona("admin"), f"/image/v2/images/{image_id}"
    shown, (task,) = admin.request("GET", path).json, admin.request("GET", f"{path}/tasks")["tasks"]
    store = stage.cloud.embedded.settings.state_dir / "images"
    left = sorted(str(found.relative_to(store)) for found in store.rglob("*") if found.is_file())
    if case.done:
        assert (shown["status"], shown["size"], task["status"]) == ("active", len(CONTENT), "success")
        assert (store / image_id).read_bytes() == CONTENT
        assert admin.request("DELETE", path).status == 204
        assert not [name for name in left if image_id in name and name != image_id]
    else:
        assert (shown["status"], shown["size"], task["status"]) == ("queued", None, "failure")
        assert not [name for name in left if image_id in name or name.startswith(".uploads")]
    assert "os_glance_import_task" not in shown


@dataclass(frozen=True, slots=True)
class Story:
    """How a saga is begun, and judged. `differs_from`: the position from which on it is none of the saga's others.
    `settings`: of the cloud, other than by default."""

    saga: str
    begin: Callable[[Stage], str]
    judge: Callable[[Stage, str, Case], None]
    differs_from: int = 0
    settings: dict[str, object] = field(default_factory=dict)


RESTING: dict[str, object] = {"shelved_offload_time": -1}
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
    "image-import": Story("image-import", image_imported, judge_import),
    "rebuild": Story("rebuild", rebuilt, judge_rebuild),
    "rescue": Story("rescue", rescued, judge_rescue),
    "unrescue": Story("unrescue", unrescued, judge_unrescue),
    "shelve": Story("shelve", shelved, judge_shelve),
    "unshelve": Story("unshelve", unshelved, judge_unshelve),
    "resting": Story("shelve", shelved, judge_resting, settings=RESTING),
    "offload": Story("offload", offloaded, judge_offload, settings=RESTING),
    "unshelve-in-place": Story("unshelve-in-place", unshelved, judge_start, settings=RESTING),
}
