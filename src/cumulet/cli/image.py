"""`cumulet image build debian`: an image of a full system, built here from Debian's packages."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cumulet.cli.entry import cloud_option, clouds_file_option, entry_of, logged_in
from cumulet.cli.not_here import in_existing_folder

if TYPE_CHECKING:
    from cumulet.cli.client import Persona

PIECE_BYTES = 1 << 20
LEAST_MEMORY_MIB = 512


@click.group(short_help="Build an image of a full system.")
def image() -> None:
    """Images that servers are made from. What is there, and what is uploaded: `openstack image`."""


@image.command(short_help="Build one from Debian's packages.")
@click.argument("system", type=click.Choice(["debian"]))
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    callback=in_existing_folder,
    help="Leave the image here (qcow2). It must not be there yet.  [default: debian.qcow2]",
)
@click.option("--upload", "name", metavar="NAME", help="Bring it to a cloud's Image service, under this name.")
@click.option("--package", "packages", multiple=True, metavar="NAME", help="One more package; may be repeated.")
@click.option("--mirror", metavar="URL", help="Where packages come from.  [default: deb.debian.org]")
@clouds_file_option
@cloud_option()
def build(
    system: str,
    output: Path | None,
    name: str | None,
    packages: tuple[str, ...],
    mirror: str | None,
    clouds_file: Path | None,
    cloud: str,
) -> None:
    """Build an image of Debian with sshd and cloud-init, of about 180 MB, from Debian's packages alone.

    It takes some minutes, 3 GiB of room beside FILE, and the Debian packages mmdebstrap, e2fsprogs, tar, qemu-utils,
    grub-common and grub-pc-bin; without root also uidmap, and 65535 users of yours in /etc/subuid and /etc/subgid.
    Nothing is mounted, and nothing is installed on this machine. Servers log in with their key, as user `debian`:

    \b
        cumulet image build debian --upload debian
        openstack server create --image debian --flavor m1.small --key-name mine --network private one
    """
    from cumulet.image import debian

    target = (output or Path(f"{system}.qcow2")).absolute()
    _refuse(target, packages, mirror)
    entry = None if name is None else entry_of(clouds_file, cloud)
    began = time.monotonic()
    try:
        debian.build(target, more=packages, mirror=mirror, progress=click.echo)
    except debian.CannotBuild as problem:
        raise click.ClickException(str(problem)) from None
    click.echo(f"{target}: {target.stat().st_size / 1e6:.0f} MB, in {time.monotonic() - began:.0f} s")
    if entry is not None and name is not None:
        with logged_in(entry) as person:
            click.echo(f"image {name} is {_upload(person, target, name)}")


def _refuse(target: Path, packages: tuple[str, ...], mirror: str | None) -> None:
    from cumulet.image.debian import is_package

    if target.exists():
        raise click.BadParameter(f"{target} is there already", param_hint="--output")
    if wrong := [package for package in packages if not is_package(package)]:
        raise click.BadParameter(f"{wrong[0]!r} is no package's name", param_hint="--package")
    if mirror is not None and not mirror.startswith(("http://", "https://")):
        raise click.BadParameter(f"{mirror!r} is no address of a mirror", param_hint="--mirror")


def _upload(person: Persona, file: Path, name: str) -> str:
    """The image's id, once it can be used."""
    from cumulet.image.debian import SIZE_GIB

    described = {"name": name, "disk_format": "qcow2", "container_format": "bare", "os_distro": "debian"}
    asked = described | {"min_disk": SIZE_GIB, "min_ram": LEAST_MEMORY_MIB}
    made: str = person.must("POST", "/image/v2/images", asked)["id"]
    answer = person.http.put(
        f"/image/v2/images/{made}/file",
        content=_pieces(file),
        headers={"X-Auth-Token": person.token or "", "Content-Type": "application/octet-stream"},
    )
    if answer.status_code != 204:
        person.ask("DELETE", f"/image/v2/images/{made}")
        raise click.ClickException(f"the image was not taken: {answer.status_code} {answer.text.strip()[:300]}")
    return made


def _pieces(file: Path) -> Iterator[bytes]:
    with open(file, "rb") as opened:
        while piece := opened.read(PIECE_BYTES):
            yield piece
