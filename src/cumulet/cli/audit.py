"""`cumulet audit`: checks that the audit trail was not changed."""

from __future__ import annotations

import re
from pathlib import Path

import click

from cumulet.cli import state_folder


@click.group(short_help="Check the audit trail.")
def audit() -> None:
    """Check the audit trail, in which every change and every refusal is a line."""


@audit.command(short_help="Say whether the audit trail is whole.")
@click.option(
    "--state",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="The cloud's state folder.  [default: ~/.local/state/cumulet]",
)
@click.option(
    "--head",
    "noted",
    metavar="NUMBER:CODE",
    help="What this command said earlier and somebody noted elsewhere: the trail must have gone on from there.",
)
def verify(state: Path | None, noted: str | None) -> None:
    """Say whether a line of the audit trail was changed, taken out, put in or cut off, and where it ends.

    Whoever owns the state folder has the key too. Against them, note the head that is printed on another machine and
    show it with --head the next time.
    """
    from cumulet.owned import Exposed
    from cumulet.web.audit import Broken, Head
    from cumulet.web.audit import verify as verify_chain

    head = None
    if noted is not None:
        if re.fullmatch(r"[0-9]{1,18}:[0-9a-f]{64}", noted, re.ASCII) is None:
            raise click.BadParameter("it is NUMBER:CODE, as this command prints it", param_hint="--head")
        number, _, code = noted.partition(":")
        head = Head(number=int(number), code=code)
    path = (state or state_folder.default()).absolute() / "audit.jsonl"
    try:
        found = verify_chain(path, head)
    except Broken as broken:
        raise click.ClickException(f"the audit trail {path} is broken: {broken}") from None
    except Exposed as exposed:
        raise click.ClickException(str(exposed)) from None
    except OSError as error:
        raise click.ClickException(f"cannot read the audit trail: {error.filename}: {error.strerror}") from None
    print(f"whole: {found.number} lines; head {found}")
