"""Every verb for hosts. A module that declares some is named here, so that they are known."""

from __future__ import annotations

from cumulet.host import (
    console_messages,
    crash_dump,
    disk_messages,
    guest_agent_messages,
    looking,
    messages,
    telling_messages,
    traffic,
)
from cumulet.host.messages import Message

MODULES = (
    *(messages, console_messages, crash_dump, disk_messages),
    *(guest_agent_messages, looking, telling_messages, traffic),
)


def verbs() -> tuple[type[Message[object]], ...]:
    """Those of `MODULES`, and of whatever else is imported, by name."""
    found: list[type[Message[object]]] = []
    waiting: list[type[Message[object]]] = [Message]
    while waiting:
        cls = waiting.pop()
        waiting.extend(cls.__subclasses__())
        if cls.do is not Message.do:
            found.append(cls)
    return tuple(sorted(found, key=lambda cls: cls.__name__))
