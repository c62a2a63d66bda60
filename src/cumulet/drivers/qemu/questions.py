"""What a QEMU is asked that runs no guest: what it is, and what it can do (`facts`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeVar

import msgspec

from cumulet.drivers.qemu.answers import Answer, Named

T = TypeVar("T")


class Question(msgspec.Struct, Generic[T], frozen=True):
    """A command without arguments, and the type of its answer."""

    command: str
    answer: type[T]


class Version(Answer, frozen=True):
    """`VersionInfo`; of `qemu`: ``major``, ``minor`` and ``micro``."""

    qemu: dict[str, int]


class Capability(Answer, frozen=True):
    """`MigrationCapabilityStatus`"""

    capability: str


class CpuDefinition(Answer, frozen=True):
    """`CpuDefinitionInfo`; `unavailable_features` is empty for a model that runs here."""

    name: str
    unavailable_features: tuple[str, ...] | None = None


VERSION = Question("query-version", Version)
MACHINES = Question("query-machines", list[Named])
MIGRATION_CAPABILITIES = Question("query-migrate-capabilities", list[Capability])
COMMANDS = Question("query-commands", list[Named])
TYPES = Question("qom-list-types", list[Named])
CPU_DEFINITIONS = Question("query-cpu-definitions", list[CpuDefinition])


def script(questions: Sequence[Question[object]]) -> bytes:
    """What is written to a QEMU that answers `questions` and ends; each answer's id is the question's command."""
    lines: list[dict[str, str]] = [{"execute": "qmp_capabilities"}]
    lines += [{"execute": question.command, "id": question.command} for question in questions]
    lines.append({"execute": "quit"})
    return b"\n".join(map(msgspec.json.encode, lines))


NEEDED = ("migrate-continue", "blockdev-mirror", "block-export-add", "yank", "ringbuf-read", "job-dismiss")
"""Of the commands in `commands`, the ones that an old QEMU may lack."""
