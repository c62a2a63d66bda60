"""What crash runs of moves happen on: a cloud, the network between its hosts, two servers, which have one, too."""

from __future__ import annotations

import contextlib
import os
from functools import partial
from pathlib import Path

from .crash_cloud import HOSTS, CrashCloud, until
from .crash_judgement import SETTLED_SECONDS
from .crash_load import SmallDisk
from .crash_network import HostNetworks
from .crash_run import PATIENCE_SECONDS, SILENT_SECONDS
from .crash_wiring import make_network, network_problems, port_of
from .frame_watch import FrameWatch


class Stage:
    """The cloud, the network between its hosts, and the two servers of the runs."""

    def __init__(self, base: Path) -> None:
        self.networks = HostNetworks(HOSTS) if os.geteuid() == 0 else None
        self.disk = SmallDisk(base) if os.geteuid() == 0 else None
        self.cloud = CrashCloud(
            base,
            "--leave-guests",
            "--set",
            f"migration_progress_timeout_seconds={PATIENCE_SECONDS}",
            "--set",
            f"host_silent_seconds={SILENT_SECONDS}",
            *(self.networks.options if self.networks else ()),
        )
        self.base = base
        self.servers: list[str] = []
        self.left_well = True
        try:
            self.cloud.start()
            if self.networks is not None:
                make_network(self.cloud)
                self.cloud.problems_beside = partial(network_problems, self.cloud, self.networks.namespaces)
        except BaseException:
            self.destroy()
            raise

    def pair(self) -> tuple[str, str]:
        """Two servers that have lived through everything so far, at first of one request; the first is to be moved."""
        if len(self.servers) < 2:
            self.servers += self.cloud.create(2 - len(self.servers))
        self.servers.reverse()
        return self.servers[0], self.servers[1]

    def give_up(self, *servers: str) -> None:
        """Servers that have lost their memory: the next run is told nothing by their consoles."""
        for server_id in servers:
            self.cloud.delete(server_id)
            self.servers.remove(server_id)

    def heard(self, server_id: str) -> contextlib.AbstractContextManager[FrameWatch | None]:
        """What comes from a guest on the network, on whatever host; nothing where there is no network."""
        if self.networks is None:
            return contextlib.nullcontext()
        port = port_of(self.cloud, server_id)
        return FrameWatch(port["id"], port["mac_address"], self.networks.namespaces)

    def end(self) -> None:
        """In good order: hosts are left with nothing of the servers, then the cloud ends."""
        for server_id in self.cloud.servers():
            self.cloud.delete(server_id)
        until("nothing of a network is left over", SETTLED_SECONDS, lambda: not self.cloud.problems_beside())
        self.cloud.stop()

    def destroy(self) -> None:
        self.cloud.destroy()
        if self.networks is not None:
            self.networks.remove()
        if self.disk is not None:
            self.disk.remove()
