"""Names the Debian packages a part of Cumulet needs: `debian_packages.py qemu|test`, one per line.

`--has-postgres` tells by its exit status whether a PostgreSQL server can be started here.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from cumulet.image.tiny import DEBIAN_PACKAGES

HYPERVISOR = ("qemu-system-x86", "qemu-utils")
NETWORK = ("nftables",)
DATABASE = ("postgresql",)
BUS = ("nats-server",)
WITHOUT_ROOT = ("uidmap",)
PACKETS = ("iputils-ping",)


def has_postgres() -> bool:
    """Debian keeps the server's programs out of PATH, one folder per version."""
    return shutil.which("postgres") is not None or any(Path("/usr/lib/postgresql").glob("*/bin/postgres"))


def main(argument: str) -> int:
    if argument == "--has-postgres":
        return 0 if has_postgres() else 1
    parts = {
        "qemu": (*HYPERVISOR, *NETWORK, *DEBIAN_PACKAGES),
        "test": (*(() if has_postgres() else DATABASE), *BUS, *WITHOUT_ROOT, *PACKETS),
    }
    print("\n".join(dict.fromkeys(parts[argument])))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
