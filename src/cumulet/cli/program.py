"""The `cumulet` program: its commands, each imported only when it is run, and its exit statuses (0, 1, 2)."""

from __future__ import annotations

import importlib
import sys

import click

COMMANDS = {
    "up": ("cumulet.cli.up:up", "Run a whole cloud in the foreground."),
    "demo": ("cumulet.cli.demo.command:demo", "Show the main job: two servers, one live migration, many refusals."),
    "doctor": ("cumulet.cli.doctor:doctor", "What this machine can do, and what to do about what it can't."),
    "settings": ("cumulet.cli.settings:settings", "Every setting with its meaning, its default, and where it was set."),
    "console": ("cumulet.cli.console:console", "Attach this terminal to a server's serial console."),
    "status": ("cumulet.cli.status:status", "Hosts, servers, running operations, and stuck ones with their cause."),
    "explain-path": (
        "cumulet.cli.explain_path:explain_path",
        "What becomes of a packet, hop by hop, and by which rule.",
    ),
    "enter": ("cumulet.cli.namespaces:enter", "Run a command in the network of a cloud that runs without root."),
    "image": ("cumulet.cli.image:image", "Build an image of a full system from Debian's packages."),
    "env": ("cumulet.cli.env:env", "What a shell and other clients need to use a cloud."),
    "backup": ("cumulet.cli.backup:backup", "Save a cloud to one file, while it runs or not."),
    "restore": ("cumulet.cli.backup:restore", "Make a state folder from such a file."),
    "audit": ("cumulet.cli.audit:audit", "Check that the audit trail is as it was written."),
    "api": ("cumulet.cli.fleet:api", "Serve a cloud's API, as one of several."),
    "conductor": ("cumulet.cli.fleet:conductor", "Carry a cloud's long operations, as one of several."),
    "database": ("cumulet.cli.database:database", "Copy a cloud from SQLite to PostgreSQL."),
    "bus": ("cumulet.cli.fleet:bus", "Run a NATS server for a cloud's hosts on other machines."),
    "agent": ("cumulet.cli.agent:agent", "Run the agent of this machine, as a host of a cloud."),
    "host": ("cumulet.cli.host:host", "Add machines to a cloud as its hosts, and remove them."),
}


class Program(click.Group):
    """A group whose commands are imported when they are run: `cumulet up` must not pay for `cumulet demo`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"{module}:{attribute} is no command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])


@click.command(cls=Program, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="cumulet", prog_name="cumulet", message="%(prog)s %(version)s")
def program() -> None:
    """A small, honest, secure cloud whose servers move safely. It speaks the OpenStack APIs.

    \b
    Start here:
        cumulet demo                      see it work, in under a minute
        cumulet up                        a cloud of your own, until Ctrl-C
        export OS_CLOUD=cumulet           then use the openstack client (see `cumulet up --help`)
    """


def run(arguments: list[str]) -> int:
    """Run the program: 0 if all went well, 2 for bad arguments, 1 for anything else. Errors are one clear line."""
    try:
        result = program.main(args=arguments, prog_name="cumulet", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        # `cumulet` alone shows the commands and fails, so that a script without a command does not go on.
        print(error.format_message(), file=sys.stderr)
        return 2
    except click.ClickException as error:
        print(f"cumulet: error: {error.format_message()}", file=sys.stderr)
        return error.exit_code
    except click.Abort:
        print("cumulet: interrupted", file=sys.stderr)
        return 1
    return result if isinstance(result, int) else 0
