"""A NATS server of the cloud's own, for agents on other machines: it is started, kept running, and told its users.

The URI in a client's certificate names the user (`verify_and_map`), who may use its own subjects only: a host receives
its requests and answers them; the control plane sends requests and receives answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import re
import shutil
import signal
from collections.abc import Collection
from pathlib import Path

import msgspec

from cumulet.bus import nats
from cumulet.ca import Issued
from cumulet.host.patience import LONGEST_WORK_SECONDS
from cumulet.owned import write_whole

log = logging.getLogger(__name__)

CONTROL_PLANE = "cumulet://control-plane"
"""The identity of its processes on the bus."""
PORT = 4222
START_SECONDS = 10.0
RESTART_PAUSE_SECONDS = 0.5
STOP_SECONDS = 5.0
LONGEST_ANSWER_SECONDS = int(LONGEST_WORK_SECONDS) + 600
"""How long an agent may take to answer one request; its permission to do so ends then."""
DEBIAN_PACKAGE = "nats-server"
_PROCESS = re.compile(rb"[2-9]|[1-9][0-9]{1,8}")


class NoNatsServer(Exception):
    """No NATS server can be started here; the message says what to do."""


class BusUser(msgspec.Struct, frozen=True, order=True):
    """A host's agent on the bus."""

    identity: str
    """The URI in its certificate."""
    host: str


def users_file_content(users: Collection[BusUser]) -> str:
    """The ``authorization`` block of a NATS server's configuration; an operator's own server includes the file."""
    control = {
        "user": CONTROL_PLANE,
        "permissions": {
            "publish": {"allow": [f"{nats.HOSTS}.*"]},
            "subscribe": {"allow": [f"{nats.ANSWERS}.>"]},
        },
    }
    hosts = [
        {
            "user": user.identity,
            "permissions": {
                "publish": {"deny": [">"]},
                "subscribe": {"allow": [nats.subject_of(user.host)]},
                "allow_responses": {"max": 1, "expires": f"{LONGEST_ANSWER_SECONDS}s"},
            },
        }
        for user in sorted(users)
    ]
    return f"authorization: {json.dumps({'timeout': 5, 'users': [control, *hosts]}, indent=1)}\n"


class UsersFile:
    """The members of a cloud, for NATS servers of an operator's own: a file that each of them includes.

    `pid_file` is where one of them, on this machine, has its process number (its setting `pid_file`): it is told to
    read its configuration again.
    """

    def __init__(self, file: Path, pid_file: Path | None) -> None:
        self._file = file
        self._pid_file = pid_file
        self._users: frozenset[BusUser] | None = None
        self._told = ""
        self.problem: str | None = None
        """Why the server could not be told to read the file; None: it was told."""

    def admit(self, users: Collection[BusUser]) -> None:
        """From now on these hosts may connect, and others are cut off. A call with the same users changes nothing, but
        tries again to tell a server that could not be told. OSError: the file cannot be written. It takes long for
        many new ones: from another thread than the event loop's."""
        wanted = frozenset(users)
        content = self._told if wanted == self._users else users_file_content(wanted)
        if content != self._told:
            write_whole(self._file, content.encode(), 0o640)
        elif self.problem is None:
            self._users = wanted
            return
        self._users, self._told, self.problem = wanted, content, self._tell()
        if self.problem is not None:
            log.warning("%s: the users are in the file, but not in force: %s", self._pid_file, self.problem)

    def renewed(self, certificate: Issued) -> None:
        """The server has to read its certificate, which may be new. If it cannot be told now, `admit` tries again."""
        if self._pid_file is None:
            log.info("%s: have your server read it, which nobody tells without --pid-file", certificate.certificate)
        self.problem = self._tell()

    def _tell(self) -> str | None:
        if self._pid_file is None:
            return None
        try:
            number = self._pid_file.read_bytes().strip()
            if _PROCESS.fullmatch(number) is None:  # 0, 1 and -1 are not one server: they are a group, init, everybody.
                return "it has no process number"
            os.kill(int(number), signal.SIGHUP)
        except FileNotFoundError:
            return "there is no such file: is the server running?"
        except OSError as error:
            return f"the process cannot be told: {error.strerror}"
        return None


class NatsServer:
    """One `nats-server` process with a folder of its own, which holds nothing worth keeping."""

    def __init__(self, folder: Path, certificate: Issued, *, address: str, port: int = PORT) -> None:
        """`port`: -1 takes a free one, known after the start."""
        self._folder = folder
        self._certificate = certificate
        self._address = address
        self.port = port
        self._users: frozenset[BusUser] | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._listening: asyncio.Task[None] | None = None
        self._last_words = "it said nothing"

    @property
    def runs(self) -> bool:
        return self._process is not None and self._process.returncode is None

    async def start(self, users: Collection[BusUser]) -> None:
        """Start the server, and start it again whenever it ends. Raises NoNatsServer."""
        program = shutil.which("nats-server") or shutil.which("nats-server", path="/usr/sbin:/usr/local/sbin")
        if program is None:
            raise NoNatsServer(
                f"hosts on other machines need NATS: install Debian's package {DEBIAN_PACKAGE} on this machine, or "
                "name a server of yours with --bus"
            )
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        content = await asyncio.to_thread(users_file_content, users)
        write_whole(self._folder / "users.conf", content.encode())
        self._users = frozenset(users)
        await self._run(program)
        self._keeping = asyncio.create_task(self._keep(program), name="nats-server")

    def admit(self, users: Collection[BusUser]) -> None:
        """As `UsersFile.admit`."""
        wanted = frozenset(users)
        if wanted == self._users:
            return
        content = users_file_content(wanted)
        file = self._folder / "users.conf"
        if file.read_text(encoding="utf-8") != content:
            write_whole(file, content.encode())
            self.reload()
        self._users = wanted

    def reload(self) -> None:
        """Have the server read its users and its certificate again. Nothing if it does not run."""
        if self._process is not None and self.runs:
            self._process.send_signal(signal.SIGHUP)

    async def _run(self, program: str) -> None:
        write_whole(self._folder / "nats.conf", self._configuration().encode())
        # The server must end with this process, even if that is killed: the next start needs its port.
        self._process = process = await asyncio.create_subprocess_exec(
            *("setpriv", "--pdeathsig", "TERM", program, "-c", str(self._folder / "nats.conf")),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stderr is not None
        self._listening = asyncio.create_task(self._hear(process.stderr), name="nats-server-log")
        try:
            async with asyncio.timeout(START_SECONDS):
                while not await self._listens(process):
                    if process.returncode is not None:
                        await self._listening  # Until everything it wrote was read.
                        raise NoNatsServer(f"nats-server ended at once: {self._last_words}")
                    await asyncio.sleep(0.02)
        except TimeoutError:
            process.kill()
            await process.wait()
            raise NoNatsServer(f"nats-server does not answer: {self._last_words}") from None

    async def _listens(self, process: asyncio.subprocess.Process) -> bool:
        """Whether the server listens: then its ports are in a file."""
        try:
            ports = json.loads((self._folder / f"nats-server_{process.pid}.ports").read_bytes())
        except (FileNotFoundError, ValueError):
            return False
        self.port = int(ports["nats"][0].rpartition(":")[2])
        return True

    async def _hear(self, words: asyncio.StreamReader) -> None:
        """Write what it logs into our own log."""
        while line := await words.readline():
            self._last_words = line.decode(errors="replace").strip()
            log.debug("nats-server: %s", self._last_words)

    async def _keep(self, program: str) -> None:
        while True:
            assert self._process is not None
            code = await self._process.wait()
            log.warning("nats-server ended with %s, starting it again", code)
            await self._run_again(program)

    async def _run_again(self, program: str) -> None:
        """Until it runs. What keeps it from running, such as a full disk, is said once."""
        told = ""
        while True:
            await asyncio.sleep(RESTART_PAUSE_SECONDS)
            try:
                if self._process is not None:
                    (self._folder / f"nats-server_{self._process.pid}.ports").unlink(missing_ok=True)
                await self._run(program)
                return
            except (NoNatsServer, OSError) as problem:
                if str(problem) != told:
                    log.warning("nats-server cannot be started, will retry: %s", problem)
                told = str(problem)

    def _configuration(self) -> str:
        settings = {
            "host": self._address,
            "port": self.port,
            "server_name": "cumulet",
            "ports_file_dir": str(self._folder),
            "max_payload": nats.MOST_BYTES,
            "max_pending": 64 * 1024 * 1024,
            "write_deadline": "2s",
            "ping_interval": "5s",
            "ping_max": 2,
            "max_connections": 20_000,
            "tls": {
                "cert_file": str(self._certificate.certificate),
                "key_file": str(self._certificate.key),
                "ca_file": str(self._certificate.authority),
                "verify_and_map": True,
                "timeout": 5,
            },
        }
        lines = (f"{name}: {json.dumps(value)}" for name, value in settings.items())
        return "\n".join((*lines, 'include "users.conf"', ""))

    async def stop(self) -> None:
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.terminate()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_SECONDS):
                await process.wait()
        if process.returncode is None:
            process.kill()
            await process.wait()
        if self._listening is not None:
            await self._listening
