"""Subports of trunks. Each has a device of its own that is named as a tap would be, so that all rules know it as one.

The device is an `ifb`, a port of the subport's bridge. A program at the parent's tap takes the tag from what the guest
sends, and gives the frame to the device as if it had come in there. A program at the device puts the tag on what the
bridge sends there, and gives it to the tap. The names of both say what they do, so that a new process knows them.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import socket
from collections.abc import Collection, Iterator, Mapping, Sequence

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from cumulet.drivers.linux_network import bpf, names
from cumulet.drivers.linux_network.bpf import Instruction, NoProgram
from cumulet.drivers.linux_network.links import Links, NoDevice
from cumulet.drivers.linux_network.rtnetlink import Link
from cumulet.drivers.linux_network.taps import silence
from cumulet.host import wiring as w

DEVICE = "ifb"
_VERSION = 1
"""Of the programs. Those of another version are replaced."""
_COMING, _LEAVING = 0xFFFFFFF2, 0xFFFFFFF3
"""The hooks of `clsact`: for frames that come in at a device, and for those that it is to send."""
_FOR_ALL = 1 << 16 | socket.htons(0x0003)
"""Of a filter: its priority, and that it is for every protocol."""
_TRIAL = names.TAP + "-trial"


class Carrying:
    """Used by the network's thread only, in its namespace."""

    def __init__(self, links: Links) -> None:
        self._links = links
        self._route = IPRoute()
        self._any = True
        """Whether there may be devices of subports: an earlier process may have left some."""

    def close(self) -> None:
        self._route.close()

    def apply(self, wiring: w.Wiring, *, but: Collection[str] = (), parent: str | None = None) -> list[w.NotDone]:
        """Make the devices of the subports whose parents have taps, and remove all others; returns what failed.

        Their rules must be in force. `but`: networks without a bridge. `parent`: only the subports of this port.
        """
        subports = [port for port in wiring.ports if port.carried is not None]
        if not subports and not self._any:
            return []
        self._any = True
        present = self._links.present()
        of_tap: dict[str, list[w.Port]] = {}
        for port in subports:
            assert port.carried is not None
            tap = names.tap(port.carried.parent)
            if tap in present and port.network_id not in but and parent in (None, port.carried.parent):
                of_tap.setdefault(tap, []).append(port)
        networks = {network.id: network for network in wiring.networks}
        not_done: list[w.NotDone] = []
        for tap, carried in of_tap.items():
            try:
                self._carry(present[tap], carried, networks, present)
            except (NetlinkError, NoProgram, NoDevice) as refused:
                not_done += [w.NotDone(subject=port.id, reason=str(refused)) for port in carried]
        if parent is None:
            self._remove_others(of_tap, present)
            self._any = bool(subports)
        return not_done

    def _carry(
        self, tap: Link, carried: Sequence[w.Port], networks: Mapping[str, w.Network], present: Mapping[str, Link]
    ) -> None:
        devices: dict[int, int] = {}
        for port in carried:
            assert port.carried is not None
            network, name, tag = networks[port.network_id], names.tap(port.id), port.carried.tag
            device = present.get(name)
            if device is not None and device.kind != DEVICE:
                raise NoDevice(f"a guest of this host is plugged into port {port.id} still")
            index = self._add(name) if device is None else device.index
            self._program(index, _LEAVING, f"tag {tag} for {tap.index}", bpf.tagging(tag, tap.index))
            if device is None or device.master is None or not device.up:
                silence(name)  # Also where an earlier process has come no further than to make it.
                self._links.attach(name, network, mac=port.mac, active=port.active)
            devices[tag] = index
        text = " ".join(f"{tag}:{index}" for tag, index in sorted(devices.items()))
        self._program(tap.index, _COMING, f"sort {hashlib.sha256(text.encode()).hexdigest()}", bpf.sorting(devices))

    def _add(self, name: str) -> int:
        self._route.link("add", ifname=name, kind=DEVICE)
        (index,) = self._route.link_lookup(ifname=name)
        return int(index)

    def _program(self, index: int, hook: int, does: str, instructions: Sequence[Instruction]) -> None:
        """Have this program at a hook of a device, in the place of another one."""
        named = f"cumulet {_VERSION} {does}"
        if self._there(index, hook) == named:
            return
        with _fine(errno.EEXIST):
            self._route.tc("add", "clsact", index)
        program = bpf.load(instructions)
        try:
            to = {"parent": hook, "info": _FOR_ALL}
            self._route.tc("replace-filter", "bpf", index, 1, fd=program, name=named, direct_action=True, **to)
        finally:
            os.close(program)

    def _there(self, index: int, hook: int) -> str | None:
        """The name of the program at a hook of a device; None without one."""
        with _fine(errno.EINVAL, errno.ENOENT):  # There is no clsact.
            for filter_ in self._route.get_filters(index=index, parent=hook):
                options = filter_.get_attr("TCA_OPTIONS")
                if options is not None:
                    return str(options.get_attr("TCA_BPF_NAME"))
        return None

    def _remove_others(self, of_tap: Mapping[str, Sequence[w.Port]], present: Mapping[str, Link]) -> None:
        """Take programs from taps that carry nothing, and then remove devices that nothing leads to."""
        hooked = {queue["index"] for queue in self._route.get_qdiscs() if queue.get_attr("TCA_KIND") == "clsact"}
        wanted = {names.tap(port.id) for carried in of_tap.values() for port in carried}
        for name, link in present.items():
            if name.startswith(names.TAP) and link.kind != DEVICE and link.index in hooked and name not in of_tap:
                with _fine(errno.ENODEV, errno.ENOENT, errno.EINVAL):
                    self._route.tc("del", "clsact", link.index)
        for name, link in present.items():
            if link.kind == DEVICE and name not in wanted:
                with _fine(errno.ENODEV):
                    self._route.link("del", index=link.index)

    def problem(self) -> str | None:
        """Why this host cannot carry subports, found out by trial; None where it can."""
        try:
            for left in self._route.link_lookup(ifname=_TRIAL):
                self._route.link("del", index=left)
            index = self._add(_TRIAL)
            try:
                self._program(index, _LEAVING, "trial", bpf.tagging(1, index))
                self._program(index, _COMING, "trial", bpf.sorting({1: index}))
            finally:
                self._route.link("del", index=index)
        except (NetlinkError, NoProgram, OSError) as refused:
            return str(refused)
        return None


@contextlib.contextmanager
def _fine(*codes: int) -> Iterator[None]:
    """These errors of rtnetlink say that there is nothing to do."""
    try:
        yield
    except NetlinkError as problem:
        if problem.code not in codes:
            raise
