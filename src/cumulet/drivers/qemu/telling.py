"""What the metadata service tells a guest that has changed since its description was frozen, kept in its folder."""

from __future__ import annotations

import secrets

from cumulet.drivers.qemu.host import QemuHost
from cumulet.host.telling import PASSWORD, Heard, Posted, Told, is_late, without


async def tell(host: QemuHost, server_id: str, told: Told) -> Heard:
    """It takes no lock: whoever starts a process, or plugs in a port, tells what is in the folder then."""
    folder = host.folder(server_id)
    record = folder.read()
    if record is None:
        return Heard(revision=0)
    known, posted = folder.read_told(), folder.read_posted()
    if known is not None and is_late(known, told):
        return Heard(revision=known.revision + 1, posted=posted)
    left = without(posted, told)
    try:
        if known != told:
            folder.write_told(told)
    except FileNotFoundError:  # It is removed just now.
        return Heard(revision=0)
    if left is None:
        folder.posted.unlink(missing_ok=True)
    await host.tell_ports(record.guest)
    return Heard(revision=told.revision, posted=left)


async def post(host: QemuHost, server_id: str, content: str) -> bool:
    """A guest posts a password that it has encrypted. False if there is one already, or the guest is gone."""
    folder = host.folder(server_id)
    record, told = folder.read(), folder.read_told()
    if record is None or folder.read_posted() is not None or (told is not None and told.documents.get(PASSWORD)):
        return False
    try:
        folder.write_posted(Posted(id=secrets.token_hex(16), content=content))
    except FileNotFoundError:  # It is removed just now.
        return False
    await host.tell_ports(record.guest)
    return True
