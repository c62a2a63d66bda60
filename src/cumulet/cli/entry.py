"""The entry of a clouds.yaml that a command uses: its options, and logging in with it. Errors are one line."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cumulet.cli import state_folder

if TYPE_CHECKING:
    from cumulet.cli.client import Credentials, Persona

clouds_file_option = click.option(
    "--clouds-file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="The clouds.yaml that `cumulet up` wrote.  [default: $OS_CLIENT_CONFIG_FILE, else that in your state folder]",
)


def cloud_option(
    default: str = "cumulet", words: str = "Which entry of it.", *, variable: str | None = None
) -> Callable[[Any], Any]:
    """`variable`: of the environment, which names the entry where the option does not."""
    return click.option(
        "--cloud", default=default, show_default=True, help=words, envvar=variable, show_envvar=variable is not None
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """`authority`: the file of the CA to trust; None: the system's authorities."""

    file: Path
    name: str
    credentials: Credentials
    authority: Path | None


def entry_of(clouds_file: Path | None, cloud: str) -> Entry:
    """Read the entry. Raises click.ClickException."""
    from cumulet.cli.client import credentials_of

    path = clouds_file or Path(os.environ.get("OS_CLIENT_CONFIG_FILE") or state_folder.default() / "clouds.yaml")
    try:
        credentials, authority = credentials_of(path, cloud)
    except OSError as error:
        words = f"{path}: {error.strerror}: start a cloud with `cumulet up`, or name its file"
        raise click.ClickException(words) from error
    except (KeyError, TypeError, ValueError) as error:
        raise click.ClickException(f"{path} has no usable entry `{cloud}`") from error
    return Entry(file=path, name=cloud, credentials=credentials, authority=authority)


@contextlib.contextmanager
def logged_in(entry: Entry) -> Iterator[Persona]:
    """Log in. Raises click.ClickException, also for an unexpected answer of the cloud inside the block."""
    import httpx

    from cumulet.cli.client import Unexpected, https, log_in

    url = entry.credentials.auth_url
    try:
        with https(url.rsplit("/identity", 1)[0], entry.authority) as http:
            yield log_in(http, f"{entry.credentials.user} (entry {entry.name} of {entry.file})", entry.credentials)
    except httpx.TransportError as error:
        raise click.ClickException(f"no cloud answers at {url}: {error}; is `cumulet up` running?") from error
    except Unexpected as error:
        raise click.ClickException(str(error)) from error
