"""How a message to a host can fail. Callers find these in `host.messages`, too."""

from __future__ import annotations


class HostError(Exception):
    """A host has refused, or does not answer. `reason` is a coded reason."""

    reason = "HOST_FAILED"
    public = "The operation failed on its host."


HANGS = "QEMU_HANGS"


class VerbFailed(HostError):
    """The driver failed. What became of the guest is unknown until it is observed."""

    @property
    def hangs(self) -> bool:
        """Whether the guest's process is there and does not answer: nobody sees its state until it does or ends."""
        return str(self).startswith(f"{HANGS}:")


class MessageTooLong(VerbFailed):
    """The bus does not take so long a message, so the host has not heard of it."""

    def __init__(self, most: int) -> None:
        """`most`: bytes that the bus takes."""
        super().__init__(f"MESSAGE_TOO_LONG: the bus takes {most} bytes in one message")


class StaleGeneration(HostError):
    """The host has accepted a higher generation for this guest, or a later step of it: the command is out of date."""

    reason = "STALE_GENERATION"
    host: str | None = None
    """The host that says so, where `fleet.hosts` has asked it."""

    def __init__(self, text: str = "", accepted: int | None = None) -> None:
        """`accepted`: the highest generation that the host has accepted; agents of before do not say it."""
        super().__init__(text)
        self.accepted = accepted


class HostUnreachable(HostError):
    """No answer: the command may or may not have happened."""

    reason = "HOST_UNREACHABLE"
    public = "A host does not answer."


class BusLost(HostUnreachable):
    """This process has lost the bus, before it asked or while it waited: that says nothing about the host."""
