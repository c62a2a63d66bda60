"""`cumulet env`: environment variables for a shell, and for clients that do not read clouds.yaml."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import click

from cumulet.cli.entry import Entry, cloud_option, clouds_file_option, entry_of

STALE = (
    "OS_CLOUD",
    "OS_TOKEN",
    "OS_USER_ID",
    "OS_PROJECT_ID",
    "OS_TENANT_ID",
    "OS_TENANT_NAME",
    "OS_DOMAIN_ID",
    "OS_DOMAIN_NAME",
    "OS_SYSTEM_SCOPE",
    "OS_TRUST_ID",
    "OS_APPLICATION_CREDENTIAL_ID",
    "OS_APPLICATION_CREDENTIAL_NAME",
    "OS_APPLICATION_CREDENTIAL_SECRET",
)
"""Variables that another cloud's file may have left in a shell and that would override user and project."""


@click.command(short_help="What a shell and other clients need to use a cloud.")
@clouds_file_option
@cloud_option(default="demo")
@click.option(
    "--format",
    "form",
    type=click.Choice(["sh", "fish", "dotenv", "json"]),
    default="sh",
    show_default=True,
    help="sh: bash, zsh and all that read `export`; dotenv: NAME=VALUE lines, as for `docker run --env-file`.",
)
def env(clouds_file: Path | None, cloud: str, form: str) -> None:
    """Print the variables that clients read. They hold a password: do not keep the output where others can read it.

    \b
        eval "$(cumulet env)"                  this shell is the demo user's
        eval "$(cumulet env --cloud cumulet)"  this shell is the administrator's

    OS_* is for the openstack client, openstacksdk, Ansible, Terraform, OpenTofu and gophercloud, and OS_CACERT
    tells them whom to trust. REQUESTS_CA_BUNDLE and CURL_CA_BUNDLE are for Python programs that use requests, and curl.
    """
    click.echo(_written(form, variables(entry_of(clouds_file, cloud))))


def variables(entry: Entry) -> dict[str, str]:
    """Names and values, in the order they are printed."""
    credentials, authority = entry.credentials, entry.authority
    found = {
        "OS_AUTH_URL": credentials.auth_url,
        "OS_IDENTITY_API_VERSION": "3",
        "OS_AUTH_TYPE": "password",
        "OS_USERNAME": credentials.user,
        "OS_PASSWORD": credentials.password,
        "OS_USER_DOMAIN_NAME": credentials.user_domain,
        "OS_PROJECT_NAME": credentials.project,
        "OS_PROJECT_DOMAIN_NAME": credentials.project_domain,
        "OS_REGION_NAME": "RegionOne",
        "OS_INTERFACE": "public",
        "OS_CLIENT_CONFIG_FILE": str(entry.file.absolute()),
    }
    if authority is not None:
        found |= dict.fromkeys(("OS_CACERT", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"), str(authority))
    return found


def _written(form: str, found: dict[str, str]) -> str:
    match form:
        case "json":
            return json.dumps(found, indent=2)
        case "dotenv":
            return "\n".join(f"{name}={value}" for name, value in found.items())
        case "fish":
            return "\n".join(
                [f"set -e {name}" for name in STALE]
                + [f"set -gx {name} {_fish(value)}" for name, value in found.items()]
            )
    return "\n".join(
        [f"unset {' '.join(STALE)}"] + [f"export {name}={shlex.quote(value)}" for name, value in found.items()]
    )


def _fish(value: str) -> str:
    """Quote for fish. Within single quotes it has two escapes: the quote and the backslash."""
    quoted = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{quoted}'"
