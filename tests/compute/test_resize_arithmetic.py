"""Which flavors a resize may be to: limits and images, against formulas of their own, at and beside each boundary."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import cast

import pytest

from cumulet.compute import resize
from cumulet.compute.model import Flavor, Server
from cumulet.db.engine import Tx
from cumulet.errors import BadRequest, OverQuota

TX = cast("Tx", None)
"""Nothing is read: what is used and allowed is said by the test."""
OF_WHOM = ("", "user")
GIB = 2**30


def flavor(**amounts: int) -> Flavor:
    return cast("Flavor", SimpleNamespace(**amounts))


def server(has: Flavor) -> Server:
    return cast("Server", SimpleNamespace(project_id="project", user_id="user", flavor=has, image_id="image"))


@pytest.mark.parametrize("whose", OF_WHOM, ids=["the project's limit", "its user's limit"])
@pytest.mark.parametrize(("resource", "has", "used"), [("cores", 2, 5), ("ram", 100, 700)])
def test_no_limit_is_passed_and_what_becomes_less_needs_no_room(
    monkeypatch: pytest.MonkeyPatch, whose: str, resource: str, has: int, used: int
) -> None:
    """Each is limited by itself; of what the others use and may have, nothing is left at a neutral value."""
    of_others = {"cores": 3, "ram": 50}
    for more, room in itertools.product((-1, 0, 1, has), (None, -used, -1, 0, 1, has - 1, has)):
        limit = -1 if room is None else used + room
        wanted = {"cores": 2, "ram": 100} | {resource: has + more}

        def limits_of(tx: Tx, project_id: str, user_id: str = "", limit: int = limit) -> dict[str, int]:
            return {"cores": -1, "ram": -1} | ({resource: limit} if user_id == whose else {})

        def usage_of(tx: Tx, project_id: str, user_id: str | None = None) -> dict[str, int]:
            mine = (user_id or "") == whose
            return {name: used if mine and name == resource else amount for name, amount in of_others.items()}

        monkeypatch.setattr(resize, "limits_of", limits_of)
        monkeypatch.setattr(resize, "usage_of", usage_of)
        to = flavor(vcpus=wanted["cores"], memory_mib=wanted["ram"])
        refused = more > 0 and room is not None and more > room
        said = ""
        try:
            resize._require_quota(TX, server(flavor(vcpus=2, memory_mib=100)), to)
        except OverQuota as error:
            said = str(error)
        words = f"Quota exceeded for {resource}: Requested {more}, but already used {used} of {limit} {resource}"
        assert said == (words if refused else ""), (more, room)


def test_an_image_has_room_in_the_new_flavor(monkeypatch: pytest.MonkeyPatch) -> None:
    amounts = itertools.product((99, 100), (0, 1, 2), (99, 100), (0, 1, 2), (None, GIB, GIB + 1), (None, GIB, GIB + 1))
    for memory, disk, min_ram, min_disk, size, virtual_size in amounts:
        image = SimpleNamespace(min_ram=min_ram, min_disk=min_disk, size=size, virtual_size=virtual_size)
        monkeypatch.setattr("cumulet.compute.resize.image_store.find", lambda tx, image_id, image=image: image)
        fits = memory >= min_ram and (
            disk == 0 or all(disk * GIB >= least for least in (min_disk * GIB, size or 0, virtual_size or 0))
        )
        allowed = True
        try:
            resize._require_fit(TX, server(flavor()), flavor(memory_mib=memory, disk_gib=disk))
        except BadRequest:
            allowed = False
        assert allowed == fits, (memory, disk, image)


def test_an_image_that_is_gone_demands_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cumulet.compute.resize.image_store.find", lambda tx, image_id: None)
    resize._require_fit(TX, server(flavor()), flavor(memory_mib=1, disk_gib=1))
