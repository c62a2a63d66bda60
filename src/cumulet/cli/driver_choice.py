"""Which driver `--driver auto` means on this machine, and why."""

from __future__ import annotations

import asyncio
import shutil
from typing import Literal

import click
import msgspec

Wish = Literal["auto", "simulated", "qemu"]


class Choice(msgspec.Struct, frozen=True):
    """A driver, and why it was chosen: one clause, for people."""

    driver: Literal["simulated", "qemu"]
    why: str
    for_want_of_qemu: bool = False
    """Whether it is the simulated one only because QEMU does not work here now."""


def choose(wish: Wish, *, hosts_here: bool = True, with_image: bool = False, made_with: str | None = None) -> Choice:
    """The driver to use. If QEMU is asked for and missing, that is an error; no other driver takes its place.

    `hosts_here`: guests run on this machine, not only on machines that join. `with_image`: the tiny image is needed
    too. `made_with`: the driver that the state was made with; another one would find none of its servers.
    """
    if made_with is not None and wish not in ("auto", made_with):
        raise click.ClickException(
            f"the state was made with --driver {made_with}: go on with that, or name another folder with --state"
        )
    if made_with == "simulated":
        return Choice("simulated", "as the state was made")
    if made_with == "qemu":
        wish = "qemu"
    if wish == "simulated":
        return Choice("simulated", "as asked for")
    if not hosts_here:
        return Choice("qemu", "as that of all machines that join")
    problem = qemu_problem()
    if problem is None and with_image:
        from cumulet.image.tiny import available

        problem = available()
    if problem is None:
        return Choice("qemu", "QEMU works here")
    if wish == "qemu":
        raise click.ClickException(f"{problem}; `cumulet doctor` says more, --driver simulated needs none")
    return Choice("simulated", problem, for_want_of_qemu=True)


def qemu_problem() -> str | None:
    """Why QEMU cannot be used here; None: it can. QEMU is started to find out, which takes about a second."""
    if shutil.which("qemu-system-x86_64") is None:
        return "there is no qemu-system-x86_64 here"  # Checked first, because it is fast.
    from cumulet.drivers.qemu.facts import QemuMissing, probe

    try:
        asyncio.run(probe())
    except QemuMissing as problem:
        return str(problem)
    return None
