"""Tells systemd that this process is ready, if it was started as a service with `Type=notify`: sd_notify(3)."""

from __future__ import annotations

import os
import socket


def started_us() -> bool:
    """Whether a service manager started this process and waits for its messages."""
    return bool(os.environ.get("NOTIFY_SOCKET"))


def tell(message: str) -> None:
    """Send ``READY=1`` or ``STOPPING=1``. Without a service manager, this does nothing."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as manager:
        try:
            manager.sendto(message.encode(), address.replace("@", "\0", 1) if address[0] == "@" else address)
        except OSError:
            return
