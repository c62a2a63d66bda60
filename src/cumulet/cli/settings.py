"""`cumulet settings`: each setting with its meaning, its default, and where it was set; itself a configuration file."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import msgspec

from cumulet.cli.configuration import DEFAULT_FILE, Described, Given, SettingType, described, from_file, merged

WIDTH = 118


@click.command(short_help="Every setting with its meaning, its default, and where it was set.")
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help=f"The file that `cumulet up` would be given.  [default: {DEFAULT_FILE}, if there is one]",
)
@click.option("--set", "sets", type=SettingType(), multiple=True, help="As of `cumulet up`.")
def settings(config: Path | None, sets: tuple[tuple[str, object], ...]) -> None:
    """Show every setting: what it means, its default, its value where one is set, and where that was.

    The output is itself a configuration file, with what is not set commented out:

    \b
        cumulet settings > /etc/cumulet/cumulet.toml
    """
    given = merged(options={}, sets=sets, file=from_file(config))
    click.echo("\n\n".join("\n".join(_lines(name, one, given.get(name))) for name, one in described().items()))


def _lines(name: str, known: Described, given: Given | None) -> Iterator[str]:
    for line in textwrap.wrap(known.meaning, WIDTH):
        yield f"# {line}"
    if given is None:
        yield f"# {name} = {_shown(name, known.default)}"
        return
    yield f"# default: {_shown(name, known.default)}; set by {given.where}"
    yield f"{name} = {_shown(name, given.value)}"


def _shown(name: str, value: Any) -> str:
    from cumulet.web.log import redact

    match value:
        case None:
            return "(none)"
        case bool():
            return str(value).lower()
        case dict():
            return "{ " + ", ".join(f"{host} = {_shown(name, place)}" for host, place in value.items()) + " }"
        case str() | Path():
            return msgspec.json.encode(redact(str(value))).decode()  # A string of TOML, escapes and all.
        case int() | float():
            return str(value)
    at = "" if value.namespace is None else f"@{value.namespace}"
    return msgspec.json.encode(f"{value.address}{at}").decode()
