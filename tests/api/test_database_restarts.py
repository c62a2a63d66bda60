"""PostgreSQL goes away in every way it can, and comes back: callers are told, and the cloud goes on by itself."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa

import cumulet.testing
from cumulet.db import engine
from cumulet.db.reach import OutcomeUnknown
from cumulet.testing import Client, TestCloud
from cumulet.testing.client import Answer
from cumulet.testing.databases import NoPostgresql, PostgresqlServer, own_postgresql
from cumulet.web import faults
from tests.api.servers import AUTO, host_of, image_and_flavor, last_migration, other

pytestmark = pytest.mark.postgres
MOST_CONNECTIONS = 30
REQUESTS: dict[str, tuple[tuple[str, str, object], ...]] = {
    "identity": (
        ("GET", "/identity/v3/users", None),
        ("POST", "/identity/v3/projects", {"project": {"name": "p", "domain_id": "default"}}),
    ),
    "compute": (
        ("GET", "/compute/v2.1/servers/detail", None),
        ("POST", "/compute/v2.1/os-keypairs", {"keypair": {"name": "k"}}),
        ("DELETE", "/compute/v2.1/servers/6b1e5b4e-8d2c-4b0c-9d7b-0d6f3a8f2c11", None),
    ),
    "network": (
        ("GET", "/network/v2.0/networks", None),
        ("POST", "/network/v2.0/networks", {"network": {"name": "n"}}),
    ),
    "image": (
        ("GET", "/image/v2/images", None),
        ("POST", "/image/v2/images", {"name": "i", "disk_format": "raw", "container_format": "bare"}),
    ),
    "placement": (
        ("GET", "/placement/resource_providers", None),
        ("POST", "/placement/resource_providers", {"name": "rp"}),
    ),
}
END_OTHERS = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname <> '' AND application_name <> 'somebody else' AND pid <> pg_backend_pid()"""
AWAY = "The cloud's database cannot be reached. Try again soon."
UNKNOWN = "The cloud's database was lost before it said whether this was done. Look before you ask again."


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresqlServer]:
    with contextlib.ExitStack() as stack:
        options = f"-c max_connections={MOST_CONNECTIONS} -c superuser_reserved_connections=0"
        try:
            yield stack.enter_context(own_postgresql(options))
        except NoPostgresql as problem:
            pytest.skip(str(problem))


@pytest.fixture(scope="module")
def cloud(server: PostgresqlServer) -> Iterator[TestCloud]:
    with cumulet.testing.cloud(hosts=2, database_url=server.url, lease_seconds=2.0) as running:
        yield running


@contextlib.contextmanager
def killed(server: PostgresqlServer) -> Iterator[None]:
    server.stop("immediate")
    try:
        yield
    finally:
        server.start()


@contextlib.contextmanager
def shut_down(server: PostgresqlServer) -> Iterator[None]:
    server.stop("fast")
    try:
        yield
    finally:
        server.start()


@contextlib.contextmanager
def without_connections(server: PostgresqlServer) -> Iterator[None]:
    """Somebody else has all connections of PostgreSQL."""
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(psycopg.connect(server.url, autocommit=True))
        taken = 1
        while taken < MOST_CONNECTIONS:
            first.execute(END_OTHERS)
            with contextlib.suppress(psycopg.OperationalError):
                while taken < MOST_CONNECTIONS:
                    stack.enter_context(psycopg.connect(server.url, application_name="somebody else"))
                    taken += 1
        yield


@contextlib.contextmanager
def taking_no_changes(server: PostgresqlServer) -> Iterator[None]:
    """PostgreSQL takes no changes, as a standby does, or as its operator has set it. Open connections are closed."""

    def all_read_only(state: str) -> None:
        with psycopg.connect(server.url, autocommit=True) as mine:
            mine.execute("SET default_transaction_read_only = off")
            mine.execute(f"ALTER SYSTEM SET default_transaction_read_only = {state}")
            mine.execute("SELECT pg_reload_conf()")
            while mine.execute("SELECT pg_sleep(0.01)") and _others_are(server) != state:
                pass
            mine.execute(END_OTHERS)

    all_read_only("on")
    try:
        yield
    finally:
        all_read_only("off")


def _others_are(server: PostgresqlServer) -> str:
    with psycopg.connect(server.url) as other:
        [(state,)] = other.execute("SHOW default_transaction_read_only").fetchall()
        return str(state)


@contextlib.contextmanager
def frozen(server: PostgresqlServer) -> Iterator[None]:
    """PostgreSQL neither answers nor refuses."""
    main = server.main_process
    children = [int(pid) for pid in Path(f"/proc/{main}/task/{main}/children").read_text().split()]
    for pid in (main, *children):
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in (main, *children):
            os.kill(pid, signal.SIGCONT)


Way = Callable[[PostgresqlServer], contextlib.AbstractContextManager[None]]


def words_of(service: str, answer: Answer) -> str:
    """The words of an error, which has its service's own form."""
    body = answer.json
    match service:
        case "compute":
            assert body["serviceUnavailable"]["code"] == 503
            return str(body["serviceUnavailable"]["message"])
        case "network":
            return str(body["NeutronError"]["message"])
        case "image":
            assert body["code"].startswith("503")
            return str(body["message"])
        case "placement":
            assert body["errors"][0]["status"] == 503
            return str(body["errors"][0]["detail"])
    assert body["error"]["code"] == 503
    return str(body["error"]["message"])


def begin_server(client: Client) -> str:
    wanted = {"name": "s", "networks": "none", **image_and_flavor(client)}
    answer = client.compute("POST", "/servers", {"server": wanted})
    assert answer.status == 202, answer.text
    return str(answer["server"]["id"])


@pytest.mark.parametrize("away", [killed, shut_down, without_connections, taking_no_changes, frozen])
def test_every_service_says_so_and_goes_on_when_it_is_back(
    cloud: TestCloud, server: PostgresqlServer, away: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin = cloud.persona("admin")
    there = begin_server(admin)
    admin.wait_for_status(there, "ACTIVE")
    begun = begin_server(admin)
    monkeypatch.setattr(engine, "CALLERS_SECONDS", 1.0)
    with away(server):
        for service, requests in REQUESTS.items():
            for method, path, body in requests:
                answer = admin.request(method, path, body)
                assert answer.status == 503, (method, path, answer)
                assert answer.headers["retry-after"] == "1"
                said = words_of(service, answer)
                assert said == AWAY or (said == UNKNOWN and away is frozen and method != "GET"), (method, path, said)
        assert cloud.anonymous().request("GET", "/healthz").status == 503
    monkeypatch.setattr(engine, "CALLERS_SECONDS", 60.0)
    admin.wait("the database to be there", lambda: admin.request("GET", "/healthz").status == 200)
    assert admin.request("GET", "/identity/v3/users").status == 200
    admin.wait_for_status(begun, "ACTIVE")
    source = host_of(admin, there)
    assert admin.action(there, {"os-migrateLive": {"host": other(source), **AUTO}}).status == 202
    admin.wait("the move", lambda: last_migration(admin, there)["status"] == "completed")
    assert host_of(admin, there) == other(source)
    for server_id in (there, begun):
        assert admin.compute("DELETE", f"/servers/{server_id}").status == 204


class Between:
    """Stands between a cloud and PostgreSQL. When told, it passes on the next COMMIT and keeps the answer to itself."""

    def __init__(self, server: PostgresqlServer, folder: Path) -> None:
        self.loses = threading.Event()
        self.lost = threading.Event()
        self._there = str(server.folder / ".s.PGSQL.5432")
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / ".s.PGSQL.5432"))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(self._there)
                silent = threading.Event()
                for words in ((client, server, True), (server, client, False)):
                    threading.Thread(target=self._pass_on, args=(*words, silent), daemon=True).start()

    def _pass_on(self, source: socket.socket, to: socket.socket, asked: bool, silent: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(65536):
                if asked and b"COMMIT\0" in piece and self.loses.is_set():
                    self.loses.clear()
                    silent.set()
                if not asked and silent.is_set():
                    break  # PostgreSQL has answered: it is committed.
                to.sendall(piece)
        for end in (source, to):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        if silent.is_set():
            self.lost.set()

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def between(server: PostgresqlServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Between, str]]:
    folder = tmp_path_factory.mktemp("pg")
    with psycopg.connect(server.url, autocommit=True) as mine:
        mine.execute("CREATE DATABASE between_them")
    one = Between(server, folder)
    try:
        yield one, f"postgresql://cumulet@/between_them?host={folder}"
    finally:
        one.close()
        with psycopg.connect(server.url, autocommit=True) as mine:
            mine.execute("DROP DATABASE between_them WITH (FORCE)")


def test_a_commit_whose_answer_is_lost_is_told_as_unknown_and_not_made_again(between: tuple[Between, str]) -> None:
    wire, url = between
    tries: list[int] = []
    with engine.opened(url) as database:
        database.write(lambda tx: tx.execute(sa.text("CREATE TABLE counter (n INTEGER)")))

        def insert(tx: engine.Tx) -> None:
            tries.append(1)
            tx.execute(sa.text("INSERT INTO counter VALUES (1)"))
            wire.loses.set()

        with pytest.raises(OutcomeUnknown) as problem:
            database.write(insert)
        assert faults.unexpected(problem.value, "req-1").public == UNKNOWN
        assert wire.lost.wait(30)
        assert tries == [1]
        assert database.read(lambda tx: tx.scalar(sa.text("SELECT count(*) FROM counter"))) == 1
