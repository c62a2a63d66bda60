"""A host of real guests as its verbs see it, without QEMU, images or a network of its own."""

from __future__ import annotations

from pathlib import Path

from cumulet.drivers.linux_network.network import LinuxNetwork
from cumulet.drivers.qemu.disks import Disks
from cumulet.drivers.qemu.host import QemuHost
from cumulet.drivers.qemu.image_cache import ImageCache
from cumulet.drivers.qemu.sandbox import Sandbox
from cumulet.drivers.qemu.tls import TransportSecurity
from cumulet.host.limits import USUAL_LIMITS
from tests.fleet.test_unfit_machines import FACTS


def qemu_host(state: Path, network: LinuxNetwork | None = None) -> QemuHost:
    sandbox = Sandbox("host1")
    images = ImageCache(folder=state / "images", source=None)  # type: ignore[arg-type]
    return QemuHost(
        name="host1",
        address="127.0.0.1",
        state=state,
        facts=FACTS,
        sandbox=sandbox,
        disks=Disks(images=images, qemu_img=FACTS.qemu_img, sandbox=sandbox),
        tls=TransportSecurity(sandbox=sandbox),
        network=network,
        listen_seconds=1.0,
        limits=USUAL_LIMITS,
    )
