"""/domains/{domain_id}/config: options of one domain. There are two: users come from this database (`identity.driver`,
always ``sql``), and how long a list of a domain's users or groups may be (`identity.list_limit`).

Upstream keeps options of LDAP too, and by default reads none of them. Here an option without effect is refused.
"""

from __future__ import annotations

from typing import Annotated

from sqlalchemy import JSON, Column, ForeignKey, Table, Text, delete, insert, select

from cumulet.db.engine import Row, Tx, metadata
from cumulet.errors import BadRequest, Forbidden, NotFound, NotYet
from cumulet.identity import store
from cumulet.identity.api import (
    ADMIN,
    ADMIN_OR_SYSTEM_READER,
    ANYWHERE,
    DEFAULT_DOMAIN_ID,
    IDENTITY,
    NOT_DOMAIN,
    known,
)
from cumulet.identity.listing import filtered, page
from cumulet.web.operation import Call, Reply, Rule
from cumulet.web.policy import rule
from cumulet.web.schema import Body, Json

domain_options = Table(
    "identity_domain_options",
    metadata,
    Column("domain_id", Text, ForeignKey(store.domains.c.id, ondelete="CASCADE"), primary_key=True),
    Column("group", Text, primary_key=True),
    Column("option", Text, primary_key=True),
    Column("value", JSON, nullable=False),
)

GET = rule("identity:get_domain_config", ADMIN_OR_SYSTEM_READER, scope=NOT_DOMAIN)
GET_DEFAULT = rule("identity:get_domain_config_default", ADMIN_OR_SYSTEM_READER, scope=NOT_DOMAIN)
GET_COMPLIANCE = rule("identity:get_security_compliance_domain_config", "", scope=ANYWHERE)
CREATE = rule("identity:create_domain_config", ADMIN, scope=NOT_DOMAIN)
UPDATE = rule("identity:update_domain_config", ADMIN, scope=NOT_DOMAIN)
DELETE = rule("identity:delete_domain_config", ADMIN, scope=NOT_DOMAIN)

DEFAULTS: dict[str, dict[str, object]] = {"identity": {"driver": "sql", "list_limit": None}}
COMPLIANCE = ("password_regex", "password_regex_description")
"""Settings of the cloud that everybody may read: what new passwords must match."""
_ELSEWHERE = ("ldap",)

CONFIG = "/domains/{domain_id}/config"
GROUP = f"{CONFIG}/{{group}}"
OPTION = f"{GROUP}/{{option}}"

Options = Annotated[dict[str, object], Json({"maxProperties": 64})]


class Given(Body):
    config: Options


def page_of_domain(call: Call[object, object], table: Table) -> tuple[list[Row], str | None]:
    """A page of users or groups and the next marker, as `page`. With a token for a domain: those of that domain. It has
    at most the domain's `list_limit`."""
    own, statement = call.caller.domain_id, filtered(call, select(table))
    if own:
        statement = statement.where(table.c.domain_id == own)
    return page(call, statement, table, _list_limit(call.tx, own or call.query.get("domain_id")))


def _list_limit(tx: Tx, domain_id: str | None) -> int | None:
    """How many users or groups of a domain a list has at most; None: the cloud's `largest_page`."""
    if domain_id is None:
        return None
    o = domain_options.c
    row = tx.first(select(o.value).where(o.domain_id == domain_id, o.group == "identity", o.option == "list_limit"))
    return row.value if row is not None else None


def _domain(call: Call[object, object]) -> str:
    identifier = call.path["domain_id"]
    return known(store.domain_by_id(call.tx, identifier), "domain", identifier).id


def _stored(call: Call[object, object], domain_id: str) -> dict[str, dict[str, object]]:
    """The options that are set, of the group or option in the path; 404 where there are none."""
    found: dict[str, dict[str, object]] = {}
    o, group, option = domain_options.c, call.path.get("group"), call.path.get("option")
    for row in call.tx.all(select(domain_options).where(o.domain_id == domain_id).order_by(o.group, o.option)):
        if group in (None, row.group) and option in (None, row.option):
            found.setdefault(row.group, {})[row.option] = row.value
    if not found:
        named = " ".join(part for part in (group, option) if part)
        raise NotFound(f"Could not find {named or 'any options'} in domain configuration for domain {domain_id}.")
    return found


def _checked(config: dict[str, object]) -> dict[str, dict[str, object]]:
    """Refuse groups and options that are unknown, and values that would have no effect."""
    if not config:
        raise BadRequest("Invalid domain specific configuration: No options specified.")
    checked: dict[str, dict[str, object]] = {}
    for group, options in config.items():
        _require_known(group, None)
        if not options or not isinstance(options, dict):
            raise BadRequest(
                f"Invalid domain specific configuration: The value of group {group} specified in the config should be "
                "a dictionary of options."
            )
        for option, value in options.items():
            _require_known(group, option)
            _require_effect(option, value)
        checked[group] = options
    return checked


def _require_known(group: str, option: str | None) -> None:
    if group in _ELSEWHERE:
        raise NotYet("Users from LDAP are not available yet.")
    if group not in DEFAULTS or (option is not None and option not in DEFAULTS[group]):
        named = f"Option {option} in group {group}" if option is not None else f"Group {group}"
        raise Forbidden(
            f"Invalid domain specific configuration: {named[:400]} is not supported for domain specific configurations."
        )


def _require_effect(option: str, value: object) -> None:
    if option == "driver" and value != "sql":
        raise NotYet("Users come from this cloud's database only: the driver is sql.")
    number = isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 1_000_000
    if option == "list_limit" and not number:
        raise BadRequest("Invalid domain specific configuration: list_limit is a number from 1 to 1000000.")


def _store(call: Call[object, object], domain_id: str, config: dict[str, dict[str, object]]) -> None:
    o = domain_options.c
    for group, options in config.items():
        for option, value in options.items():
            key = {"domain_id": domain_id, "group": group, "option": option}
            call.tx.execute(delete(domain_options).where(*(o[name] == part for name, part in key.items())))
            call.tx.execute(insert(domain_options).values(**key, value=value))


def _shown(call: Call[object, object], found: dict[str, dict[str, object]]) -> dict[str, object]:
    """For one option: the option without its group, as upstream."""
    group, option = call.path.get("group"), call.path.get("option")
    return {"config": {option: found[group][option]} if group is not None and option is not None else found}


@IDENTITY.operation("PUT", CONFIG, rules=(Rule(CREATE),), body=Given)
def create_domain_config(call: Call[None, Given]) -> Reply:
    """Set a domain's options, in place of those it had."""
    domain_id, config = _domain(call), _checked(call.body.config)
    there = call.tx.first(select(domain_options).where(domain_options.c.domain_id == domain_id)) is not None
    call.tx.execute(delete(domain_options).where(domain_options.c.domain_id == domain_id))
    _store(call, domain_id, config)
    return Reply(body={"config": _stored(call, domain_id)}, status=200 if there else 201)


def _declare(path: str) -> None:
    """The operations on all options, on those of a group, or on one. They differ only in the path."""
    option, group = "{option}" in path, "{group}" in path

    if not group:

        @IDENTITY.operation("GET", path, rules=(Rule(GET),))
        def show_domain_config(call: Call[None, None]) -> dict[str, object]:
            """Show a domain's options."""
            return _shown(call, _stored(call, _domain(call)))

    else:

        @IDENTITY.operation("GET", path, rules=())
        def show_domain_options(call: Call[None, None]) -> dict[str, object]:
            """Show a domain's options. Everybody may read what passwords must match."""
            if call.path["group"] == "security_compliance":
                return _compliance(call)
            call.require(GET)
            _require_known(call.path["group"], call.path.get("option"))
            return _shown(call, _stored(call, _domain(call)))

    @IDENTITY.operation("PATCH", path, rules=(Rule(UPDATE),), body=Given)
    def update_domain_config(call: Call[None, Given]) -> dict[str, object]:
        """Change a domain's options."""
        domain_id, config = _domain(call), call.body.config
        if option:
            if list(config) != [call.path["option"]]:
                raise BadRequest("Invalid domain specific configuration: the option must be the one in the path.")
            config = {call.path["group"]: config}
        elif group and list(config) != [call.path["group"]]:
            raise BadRequest("Invalid domain specific configuration: the group must be the one in the path.")
        checked = _checked(config)
        _stored(call, domain_id)
        _store(call, domain_id, checked)
        every = domain_options.c.domain_id == domain_id
        found: dict[str, dict[str, object]] = {}
        for row in call.tx.all(select(domain_options).where(every)):
            found.setdefault(row.group, {})[row.option] = row.value
        return {"config": found}

    @IDENTITY.operation("DELETE", path, rules=(Rule(DELETE),), success=204)
    def delete_domain_config(call: Call[None, None]) -> None:
        """Delete a domain's options: the defaults apply again."""
        domain_id, o = _domain(call), domain_options.c
        for name, options in _stored(call, domain_id).items():
            mine = delete(domain_options).where(o.domain_id == domain_id, o.group == name, o.option.in_(options))
            call.tx.execute(mine)


_declare(CONFIG)
_declare(GROUP)
_declare(OPTION)


def _compliance(call: Call[object, object]) -> dict[str, object]:
    call.require(GET_COMPLIANCE)
    if _domain(call) != DEFAULT_DOMAIN_ID:
        raise Forbidden(
            "Reading security compliance information for any domain other than the default domain is not allowed or "
            "supported."
        )
    settings = call.cloud.settings
    found = {name: getattr(settings, name) or None for name in COMPLIANCE}
    option = call.path.get("option")
    if option is None:
        return {"config": {"security_compliance": found}}
    if option not in found:
        raise Forbidden("Reading security compliance values other than password_regex and its description is refused.")
    return {"config": {option: found[option]}}


@IDENTITY.operation("GET", "/domains/config/default", rules=(Rule(GET_DEFAULT),))
def show_default_config(call: Call[None, None]) -> dict[str, object]:
    """Show the defaults of domains' options."""
    return {"config": DEFAULTS}


@IDENTITY.operation("GET", "/domains/config/{group}/default", rules=(Rule(GET_DEFAULT),))
def show_default_group(call: Call[None, None]) -> dict[str, object]:
    """Show the defaults of the options of one group."""
    _require_known(call.path["group"], None)
    return {"config": {call.path["group"]: DEFAULTS[call.path["group"]]}}


@IDENTITY.operation("GET", "/domains/config/{group}/{option}/default", rules=(Rule(GET_DEFAULT),))
def show_default_option(call: Call[None, None]) -> dict[str, object]:
    """Show the default of one option."""
    group, option = call.path["group"], call.path["option"]
    _require_known(group, option)
    return {"config": {option: DEFAULTS[group][option]}}
