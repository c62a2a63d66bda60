"""The actions of a server: who may, in which state, with which body."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tests.conformance.case import LATEST, PERSONAS, Case, Raw, case

# action: body, and the states in which it is tried.
SIMPLE: Final[dict[str, object]] = {
    "os-start": None,
    "os-stop": None,
    "pause": None,
    "unpause": None,
    "suspend": None,
    "resume": None,
    "lock": None,
    "unlock": None,
    "reboot": {"type": "SOFT"},
    "os-resetState": {"state": "active"},
    "os-getConsoleOutput": {},
}
STATES: Final = ("server", "stopped", "paused", "suspended", "error", "locked", "locked_admin")
LATER: Final[dict[str, object]] = {
    "confirmResize": None,
    "revertResize": None,
    "resize": {"flavorRef": "{flavor_specs}"},
    "rebuild": {"imageRef": "{image}"},
    "rescue": None,
    "unrescue": None,
    "shelve": None,
    "unshelve": None,
    "shelveOffload": None,
    "createImage": {"name": "conf-image"},
    "createBackup": {"name": "b", "backup_type": "daily", "rotation": 1},
    "migrate": None,
    "evacuate": {"host": "host2"},
    "forceDelete": None,
    "restore": None,
    "changePassword": {"adminPass": "x"},
    "trigger_crash_dump": None,
    "injectNetworkInfo": None,
    "resetNetwork": None,
    "addSecurityGroup": {"name": "default"},
    "addFixedIp": {"networkId": "{network}"},
    "addFloatingIp": {"address": "10.0.0.1"},
    "os-getVNCConsole": {"type": "novnc"},
    "os-getSerialConsole": {"type": "serial"},
}


def act(name: str, persona: str, version: str, kind: str, action: str, value: object, watch: bool = True) -> Case:
    path = f"/servers/{{{kind}}}/action"
    return case(f"actions/{name}", persona, version, "POST", path, {action: value}, watch=kind if watch else None)


def cases() -> Iterator[Case]:
    for action, value in SIMPLE.items():
        for state in STATES:
            yield act(f"{action} when {state}", "member", "2.1", state, action, value)
            yield act(f"{action} when {state}", "admin", "2.90", state, action, value)
        for persona in PERSONAS:
            if persona not in ("member", "admin"):
                yield act(f"{action} by", persona, "2.1", "server", action, value)
        for persona in ("none", "norole", "reader", "member", "admin", "other_member", "service"):
            yield case(
                f"actions/{action} unknown server", persona, "2.1", "POST", "/servers/{unknown}/action", {action: value}
            )
    yield from malformed()
    yield from bodies()
    yield from not_yet()


def malformed() -> Iterator[Case]:
    for kind in ("server", "unknown"):
        path = f"/servers/{{{kind}}}/action"
        for persona in ("none", "reader", "member", "other_member", "admin"):
            wholes: dict[str, object] = {
                "unknown action": {"zzz": None},
                "two actions": {"os-start": None, "os-stop": None},
                "empty": {},
                "list": [],
                "null": None,
                "text": "os-start",
                "capitals": {"OS-START": None},
                "method name": {"_start_server": None},
            }
            for name, body in wholes.items():
                yield case(f"actions/{name} on {kind}", persona, "2.1", "POST", path, body)
    yield case("actions/no body", "member", "2.1", "POST", "/servers/{server}/action")
    yield case("actions/not json", "member", "2.1", "POST", "/servers/{server}/action", Raw("{"))
    yield case(
        "actions/same action twice",
        "member",
        "2.1",
        "POST",
        "/servers/{server}/action",
        Raw('{"pause": null, "pause": null}'),
    )
    yield case("actions/not an id", "member", "2.1", "POST", "/servers/zzz/action", {"os-start": None})


def bodies() -> Iterator[Case]:
    empties = ("os-start", "os-stop", "pause", "unpause", "suspend", "resume", "unlock")
    for action in empties:
        for name, value in {
            "text": "x",
            "object": {},
            "object with a key": {"a": 1},
            "list": [],
            "number": 5,
            "false": False,
        }.items():
            yield case(
                f"actions/{action} body {name}", "member", "2.90", "POST", "/servers/{server}/action", {action: value}
            )
    for name, value in {
        "null": None,
        "empty": {},
        "lower": {"type": "soft"},
        "hard": {"type": "HARD"},
        "zzz": {"type": "zzz"},
        "number": {"type": 5},
        "extra": {"type": "SOFT", "a": 1},
        "null type": {"type": None},
    }.items():
        yield act(f"reboot body {name}", "member", "2.90", "server", "reboot", value)
    for name, value in {
        "reason": {"locked_reason": "because"},
        "null reason": {"locked_reason": None},
        "empty reason": {"locked_reason": ""},
        "long reason": {"locked_reason": "x" * 256},
        "number": {"locked_reason": 5},
        "extra": {"locked_reason": "x", "a": 1},
        "empty": {},
        "null": None,
        "text": "x",
    }.items():
        for version in ("2.1", "2.72", "2.73", LATEST):
            yield act(f"lock body {name}", "member", version, "server", "lock", value)
    for name, value in {
        "null": None,
        "error": {"state": "error"},
        "zzz": {"state": "zzz"},
        "capitals": {"state": "ACTIVE"},
        "number": {"state": 5},
        "nothing": {},
        "extra": {"state": "active", "a": 1},
    }.items():
        yield act(f"os-resetState body {name}", "admin", "2.1", "server", "os-resetState", value)
        yield act(f"os-resetState body {name}", "member", "2.1", "server", "os-resetState", value)
    for name, value in {
        "length": {"length": 5},
        "length text": {"length": "5"},
        "length zero": {"length": 0},
        "length all": {"length": -1},
        "length -2": {"length": -2},
        "length x": {"length": "x"},
        "length null": {"length": None},
        "extra": {"length": 5, "a": 1},
        "null": None,
        "text": "x",
    }.items():
        for version in ("2.1", LATEST):
            yield act(f"os-getConsoleOutput body {name}", "member", version, "server", "os-getConsoleOutput", value)


def not_yet() -> Iterator[Case]:
    """Actions beyond the first issue: who may not, and what is malformed, is the same from the start."""
    for action, value in LATER.items():
        for persona in ("none", "norole", "reader", "other_member"):
            yield case(f"later/{action}", persona, "2.90", "POST", "/servers/{server}/action", {action: value})
        yield case(f"later/{action} malformed", "admin", "2.90", "POST", "/servers/{server}/action", {action: [5]})
        yield case(
            f"later/{action} unknown server", "admin", "2.90", "POST", "/servers/{unknown}/action", {action: value}
        )
    for action in ("confirmResize", "revertResize", "unrescue", "unshelve", "restore"):
        yield case(
            f"later/{action} in the wrong state", "admin", "2.90", "POST", "/servers/{server}/action", {action: None}
        )
    for action in ("addFixedIp", "addFloatingIp", "os-getVNCConsole", "resetNetwork"):
        yield case(
            f"later/{action} by its version",
            "member",
            "2.90",
            "POST",
            "/servers/{server}/action",
            {action: LATER[action]},
        )
