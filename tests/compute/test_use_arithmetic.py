"""What projects and users have and have used, against books that the test keeps itself.

A random life of two users of a project: servers that run, are deleted, could not be placed, are resized and wait for
their user's word, came back; groups. No number is left at its neutral value.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from random import Random
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa

import cumulet.testing
from cumulet.compute.store import servers
from cumulet.testing import Client, JsonObject, TestCloud

HOUR_US = 3_600_000_000
STEPS = 14
FLAVORS = {
    "thin": {"vcpus": 1, "ram": 100, "disk": 1, "OS-FLV-EXT-DATA:ephemeral": 2, "swap": 512},
    "wide": {"vcpus": 3, "ram": 70, "disk": 2, "OS-FLV-EXT-DATA:ephemeral": 0, "swap": 0},
    "tall": {"vcpus": 2, "ram": 333, "disk": 3, "OS-FLV-EXT-DATA:ephemeral": 1, "swap": 0},
    "absurd": {"vcpus": 2, "ram": 10_000_000, "disk": 1, "OS-FLV-EXT-DATA:ephemeral": 0, "swap": 0},
}
"""The last one fits into no host, and is counted all the same."""
DISKS = ("disk", "OS-FLV-EXT-DATA:ephemeral")
"""Those that a resize makes larger, and never smaller."""
Amounts = dict[str, int]


class Owned(msgspec.Struct, kw_only=True):
    """A server in the books."""

    user: str
    flavor: str
    kept: str | None = None
    """The flavor to which it can be reverted: of both, the larger amounts count."""
    placed: bool = True

    @property
    def amounts(self) -> Amounts:
        both = [FLAVORS[name] for name in (self.flavor, self.kept) if name is not None]
        return {"instances": 1, "cores": max(f["vcpus"] for f in both), "ram": max(f["ram"] for f in both)}


class Books:
    """One project's life, and what it must have at each moment."""

    def __init__(self, cloud: TestCloud, seed: int) -> None:
        self.cloud, self.random, self.admin = cloud, Random(seed), cloud.persona("admin")
        names = (f"seed{'abcdefgh'[seed]}_member", f"seed{'abcdefgh'[seed]}_member2")
        self.users: dict[str, Client] = {name: cloud.persona(name) for name in names}
        self.project_id = next(iter(self.users.values())).project_id
        found = self.admin.compute("GET", "/flavors")["flavors"]
        self.flavors = {flavor["name"]: flavor["id"] for flavor in found if flavor["name"] in FLAVORS}
        self.image = self.admin.request("GET", "/image/v2/images?name=cumulet-tiny")["images"][0]["id"]
        self.owned: dict[str, Owned] = {}
        self.groups: list[str] = []

    def create(self) -> None:
        user, flavor = self.random.choice(list(self.users)), self.random.choice(list(FLAVORS))
        answer = self.ask_for(user, flavor)
        assert answer.status == 202, answer.text
        self.cloud.idle()
        self.owned[answer["server"]["id"]] = Owned(user=user, flavor=flavor, placed=flavor != "absurd")

    def ask_for(self, user: str, flavor: str) -> Any:
        wanted = {"name": "s", "networks": "none", "imageRef": self.image, "flavorRef": self.flavors[flavor]}
        return self.users[user].compute("POST", "/servers", {"server": wanted})

    def any(self, *, kept: bool) -> str | None:
        fit = [id for id, owned in self.owned.items() if owned.placed and (owned.kept is not None) == kept]
        return self.random.choice(fit) if fit else None

    def delete(self) -> None:
        if self.owned:
            server_id = self.random.choice(list(self.owned))
            assert self.users[self.owned[server_id].user].compute("DELETE", f"/servers/{server_id}").status == 204
            self.cloud.idle()
            del self.owned[server_id]

    def resize(self) -> None:
        server_id = self.any(kept=False)
        if server_id is None:
            return
        owned = self.owned[server_id]
        larger = {"thin": "tall", "wide": "tall", "tall": "wide"}[owned.flavor]
        self.act(server_id, {"resize": {"flavorRef": self.flavors[larger]}})
        shrinks = any(FLAVORS[larger][disk] < FLAVORS[owned.flavor][disk] for disk in DISKS)
        if not shrinks:  # Else it is refused, and all is as it was.
            owned.flavor, owned.kept = larger, owned.flavor

    def decide(self) -> None:
        server_id = self.any(kept=True)
        if server_id is None:
            return
        owned, confirms = self.owned[server_id], self.random.random() < 0.5
        self.act(server_id, {"confirmResize" if confirms else "revertResize": None})
        if not confirms:
            assert owned.kept is not None
            owned.flavor = owned.kept
        owned.kept = None

    def act(self, server_id: str, action: JsonObject) -> None:
        answer = self.users[self.owned[server_id].user].action(server_id, action)
        assert answer.status in (202, 204), answer.text
        self.cloud.idle()

    def group(self) -> None:
        user = self.random.choice(list(self.users))
        body = {"server_group": {"name": "g", "policy": "affinity"}}
        assert self.users[user].compute("POST", "/os-server-groups", body).status == 200
        self.groups.append(user)

    def wait(self) -> None:
        self.cloud.clock.advance(self.random.randrange(1, 20_000))

    def step(self) -> None:
        kinds = (self.create, self.create, self.delete, self.resize, self.resize, self.decide, self.group, self.wait)
        self.random.choice(kinds)()

    # -- what must be so

    def expected(self, user: str | None = None) -> Amounts:
        mine = [owned.amounts for owned in self.owned.values() if user in (None, owned.user)]
        used = {name: sum(each[name] for each in mine) for name in ("instances", "cores", "ram")}
        return {**used, "server_groups": sum(user in (None, maker) for maker in self.groups)}

    def check_use(self) -> None:
        absolute = next(iter(self.users.values())).compute("GET", "/limits")["limits"]["absolute"]
        told = {"instances": "totalInstancesUsed", "cores": "totalCoresUsed", "ram": "totalRAMUsed"}
        expected = self.expected()
        assert {name: absolute[field] for name, field in told.items()} == {name: expected[name] for name in told}
        assert absolute["totalServerGroupsUsed"] == expected["server_groups"]
        for user in (None, *self.users):
            narrowed = "" if user is None else f"?user_id={self.users[user].user_id}"
            found = self.admin.compute("GET", f"/os-quota-sets/{self.project_id}/detail{narrowed}")["quota_set"]
            expected = self.expected(user)
            assert {name: found[name]["in_use"] for name in expected} == expected, user

    def check_limits(self) -> None:
        """Room for just what is asked is enough, and one less of any resource is too little, whoever's limit it is.

        The project has no limits when this begins, and upstream's defaults afterwards.
        """
        user, flavor = self.random.choice(list(self.users)), self.random.choice(["thin", "wide", "tall"])
        more = Owned(user=user, flavor=flavor).amounts
        for whose in (user, None):
            used = self.expected(whose)
            for short in (*more, None):
                limits = {name: used[name] + amount - (name == short) for name, amount in more.items()}
                with self.limited(whose, limits):
                    answer = self.ask_for(user, flavor)
                if short is not None:
                    assert answer.status == 403, (whose, short, answer.text)
                    assert f"Quota exceeded for {short}" in answer.text
                else:
                    assert answer.status == 202, answer.text
                    self.cloud.idle()
                    assert self.users[user].compute("DELETE", f"/servers/{answer['server']['id']}").status == 204
                    self.cloud.idle()

    def check_limits_of_both(self) -> None:
        """A limit of a user's own never widens the project's: what the project has too little of, it does not get."""
        user, flavor = self.random.choice(list(self.users)), self.random.choice(["thin", "wide", "tall"])
        more, used = Owned(user=user, flavor=flavor).amounts, self.expected()
        for short in more:
            limits = {name: used[name] + amount - (name == short) for name, amount in more.items()}
            with self.limited(user, {name: limit + 1 for name, limit in limits.items()}), self.limited(None, limits):
                answer = self.ask_for(user, flavor)
                assert answer.status == 403, (short, answer.text)
                assert f"Quota exceeded for {short}" in answer.text

    @contextlib.contextmanager
    def limited(self, user: str | None, limits: Amounts) -> Iterator[None]:
        narrowed = "" if user is None else f"?user_id={self.users[user].user_id}"
        path = f"/os-quota-sets/{self.project_id}{narrowed}"
        body = {"quota_set": {"force": True, **limits}}
        assert self.admin.compute("PUT", path, body, version="2.35").status == 200
        yield
        assert self.admin.compute("DELETE", path).status == 202

    def check_hours(self) -> None:
        """In spans that begin and end before, between and after what there was."""
        rows = self.cloud.embedded.db.read(
            lambda tx: tx.all(sa.select(servers).where(servers.c.project_id == self.project_id))
        )
        now_us = self.cloud.clock.now_us()
        born = min((row.launched_at_us for row in rows if row.launched_at_us), default=now_us)
        for _ in range(3):
            begin, end = sorted(self.random.randrange(born - 2 * HOUR_US, now_us + 2 * HOUR_US) for _ in range(2))
            begin, end = begin // 1_000_000 * 1_000_000, end // 1_000_000 * 1_000_000 + 1_000_000
            path = f"/os-simple-tenant-usage/{self.project_id}?start={_iso(begin)}&end={_iso(end)}"
            told = self.admin.compute("GET", path)["tenant_usage"]
            least, most = (_used(rows, begin, end, now) for now in (now_us, self.cloud.clock.now_us()))
            for total in _TOTALS:
                found = told.get(total, 0.0)
                assert float(least[total]) - 1e-6 <= found <= float(most[total]) + 1e-6, (total, least, found, most)


def _used(rows: Sequence[Any], begin: int, end: int, now_us: int) -> dict[str, Fraction]:
    used: dict[str, Fraction] = dict.fromkeys(_TOTALS, Fraction(0))
    for row in rows:
        if row.launched_at_us is None:
            continue
        inside = _overlap((row.launched_at_us, row.terminated_at_us or now_us), (begin, min(end, now_us)))
        disk = row.flavor["disk_gib"] + row.flavor["ephemeral_gib"]
        for total, weight in zip(_TOTALS, (1, row.flavor["vcpus"], row.flavor["memory_mib"], disk), strict=True):
            used[total] += Fraction(inside, HOUR_US) * weight
    return used


_TOTALS = ("total_hours", "total_vcpus_usage", "total_memory_mb_usage", "total_local_gb_usage")


def _overlap(one: tuple[int, int], other: tuple[int, int]) -> int:
    """How much of two spans is in both: from the second to the third of their four ends."""
    apart = one[1] <= other[0] or other[1] <= one[0]
    ordered = sorted((*one, *other))
    return 0 if apart else ordered[2] - ordered[1]


def _iso(moment_us: int) -> str:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=moment_us)).strftime("%Y-%m-%dT%H:%M:%S")


@pytest.fixture(scope="module")
def cloud() -> Iterator[TestCloud]:
    with cumulet.testing.cloud(hosts=3, token_life_seconds=10**6) as made:
        admin = made.persona("admin")
        for name, amounts in FLAVORS.items():
            assert admin.compute("POST", "/flavors", {"flavor": {"name": name, **amounts}}).status == 200
        yield made


@pytest.mark.parametrize("seed", range(5))
def test_use_limits_and_hours_are_what_the_books_say(cloud: TestCloud, seed: int) -> None:
    books = Books(cloud, seed)
    unlimited = {"quota_set": {"instances": -1, "cores": -1, "ram": -1, "server_groups": -1}}
    path = f"/os-quota-sets/{books.project_id}"
    assert books.admin.compute("PUT", path, unlimited).status == 200
    for _ in range(STEPS):
        books.step()
        books.check_use()
    books.check_hours()
    books.check_limits()
    books.check_limits_of_both()
    books.check_use()
