"""What a body or query class may say about its attributes; `web.schema` explains each."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal


@dataclass(frozen=True, slots=True)
class Since:
    version: str


@dataclass(frozen=True, slots=True)
class Until:
    version: str
    required: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Required:
    since: str | None = None
    until: str | None = None


@dataclass(frozen=True, slots=True)
class Key:
    name: str


@dataclass(frozen=True, slots=True, eq=False)
class Json:
    keywords: Mapping[str, Any]


class Versions:
    """Another type from a microversion on: ``Versions(("2.1", T1), ("2.25", T2))``, in ascending order."""

    __slots__ = ("types",)

    def __init__(self, *types: tuple[str, Any]) -> None:
        self.types = types


@dataclass(frozen=True, slots=True, eq=False)
class Convert:
    function: Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Single:
    """A query parameter that may not be repeated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    open: bool = False
    min_properties: int | None = None
    max_properties: int | None = None
    secret: bool = False
    closed_since: str | None = None
    ignored: str | None = None
    accepts: tuple[str, ...] = ("object",)


class Body:
    """Base of bodies. Subclasses are dataclasses, frozen and keyword-only."""

    _options: ClassVar[Options] = Options()
    extra: ClassVar[Mapping[str, Any]] = types.MappingProxyType({})
    """What the caller sent beyond the declared attributes, with ``extra="allow"``."""

    def __init_subclass__(
        cls,
        *,
        extra: Literal["forbid", "allow"] | None = None,
        min_properties: int | None = None,
        max_properties: int | None = None,
        secret: bool | None = None,
        nullable: bool | None = None,
    ) -> None:
        super().__init_subclass__()
        changes: dict[str, Any] = {}
        if nullable is not None:
            changes["accepts"] = ("object", "null") if nullable else ("object",)
        if extra is not None:
            changes["open"] = extra == "allow"
        if min_properties is not None:
            changes["min_properties"] = min_properties
        if max_properties is not None:
            changes["max_properties"] = max_properties
        if secret is not None:
            changes["secret"] = secret
        # dataclass(slots=True) makes the class a second time, without these arguments: then the first answer stands.
        cls._options = dataclasses.replace(cls._options, **changes)


@dataclass(frozen=True, kw_only=True)
class Empty(Body):
    """No content: the body, or an action's value, is absent, null or {}."""

    _options: ClassVar[Options] = Options(accepts=("null", "object"))


@dataclass(frozen=True, kw_only=True)
class Anything(Empty):
    """A value that is not looked at: what Nova takes for actions such as ``{"os-start": null}``."""

    _options: ClassVar[Options] = Options(accepts=())


class Query:
    """Base of query parameter classes; unknown names are ignored unless `closed_since` says otherwise."""

    _options: ClassVar[Options] = Options(open=True)

    def __init_subclass__(cls, *, closed_since: str | None = None, ignored: str | None = None) -> None:
        """ignored: pattern of unknown names that stay allowed in a closed query."""
        super().__init_subclass__()
        if closed_since is not None:
            cls._options = dataclasses.replace(cls._options, closed_since=closed_since, ignored=ignored)


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


def strict_integer(value: Any) -> int:
    """JSON schema counts 1.0 as an integer; we do not, nor would Python code that is handed a float."""
    if isinstance(value, float):
        raise ValueError(f"{value!r} is not of type 'integer'")
    return value  # type: ignore[no-any-return]


def integer_text(minimum: int, maximum: int | None = None) -> Any:
    """The type of an integer that may be written as a string of digits, as Nova allows in most places."""

    def convert(value: Any) -> int:
        number = int(strict_integer(value))
        if number < minimum:
            raise ValueError(f"{value!r} is less than the minimum of {minimum}")
        if maximum is not None and number > maximum:
            raise ValueError(f"{value!r} is greater than the maximum of {maximum}")
        return number

    keywords: dict[str, Any] = {"type": ["integer", "string"], "minimum": minimum}
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
