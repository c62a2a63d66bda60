"""A marker that the caller may not see is one that does not exist: the answers are the same."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import pytest

from cumulet.testing import Client, TestCloud

from .servers import AUTO, create_pair, last_migration


def of_server(admin: Client, other: Client) -> str:
    return create_pair(other)[0]


def of_migration(admin: Client, other: Client) -> str:
    server = create_pair(other)[0]
    assert admin.action(server, {"os-migrateLive": {"host": None, **AUTO}}).status == 202
    admin.wait("the move", lambda: last_migration(admin, server)["status"] == "completed")
    return str(last_migration(admin, server)["uuid"])


def of_flavor(admin: Client, other: Client) -> str:
    flavor = {
        "name": "secret",
        "id": "gpu-secret",
        "vcpus": 1,
        "ram": 64,
        "disk": 1,
        "os-flavor-access:is_public": False,
    }
    assert admin.compute("POST", "/flavors", {"flavor": flavor}).status == 200
    return "gpu-secret"


MARKED: dict[str, tuple[str, Callable[[Client, Client], str]]] = {
    "usage": ("/os-simple-tenant-usage/{project}", of_server),
    "servers": ("/servers", of_server),
    "flavors": ("/flavors", of_flavor),
    "flavors by memory": ("/flavors?sort_key=memory_mb", of_flavor),
    "migrations": ("/os-migrations?project_id={project}", of_migration),
}


@pytest.mark.parametrize("what", MARKED)
def test_a_marker_of_another_project_is_one_that_does_not_exist(
    cloud: TestCloud, admin: Client, manager: Client, what: str
) -> None:
    path, made = MARKED[what]
    marker, unknown = made(admin, cloud.persona("other_member")), str(uuid.uuid4())
    path = path.format(project=manager.project_id) + ("&" if "?" in path else "?")
    hidden = manager.compute("GET", f"{path}marker={marker}")
    nothing = manager.compute("GET", f"{path}marker={unknown}")
    assert (hidden.status, nothing.status) == (400, 400), hidden.text
    assert hidden.text.replace(marker, unknown) == nothing.text
