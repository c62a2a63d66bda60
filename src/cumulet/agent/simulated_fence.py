"""The fence of a simulated host: kept in a file like its guests, so that both survive the process, and no more."""

from __future__ import annotations

from pathlib import Path

from cumulet.agent.fence import Mark, MemoryFence


class SimulatedFence(MemoryFence):
    """A file with a line for every generation that was accepted. The last line of a guest counts.

    Nothing is fsynced. If the real machine fails, the commands under way are lost with it: none is left to refuse.
    """

    def __init__(self, file: Path) -> None:
        super().__init__()
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if file.exists():
            # A line without a newline was being written when the process died: its command was not admitted.
            for line in file.read_text().split("\n")[:-1]:
                server_id, _, mark = line.partition(" ")
                super().set_mark(server_id, Mark.parse(mark))
            fresh = file.with_suffix(".new")
            fresh.write_text("".join(f"{server_id} {mark.text}\n" for server_id, mark in self._known.items()))
            fresh.replace(file)
        self._file = open(file, "ab", buffering=0)  # noqa: SIM115 - as long as the host lives

    def set_mark(self, server_id: str, mark: Mark) -> None:
        self._file.write(f"{server_id} {mark.text}\n".encode())
        super().set_mark(server_id, mark)

    def close(self) -> None:
        """Admit no further command."""
        self._file.close()
