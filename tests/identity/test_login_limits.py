"""Logins are bounded and fair: what counts as a failure, for whom, and who waits for whom."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from concurrent.futures import Future

import pytest

from cumulet.db.fair_queue import LOWEST_PRIORITY, NICE, served
from cumulet.errors import TooManyRequests
from cumulet.identity import passwords as passwords_module
from cumulet.identity.login_limiter import LoginLimiter
from cumulet.identity.passwords import Passwords
from cumulet.web.peer import peer_of
from tests.api.identity.place import HandClock


def limiter(*, one: int = 3, everywhere: int = 10) -> LoginLimiter:
    return LoginLimiter(HandClock(), failures_per_minute=one, failures_per_minute_everywhere=everywhere)


async def tried(logins: LoginLimiter, address: str, *, right: bool | None = False, user: str = "u") -> bool:
    """Whether the attempt was let in; `right` None: it came to no comparison."""
    try:
        async with logins.attempt(user, address) as attempt:
            attempt.right = right
    except TooManyRequests:
        return False
    return True


@pytest.mark.parametrize(
    ("address", "peer"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2::5", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff:ffff:ffff:ffff", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::5", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
    ],
)
def test_a_peer_is_one_ipv4_address_or_one_ipv6_64(address: str, peer: str) -> None:
    assert peer_of(address) == peer


def test_the_addresses_of_one_64_share_a_limit() -> None:
    async def run() -> None:
        logins = limiter()
        assert [await tried(logins, f"2001:db8::{n}") for n in range(4)] == [True, True, True, False]
        assert await tried(logins, "2001:db8:0:1::1")

    asyncio.run(run())


def test_an_attempt_without_a_comparison_is_no_failure() -> None:
    async def run() -> None:
        logins = limiter()
        assert all([await tried(logins, "192.0.2.1", right=None) for _ in range(20)])
        assert await tried(logins, "192.0.2.1", right=True)

    asyncio.run(run())


def test_guessing_from_many_addresses_ends_at_the_limit_of_the_user_but_not_where_it_is_at_home() -> None:
    async def run() -> None:
        logins = limiter()
        assert await tried(logins, "198.51.100.1", right=True)
        assert [await tried(logins, f"192.0.2.{n}") for n in range(12)] == [True] * 10 + [False] * 2
        assert not await tried(logins, "203.0.113.1", right=True)
        assert await tried(logins, "198.51.100.1", right=True)
        assert await tried(logins, "203.0.113.1", user="another")

    asyncio.run(run())


def test_nobody_is_at_home_where_only_wrong_passwords_came_from() -> None:
    """Else each further address would give a guesser as many tries as one may have."""

    async def run() -> None:
        logins = limiter()
        tries = [await tried(logins, f"192.0.2.{n}") for n in range(6) for _ in range(3)]
        assert tries == [True] * 10 + [False] * 8

    asyncio.run(run())


def test_right_passwords_at_once_wait_for_each_other_and_wrong_ones_gain_nothing() -> None:
    async def run() -> None:
        for right, let_in in ((True, 20), (False, 3)):
            logins = limiter()
            running = most = 0

            async def one(logins: LoginLimiter = logins, right: bool = right) -> bool:
                nonlocal running, most
                try:
                    async with logins.attempt("u", "192.0.2.1") as attempt:
                        running += 1
                        most = max(most, running)
                        await asyncio.sleep(0)
                        running -= 1
                        attempt.right = right
                except TooManyRequests:
                    return False
                return True

            assert sum(await asyncio.gather(*(one() for _ in range(20)))) == let_in
            assert most == 3

    asyncio.run(run())


def test_one_addresss_many_passwords_hold_up_only_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords_module, "WORKERS", 1)
    hold, order = threading.Event(), list[str]()

    def compare(_hasher: Passwords, _password_hash: str | None, password: str) -> bool:
        hold.wait(10)
        order.append(password)
        return True

    passwords = Passwords(memory_kib=64)
    monkeypatch.setattr(Passwords, "_matches", compare)

    def begin(lane: str, password: str) -> Future[bool]:
        served.set(lane)
        return passwords._begin(lambda: passwords._matches(None, password))

    async def run() -> None:
        passwords._nobody.result(10)
        waiting = [begin("address 192.0.2.1", f"flood {n}") for n in range(90)]
        one = begin("address 192.0.2.2", "one")
        hold.set()
        for future in (*waiting, one):
            await asyncio.wrap_future(future)

    asyncio.run(run())
    passwords.close()
    assert order.index("one") <= 2


@pytest.mark.skipif(sys.platform != "linux", reason="threads have priorities of their own on Linux only")
def test_comparing_passwords_gives_way_to_the_rest_of_the_api() -> None:
    passwords = Passwords(memory_kib=64)
    try:
        passwords._nobody.result(10)
        nice = {os.getpriority(os.PRIO_PROCESS, thread.native_id or 0) for thread in passwords._threads}
        own = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
        assert nice == {min(own + NICE, LOWEST_PRIORITY)}
    finally:
        passwords.close()
