"""Bodies and queries are annotated classes; the JSON schema of every microversion is derived from them.

    class MigrateLive(Body):
        host: Annotated[str | None, HOST_NAME]
        block_migration: ...
        force: Annotated[LooseBool, Since("2.30"), Until("2.67")] = False

Metadata for `Annotated`:
    Since("2.30"), Until("2.67")  the attribute exists only in these microversions (others refuse it: 400)
    Required(since=, until=)      required in this range although the class has a default
    Key("OS-DCF:diskConfig")      the JSON name, where it is no identifier
    Json({...})                   further JSON schema keywords (pattern, maxLength...), merged over the derived ones
    Versions(("2.1", T1), ("2.25", T2))   another type from a microversion on
    Convert(fn)                   value -> attribute, after validation, not for null (may raise ValueError -> 400)
    Single()                      a query parameter that may be given only once
An attribute without default is required; `UNSET` (of type `Unset`) as default tells "absent" from null.
An attribute that a microversion does not have gets its default, or UNSET where it has none.
Each is a frozen msgspec struct with keyword-only attributes, without saying so.
`Body` subclasses refuse unknown keys (`class X(Body, extra="allow")` keeps them in `.extra`); `min_properties`,
`max_properties`, `most_values`, `secret=True` (no value of the body is ever echoed) and `nullable=True` (null counts
as {}) likewise.
Query classes derive from `Query`: a name may repeat on the wire; a plain type takes the last, `list[T]` takes all.
`class Q(Query, closed_since="2.75")` refuses unknown names from a microversion on (`closed_since="2.1"`: always).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType

from cumulet.web.annotations import (
    Anything,
    Body,
    Convert,
    Empty,
    Json,
    Key,
    LooseBool,
    NonNegativeInteger,
    PositiveInteger,
    Query,
    Required,
    Since,
    Single,
    Until,
    Versions,
    integer_text,
    loose_bool,
)
from cumulet.web.boundaries import boundaries
from cumulet.web.operation import Microversion
from cumulet.web.query_shapes import query_shape
from cumulet.web.refusals import errors_of, last_values, refuse_body, refuse_parameter, refuse_query, refuse_value
from cumulet.web.shapes import Unconverted, class_shape, validator_of

Unset = UnsetType
__all__ = [
    "UNSET", "Anything", "Body", "Convert", "Empty", "Json", "Key", "LooseBool", "NonNegativeInteger", "Plan",
    "PositiveInteger", "Query", "Required", "Since", "Single", "Unset", "UnsetType", "Until", "Versions", "boundaries",
    "integer_text", "json_schema", "loose_bool", "most_values_of", "plan",
]  # fmt: skip


class Plan(msgspec.Struct, frozen=True, eq=False):
    """A class at one microversion: how to check a value, and how to make the instance."""

    schema: dict[str, Any]
    validator: Any
    build: Callable[[Any], Any]
    secret: bool

    def read(self, value: object, envelope: str | None) -> Any:
        """The instance for a body's value; `envelope` is the key it stood under, for messages."""
        if not self.validator.is_valid(value):
            raise refuse_body(self.schema, value, errors_of(self.validator, value), envelope, secret=self.secret)
        try:
            return self.build(value)
        except Unconverted as refused:
            field = envelope if refused.field is None else refused.field
            raise refuse_value(field, refused.value, refused.reason, secret=self.secret) from None

    def read_query(self, pairs: list[tuple[str, str]]) -> Any:
        values = last_values(pairs)
        if not self.validator.is_valid(values):
            raise refuse_query(self.schema, self.validator.iter_errors(values))
        try:
            return self.build(values)
        except Unconverted as refused:
            raise refuse_parameter(refused.field, refused.value, refused.reason) from None


_plans: dict[tuple[type, Microversion], Plan] = {}
_compiled: dict[tuple[type, int], Plan] = {}


def plan(cls: type, version: Microversion) -> Plan:
    """The compiled plan of `cls` at `version`; made at first use, shared by all versions between two boundaries."""
    found = _plans.get((cls, version))
    if found is None:
        interval = sum(boundary <= version for boundary in boundaries(cls))
        found = _compiled.get((cls, interval))
        if found is None:
            found = _compiled[cls, interval] = _compile(cls, version)
        _plans[cls, version] = found
    return found


def most_values_of(cls: type) -> int | None:
    """How many values a body of this class may have. None: as many as most."""
    most: int | None = cls._options.most_values  # type: ignore[attr-defined]
    return most


def json_schema(cls: type, version: Microversion) -> dict[str, Any]:
    """The JSON schema (2020-12) of `cls` at `version`."""
    return plan(cls, version).schema


def _compile(cls: type, version: Microversion) -> Plan:
    shape = query_shape(cls, version) if issubclass(cls, Query) else class_shape(cls, version)
    secret: bool = cls._options.secret  # type: ignore[attr-defined]
    return Plan(shape.schema, validator_of(shape.schema), shape.build or (lambda value: value), secret)
