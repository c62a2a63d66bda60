"""What the control plane tells hosts, for every state a server can be in and every verb that moves it or ends it.

The table is `tests/golden/moves.json`: state -> verb -> what is said, to whom, with which parameters. Every setting has
another value than its default, so that the table shows whether it is passed on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from cumulet.host import messages as m
from cumulet.host.driver import Guest, MigrationParameters
from cumulet.host.endpoint import Endpoint, Peer
from cumulet.testing import Client, JsonObject
from tests.every_saga.late import Told, look_into
from tests.every_saga.stage import Stage

Table = dict[str, dict[str, list[str]]]
GOLDEN = Path(__file__).parents[1] / "golden" / "moves.json"
TABLE: Table = msgspec.json.decode(GOLDEN.read_bytes(), type=Table)
SETTINGS: dict[str, object] = {"migration_bandwidth_mib_s": 7_000, "migration_downtime_limit_ms": 123}
ORDINARY = {"operation_id", "generation", "server_id", "step", "move"}
FORCED = "busy, and forced to complete"
LIVE = {"host": None, "block_migration": "auto"}

Make = Callable[[Stage], str]


def acted(*actions: JsonObject) -> Make:
    def make(stage: Stage) -> str:
        server_id = stage.created()
        for action in actions:
            answer = stage.cloud.persona("admin").action(server_id, action, version="2.55")
            assert answer.status in (200, 202, 204), answer.text
            stage.settle()
        return server_id

    return make


def moving(stage: Stage) -> str:
    """A copy is under way that does not end by itself."""
    server_id = stage.created(dirty_rate_mib_s=100_000)
    client = stage.cloud.persona("admin")
    assert client.action(server_id, {"os-migrateLive": LIVE}, version="2.55").status == 202
    client.wait("the copy", lambda: stage.move(server_id).phase == "active")
    return server_id


def host_down(stage: Stage) -> str:
    """An administrator has said that the host where it runs is down."""
    server_id = stage.created()
    stage.force_down(stage.record(server_id).host, True)
    return server_id


STATES: dict[str, Make] = {
    "active": acted(),
    "paused": acted({"pause": None}),
    "suspended": acted({"suspend": None}),
    "stopped": acted({"os-stop": None}),
    "locked": acted({"lock": None}),
    "error": acted({"os-resetState": {"state": "error"}}),
    "rescued": acted({"rescue": {}}),
    "resized": acted({"migrate": None}),
    "resized when stopped": acted({"os-stop": None}, {"migrate": None}),
    "moving": moving,
    "host down": host_down,
    FORCED: lambda stage: stage.created(dirty_rate_mib_s=100_000),
}
VERBS: dict[str, object] = {
    "os-migrateLive": LIVE,
    "migrate": None,
    "resize": {"flavorRef": None},
    "confirmResize": None,
    "revertResize": None,
    "evacuate": {},
    "delete": None,
}
CASES = [(state, verb) for state in STATES for verb in VERBS if state != FORCED or verb == "os-migrateLive"]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    made = Stage(tmp_path_factory.mktemp("told") / "state", **SETTINGS)
    yield made
    made.stop()


def test_every_state_and_every_verb_is_in_the_table() -> None:
    assert [(state, verb) for state, verbs in TABLE.items() for verb in verbs] == CASES


@pytest.mark.parametrize(("state", "verb"), CASES)
def test_a_verb_tells_hosts_what_the_table_says(stage: Stage, state: str, verb: str) -> None:
    said = what_is_said(stage, state, verb)
    assert said == TABLE[state][verb]


def what_is_said(stage: Stage, state: str, verb: str) -> list[str]:
    """What a verb makes the control plane say, in a cloud that is empty before and after."""
    world = stage.cloud.embedded.world
    assert world is not None
    server_id = STATES[state](stage)
    here, told = stage.record(server_id).host, Told(look_into(world))
    caller = stage.cloud.persona("admin_manager" if state == "locked" else "admin")
    with told.listening(stage.cloud.embedded.hosts):
        status = ask(stage, caller, server_id, verb)
        if status < 300:
            if state == FORCED:
                stage.force_complete(server_id)
            stage.settle()
    said = [
        in_words("here" if host == here else "there", command)
        for host, command in told.commands
        if not isinstance(command, m.CopyProgress)  # How often it is asked differs with the machine's load.
    ]
    if stage.record(server_id).deleted_at_us is None:
        assert stage.cloud.persona("admin").compute("DELETE", f"/servers/{server_id}").status == 204
        stage.settle()
    stage.all_back()
    assert stage.problems() == []
    return [str(status), *said]


def ask(stage: Stage, caller: Client, server_id: str, verb: str) -> int:
    if verb == "delete":
        return caller.compute("DELETE", f"/servers/{server_id}").status
    body = VERBS[verb]
    if verb == "resize":
        flavors = caller.compute("GET", "/flavors")["flavors"]
        body = {"flavorRef": next(flavor["id"] for flavor in flavors if flavor["name"] == "m1.small")}
    return caller.action(server_id, {verb: body}, version="2.55").status


def in_words(where: str, command: m.Command[object]) -> str:
    """What is sent: a field that has its default is not (`host.record`)."""
    fields = ((field, getattr(command, field.name)) for field in msgspec.structs.fields(command))
    sent = {field.name: value for field, value in fields if value != field.default and field.name not in ORDINARY}
    words = [f"{name}={_short(value)}" for name, value in sent.items()]
    return " ".join([f"{where}:", m.name_of(type(command)), *words])


def _short(value: object) -> str:
    if isinstance(value, Guest):
        return f"{value.vcpus}/{value.memory_mib}/{value.disk_gib},{value.machine_type or 'not frozen'}"
    if isinstance(value, MigrationParameters):
        return ",".join(f"{name}:{setting}" for name, setting in msgspec.structs.asdict(value).items())
    if isinstance(value, Endpoint):
        return "its"
    if isinstance(value, Peer):
        return f"of {value.host}"
    return str(value)
