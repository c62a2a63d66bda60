"""What domains, projects, users and roles share: the option `immutable`, and attributes of any name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from cumulet.errors import Forbidden
from cumulet.web.schema import UNSET, Body, Json, Unset

Options = Annotated[
    dict[str, object], Json({"properties": {"immutable": {"type": ["boolean", "null"]}}, "additionalProperties": False})
]


_IMMUTABLE = 'Unable to {} immutable {} resource: `{}. Set resource option "immutable" to false first.'


def refuse_update_of_immutable(
    options: Mapping[str, object], wanted: Mapping[str, object] | Unset, kind: str, identifier: str
) -> None:
    """Refuse a change of something immutable, unless the same change makes it mutable."""
    releases = wanted is not UNSET and wanted.get("immutable", True) in (False, None)
    if options.get("immutable") and not releases:
        raise Forbidden(_IMMUTABLE.format("update", kind, identifier))


def refuse_delete_of_immutable(options: Mapping[str, object], kind: str, identifier: str) -> None:
    if options.get("immutable"):
        raise Forbidden(_IMMUTABLE.format("delete", kind, identifier))


def given_extra(body: Body, **more: object) -> dict[str, object]:
    """Attributes under names that Identity does not know, as upstream keeps them; `more` where it was given."""
    kept = {name: value for name, value in body.extra.items() if name not in ("id", "links")}
    return kept | {name: value for name, value in more.items() if value is not UNSET}
