"""Imports point one way: what each part of the program may import, as a table, read from the source with `ast`.

Every import counts: at the top of a module, inside a function, under `TYPE_CHECKING`. What deviates is listed in
`EXCEPTIONS` with its reason, and an exception that is no longer needed fails the test.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src"

FOUNDATION = frozenset(
    {
        "errors",
        "clock",
        "periodic",
        "settings",
        "owned",
        "rootless",
        "space",
        "db",
        "wake",
        "standstill",
        "signals",
        "confined",
    }
)
HOST_BORDER = frozenset({"host", "fleet.hosts"})
"""What the rest of the program knows of hosts: how to ask one, and the data types of questions and answers."""
KERNEL = FOUNDATION | {"web", "conductor", "part"}
SERVICES = frozenset({"identity", "image", "network", "placement", "compute"})
MACHINERY = frozenset({"conductor", "host", "agent", "drivers", "fleet", "bus", "ca"})

MAY_IMPORT: dict[str, frozenset[str]] = {
    # A part is the longest dotted prefix found here; it may always import itself.
    "errors": frozenset(),
    "clock": frozenset(),
    "periodic": frozenset({"clock"}),
    "signals": frozenset(),
    "settings": frozenset(),
    "space": frozenset({"errors"}),
    # It runs programs on untrusted data, and knows neither guests nor images.
    "confined": frozenset(),
    "wake": frozenset({"db"}),
    "standstill": frozenset(),
    "owned": frozenset(),
    "rootless": frozenset({"confined"}),
    "own_namespaces": frozenset(),
    "db": FOUNDATION,
    "web": FOUNDATION | HOST_BORDER,
    # It knows operations on subjects of some kind, and no service.
    "conductor": FOUNDATION | HOST_BORDER,
    "part": FOUNDATION | HOST_BORDER | {"web", "conductor"},
    "identity": KERNEL,
    "image": KERNEL,
    "network": KERNEL,
    # What a host must have is said in the host's words.
    "network.wiring": KERNEL | {"network", "host.wiring"},
    "network.server_network_data": KERNEL | {"network", "host.network_data"},
    "network.router_wiring": KERNEL | {"network", "host.wiring"},
    "network.port_wiring": KERNEL | {"network", "host.wiring"},
    "network.group_wiring": KERNEL | {"network", "host.wiring"},
    "placement": KERNEL,
    "compute": KERNEL | HOST_BORDER | {"identity", "image", "network", "placement"},
    # A host knows no service and no database: its agent is a process of its own, on a machine of its own.
    "host": frozenset({"errors", "clock", "settings"}),
    "drivers": frozenset({"errors", "clock", "settings", "space", "confined", "host"}),
    "agent": frozenset({"errors", "clock", "settings", "owned", "host", "drivers"}),
    # The bus carries what `host` defines; it knows neither what sends nor what answers.
    "bus": frozenset({"errors", "clock", "settings", "host"}),
    "fleet": frozenset({"errors", "clock", "settings", "owned", "rootless", "host", "bus", "ca"}),
    "fleet.hosts": frozenset({"errors", "clock", "settings", "host", "standstill"}),
    "ca": frozenset({"errors", "clock", "settings", "owned"}),
    # It reads and writes the files of a cloud that need not run.
    "backup": frozenset({"conductor", "db", "image", "owned", "web"}),
    # A process puts parts together, and only programs import it.
    "processes.agent": frozenset({"agent", "bus", "confined", "drivers", "fleet", "signals"}),
    "cloud": KERNEL | SERVICES | {"conductor", "host", "agent", "drivers", "fleet", "bus", "ca"},
    "processes": KERNEL | SERVICES | {"conductor", "host", "agent", "drivers", "fleet", "bus", "ca"},
    "testing": KERNEL
    | SERVICES
    | {"conductor", "host", "agent", "drivers", "fleet", "bus", "ca", "cloud", "processes"},
    # Command line and dashboard are clients: they know the HTTP API only.
    "cli": frozenset(),
    "dashboard": frozenset(),
    "__main__": frozenset({"cli"}),
}

STARTS = "a command that starts a process imports what that process is"
LOOKS = "`cumulet doctor`, and `--driver auto`, try out this very machine"
FILES = "`cumulet audit`, `backup` and `restore` read and write the files of a cloud that need not run"
BUILDS = "`cumulet image build` works where no cloud runs"
CLEANS = "`cumulet host clean` works where no agent is left that could"
NAMES = "`cumulet host` says in a sentence what is no name of a host; a schema's pattern is no sentence"
EXCEPTIONS: dict[tuple[str, str], str] = {
    ("cli.up", "processes.all"): STARTS,
    ("cli.up", "processes.embedded_cloud"): STARTS,
    ("cli.up", "settings"): STARTS,
    ("cli.up", "fleet.public_network"): STARTS,
    ("cli.up", "owned"): STARTS,
    ("cli.up", "signals"): STARTS,
    ("cli.fleet", "signals"): STARTS,
    ("cli.state_folder", "owned"): STARTS,
    ("cli.state_folder", "db.full_disk"): STARTS,
    ("cli.state_folder", "space"): STARTS,
    ("cli.namespaces", "owned"): STARTS,
    ("cli.namespaces", "image.tiny"): STARTS,
    ("cli.namespaces", "rootless"): STARTS,
    ("cli.namespaces", "settings"): STARTS,
    ("cli.namespaces", "web.server"): STARTS,
    ("cli.doctor", "rootless"): LOOKS,
    ("cli.image", "image.debian"): BUILDS,
    ("cli.up", "db.schema"): STARTS,
    ("cli.up", "web.log"): STARTS,
    ("cli.up", "web.policy_language"): STARTS,
    ("cli.up", "web.server"): STARTS,
    ("cli.up", "ca"): STARTS,
    ("cli.up", "part"): STARTS,
    ("cli.configuration", "settings"): STARTS,
    ("cli.host_network_option", "settings"): STARTS,
    ("cli.settings", "web.log"): STARTS,
    ("cli.agent", "host.limits"): STARTS,
    ("cli.agent", "processes.agent"): STARTS,
    ("cli.agent", "processes.joined_agent"): STARTS,
    ("cli.agent", "web.log"): STARTS,
    ("cli.database", "db.engine"): FILES,
    ("cli.database", "db.schema"): FILES,
    ("cli.database", "processes.database_copy"): FILES,
    ("cli.fleet", "db.schema"): STARTS,
    ("cli.fleet", "fleet.nats_server"): STARTS,
    ("cli.fleet", "processes.api"): STARTS,
    ("cli.fleet", "processes.bus"): STARTS,
    ("cli.fleet", "processes.conductor"): STARTS,
    ("cli.fleet", "processes.parts"): STARTS,
    ("cli.fleet", "settings"): STARTS,
    ("cli.fleet", "ca"): STARTS,
    ("cli.fleet", "owned"): STARTS,
    ("cli.fleet", "part"): STARTS,
    ("cli.fleet", "web.log"): STARTS,
    ("cli.fleet", "web.policy_language"): STARTS,
    ("cli.fleet", "web.server"): STARTS,
    ("cli.audit", "owned"): FILES,
    ("cli.backup", "owned"): FILES,
    ("cli.backup", "db.engine"): FILES,
    ("cli.backup", "backup"): FILES,
    ("cli.audit", "web.audit"): FILES,
    ("cli.agent", "fleet.local_agents"): STARTS,
    ("cli.doctor", "host.driver"): LOOKS,
    ("cli.doctor", "host.machine"): LOOKS,
    ("cli.doctor", "drivers.linux_network.probe"): LOOKS,
    ("cli.doctor", "drivers.linux_network.skeleton"): LOOKS,
    ("cli.host_network", "drivers.linux_network.network"): CLEANS,
    ("cli.host", "host.joining"): NAMES,
    ("cli.host_network", "host.driver"): CLEANS,
    ("cli.host_network", "agent.ending"): CLEANS,
    ("cli.doctor", "drivers.qemu.facts"): LOOKS,
    ("cli.doctor", "drivers.qemu.sandbox"): LOOKS,
    ("cli.doctor", "image.tiny"): LOOKS,
    ("cli.driver_choice", "drivers.qemu.facts"): LOOKS,
    ("cli.driver_choice", "image.tiny"): LOOKS,
}

FORBIDDEN_NAMES = {"utils", "util", "common", "helpers", "helper", "base", "manager", "misc"}


@dataclass(frozen=True, slots=True)
class Import:
    importer: str
    imported: str
    line: int

    def __str__(self) -> str:
        return f"{self.importer} (line {self.line}) imports {self.imported}"


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name without ``cumulet.``; the package's own ``__init__`` is ``""``."""
    found = {}
    for path in sorted((SOURCE / "cumulet").rglob("*.py")):
        parts = path.relative_to(SOURCE / "cumulet").with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports_of(name: str, path: Path, known: dict[str, Path]) -> Iterator[Import]:
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(), filename=str(path))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.startswith("cumulet."):
                    yield Import(name, alias.name.removeprefix("cumulet."), node.lineno)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                origin = ".".join([*above, *filter(None, [node.module])])
            elif node.module == "cumulet" or (node.module or "").startswith("cumulet."):
                origin = (node.module or "").removeprefix("cumulet").removeprefix(".")
            else:
                continue
            for alias in node.names:
                # `from cumulet.host import driver` names a module, `from cumulet.host.driver import Guest` does not.
                deeper = f"{origin}.{alias.name}".removeprefix(".")
                imported = deeper if deeper in known else origin
                if imported:
                    yield Import(name, imported, node.lineno)


def part_of(name: str) -> str | None:
    """The longest prefix of `name` that is a part in the table."""
    while name and name not in MAY_IMPORT:
        name = name.rpartition(".")[0]
    return name or None


def allowed(importer: str, imported: str) -> bool:
    part, target = part_of(importer), part_of(imported)
    if part is None or target is None:
        return False
    if part == target or target.startswith(f"{part}."):
        return True
    return any(imported == other or imported.startswith(f"{other}.") for other in MAY_IMPORT[part])


def all_imports() -> list[Import]:
    known = modules()
    return [found for name, path in known.items() for found in imports_of(name, path, known)]


def test_every_module_belongs_to_a_part() -> None:
    homeless = [name for name in modules() if name and part_of(name) is None]
    # A namespace that only holds parts (`conductor`) is one itself; anything else needs a line in the table.
    assert not homeless, homeless


def test_imports_point_one_way() -> None:
    wrong = [
        str(found)
        for found in all_imports()
        if not allowed(found.importer, found.imported) and (found.importer, found.imported) not in EXCEPTIONS
    ]
    assert not wrong, "\n".join(wrong)


def test_every_exception_is_still_needed() -> None:
    used = {(found.importer, found.imported) for found in all_imports()}
    needless = [pair for pair in EXCEPTIONS if pair not in used or allowed(*pair)]
    assert not needless, needless


def test_no_module_is_a_drawer() -> None:
    drawers = [name for name in modules() if FORBIDDEN_NAMES & set(name.split("."))]
    assert not drawers, drawers


@pytest.mark.parametrize(
    ("importer", "imported", "expected"),
    [
        ("compute.servers", "web.operation", True),
        ("web.app", "compute.servers", False),
        ("compute.boot", "host.driver", True),
        ("compute.boot", "drivers.simulated.driver", False),
        ("conductor.runner", "compute.boot", False),
        ("compute.boot", "conductor.saga", True),
        ("conductor.findings", "compute.drift", False),
        ("image.store", "compute.store", False),
        ("agent.agent", "db.engine", False),
        ("drivers.qemu.driver", "host.driver", True),
        ("drivers.qemu.driver", "agent.agent", False),
        ("cli.demo", "compute.model", False),
        ("identity.tokens", "nowhere", False),
    ],
)
def test_the_table_says_what_the_design_says(importer: str, imported: str, expected: bool) -> None:
    assert allowed(importer, imported) is expected
