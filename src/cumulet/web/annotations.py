"""What a body or query class may say about its attributes; `web.schema` explains each."""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Literal, dataclass_transform

import msgspec


class Since(msgspec.Struct, frozen=True):
    version: str


class Until(msgspec.Struct, frozen=True):
    version: str
    required: bool = False


class Required(msgspec.Struct, frozen=True, kw_only=True):
    since: str | None = None
    until: str | None = None


class Key(msgspec.Struct, frozen=True):
    name: str


class Json(msgspec.Struct, frozen=True, eq=False):
    keywords: Mapping[str, object]


class Versions:
    """Another type from a microversion on: ``Versions(("2.1", T1), ("2.25", T2))``, in ascending order."""

    __slots__ = ("types",)

    def __init__(self, *types: tuple[str, object]) -> None:
        self.types = types


class Convert(msgspec.Struct, frozen=True, eq=False):
    function: Callable[[object], object]


class Single(msgspec.Struct, frozen=True):
    """A query parameter that may not be repeated."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What a class statement may say about all of a body or query: ``class X(Body, extra="allow")``."""

    extra: Literal["forbid", "allow"] = "forbid"
    min_properties: int | None = None
    max_properties: int | None = None
    secret: bool = False
    nullable: bool = False
    most_values: int | None = None
    """How many values its JSON may have, where that is more than of other bodies (`json_reader.MOST_VALUES`). Its
    operation's rules are asked before it is read."""
    accepts: tuple[str, ...] = ("object",)
    """The JSON types that a value may have; () takes any."""
    closed_since: str | None = None
    ignored: str | None = None
    """Pattern of unknown names that stay allowed in a closed query."""


class Declared(msgspec.StructMeta):
    """Makes bodies and queries: frozen structs with keyword-only attributes, and their `Options`.

    A start makes more than a hundred of them, and making a dataclass takes Python forty times as long.
    """

    _options: Options

    def __new__(
        cls,
        name: str,
        bases: tuple[type, ...],
        namespace: dict[str, Any],
        *,
        frozen: bool = True,
        kw_only: bool = True,
        **options: Any,
    ) -> Declared:
        made = super().__new__(cls, name, bases, namespace, frozen=frozen, kw_only=kw_only)
        if options:
            made._options = msgspec.structs.replace(made._options, **options)
        return made


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(msgspec.field,))
class Body(msgspec.Struct, frozen=True, kw_only=True, metaclass=Declared):
    """Base of bodies."""

    _options: ClassVar[Options] = Options()
    extra: Mapping[str, Any] = types.MappingProxyType({})
    """What the caller sent beyond the declared attributes, with ``extra="allow"``."""


class Empty(Body, accepts=("null", "object")):
    """No content: the body, or an action's value, is absent, null or {}."""


class Anything(Empty, accepts=()):
    """Any value, which is ignored: Nova takes that for actions such as ``{"os-start": null}``."""


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(msgspec.field,))
class Query(msgspec.Struct, frozen=True, kw_only=True, metaclass=Declared):
    """Base of query parameter classes; unknown names are ignored unless `closed_since` says otherwise."""

    _options: ClassVar[Options] = Options(extra="allow")


@functools.cache
def declared(cls: type) -> tuple[msgspec.structs.FieldInfo, ...]:
    """The attributes a body or query class declares, each with its resolved annotation as `type`."""
    return tuple(field for field in msgspec.structs.fields(cls) if field.name != "extra")


TRUE_WORDS = (True, "True", "TRUE", "true", "1", "ON", "On", "on", "YES", "Yes", "yes")
FALSE_WORDS = (False, "False", "FALSE", "false", "0", "OFF", "Off", "off", "NO", "No", "no")


def loose_bool(value: object) -> bool:
    """Nova's spellings of true and false."""
    if value is True or (isinstance(value, str) and value in TRUE_WORDS):
        return True
    if value is False or (isinstance(value, str) and value in FALSE_WORDS):
        return False
    raise ValueError(f"{value!r} is not one of {[*TRUE_WORDS, *FALSE_WORDS]!r}")


LooseBool = Annotated[
    bool, Json({"type": ["boolean", "string"], "enum": [*TRUE_WORDS, *FALSE_WORDS]}), Convert(loose_bool)
]
"""A boolean, or one of the words Nova takes for one."""


LARGEST_INTEGER = 2**63 - 1
"""The largest integer that a database keeps. A request with a larger one is refused."""


def bounded(number: int) -> int:
    if abs(number) > LARGEST_INTEGER:
        raise ValueError(f"{number!r} is beyond {LARGEST_INTEGER} from 0")
    return number


def strict_integer(value: Any) -> int:
    """Refuse 1.0, which JSON schema takes for an integer: code that expects an int would get a float."""
    if isinstance(value, float):
        raise ValueError(f"{value!r} is not of type 'integer'")
    return bounded(value) if isinstance(value, int) else value


def integer_text(minimum: int, maximum: int | None = None) -> Any:
    """The type of an integer that may be written as a string of digits, as Nova allows in most places."""

    def convert(value: object) -> int:
        number = bounded(int(strict_integer(value)))
        if number < minimum:
            raise ValueError(f"{value!r} is less than the minimum of {minimum}")
        if maximum is not None and number > maximum:
            raise ValueError(f"{value!r} is greater than the maximum of {maximum}")
        return number

    keywords: dict[str, object] = {"type": ["integer", "string"], "minimum": minimum}
    keywords |= {"pattern": "^-?[0-9]+$" if minimum < 0 else "^[0-9]*$", "minLength": 1, "maxLength": 20}
    if maximum is not None:
        keywords["maximum"] = maximum
    return Annotated[int, Json(keywords), Convert(convert)]


if typing.TYPE_CHECKING:
    PositiveInteger = int
    NonNegativeInteger = int
else:
    PositiveInteger = integer_text(1)
    NonNegativeInteger = integer_text(0)
