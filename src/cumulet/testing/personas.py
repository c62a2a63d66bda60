"""Personas: users that a test names by what they may do. How their names are read, and how they are made."""

from __future__ import annotations

import re
from urllib.parse import urlencode

from cumulet.testing.client import Client

ROLES = ("admin", "manager", "member", "norole", "reader", "service")
_NAME = re.compile(r"(?:([a-z][a-z0-9_]*)_)?([a-z]+)[0-9]*")
"""``[PROJECT_]ROLE[NUMBER]``."""


def project_and_role(name: str) -> tuple[str, str]:
    """The project and role of a persona; the project is ``own`` if the name has none. Raises ValueError."""
    _require_text("the name of a persona", name)
    found = _NAME.fullmatch(name)
    if found is None or found[2] not in ROLES:
        raise ValueError(
            f"there is no persona called {name!r}: write [PROJECT_]ROLE[NUMBER], such as member or other_reader2, "
            f"with a role of {', '.join(ROLES)}"
        )
    return found[1] or "own", found[2]


def make_user(admin: Client, name: str, password: str, *, project: str, roles: tuple[str, ...]) -> str:
    """Make a user with `roles` in `project`, which are made where they are missing. Returns the project's id.

    TypeError and ValueError say what is wrong; then there is no such user.
    """
    _require_text("name", name)
    _require_text("project", project)
    if not isinstance(roles, (tuple, list)) or not all(isinstance(role, str) for role in roles):
        raise TypeError(f"roles is a tuple of names, not {roles!r}")
    if not roles:
        raise ValueError("roles is empty, and nobody can log in to a project without a role in it")
    project_id = _found_or_made(admin, "project", name=project, domain_id="default")
    role_ids = [_found_or_made(admin, "role", name=role) for role in roles]
    answer = admin.request(
        "POST", "/identity/v3/users", {"user": {"name": name, "domain_id": "default", "password": password}}
    )
    if answer.status == 409:
        raise ValueError(f"there is a user called {name!r} already")
    if answer.status != 201:
        raise ValueError(f"no user can be called {name!r}: {answer.json['error']['message']}")
    for role_id in role_ids:
        path = f"/identity/v3/projects/{project_id}/users/{answer['user']['id']}/roles/{role_id}"
        assert admin.request("PUT", path).status == 204
    return project_id


def _found_or_made(admin: Client, kind: str, **values: str) -> str:
    """The id of the project or role with this name, which is made if it is missing."""
    found = admin.request("GET", f"/identity/v3/{kind}s?{urlencode(values)}")
    if found.status == 200 and found[f"{kind}s"]:
        return str(found[f"{kind}s"][0]["id"])
    made = admin.request("POST", f"/identity/v3/{kind}s", {kind: values})
    if made.status != 201:
        raise ValueError(f"no {kind} can be called {values['name']!r}: {made.json['error']['message']}")
    return str(made[kind]["id"])


def _require_text(what: str, value: object) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{what} is text, not {value!r}")
