"""`make test-postgresql`: the suite once more, each cloud that names no database on one of its own on PostgreSQL.

What starts `cumulet up` as a process, or is about SQLite itself, is as in `make test`.
"""

from __future__ import annotations

import os
import subprocess
import sys

from cumulet.testing.databases import VARIABLE, NoPostgresql, postgresql_server


def main() -> int:
    try:
        with postgresql_server("-c max_connections=400") as url:
            command = [sys.executable, "-m", "pytest", *sys.argv[1:]]
            return subprocess.run(command, env={**os.environ, VARIABLE: url}, check=False).returncode
    except NoPostgresql as problem:
        print(problem, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
