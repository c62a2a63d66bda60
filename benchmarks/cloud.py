"""A cloud to measure: `cumulet up` as its users start it, in a temporary folder, with an administrator logged in."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from benchmarks.connection import Connection

START_SECONDS = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredCloud:
    """A cloud that serves. `first_answer_seconds`: from starting the process to its first authenticated answer."""

    process_id: int
    admin: Connection
    first_answer_seconds: float
    user: tuple[str, str, str]
    """The administrator's name, password and project."""

    def resident_mb(self) -> float:
        """Resident memory of the process, in MB (10^6 bytes)."""
        for line in Path(f"/proc/{self.process_id}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024 / 1e6
        raise RuntimeError(f"process {self.process_id} has no VmRSS")

    def cpu_seconds(self) -> float:
        """CPU seconds that the process has used so far."""
        fields = Path(f"/proc/{self.process_id}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _environment() -> dict[str, str]:
    """Our environment, but Python may keep its byte code: an installed program has it and need not compile."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


@contextmanager
def running(
    state: Path,
    *,
    hosts: int,
    database: str | None = None,
    driver: str = "simulated",
    start_seconds: float = START_SECONDS,
) -> Iterator[MeasuredCloud]:
    """`cumulet up` with hosts of this driver until the block ends. Its log goes to a file, as a service's would."""
    ready = state.with_name(f"{state.name}.ready")
    ready.unlink(missing_ok=True)
    command = [sys.executable, "-m", "cumulet", "up", "--state", str(state), "--listen", "127.0.0.1:0"]
    command += ["--driver", driver, "--hosts", str(hosts), "--ready-file", str(ready)]
    command += [] if database is None else ["--database", database]
    log_file = state.with_name(f"{state.name}.log")
    begun = time.perf_counter()
    with open(log_file, "wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=_environment())
    try:
        while not ready.exists():
            if process.poll() is not None or time.perf_counter() - begun > start_seconds:
                raise RuntimeError(f"`cumulet up` did not start:\n{log_file.read_text()[-2000:]}")
            time.sleep(0.002)
        entry = yaml.safe_load((state / "clouds.yaml").read_text())["clouds"]["cumulet"]
        admin = Connection(ready.read_text().strip(), entry["cacert"])
        user = entry["auth"]["username"], entry["auth"]["password"], entry["auth"]["project_name"]
        admin.log_in(*user)
        admin.ask("GET", "/compute/v2.1/servers")
        seconds = time.perf_counter() - begun
        yield MeasuredCloud(process_id=process.pid, admin=admin, first_answer_seconds=seconds, user=user)
        admin.close()
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
