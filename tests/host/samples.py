"""Every verb and every answer of the protocol between control planes and agents, as this version writes them.

    python -m tests.host.samples > tests/golden/protocol/N.json

writes the samples of a version, which later ones must go on to understand (`test_versions_beside_each_other.py`). It
runs on the sources of any commit (``PYTHONPATH``): it knows no verb by name.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
from typing import Any

import msgspec
from msgspec import inspect

import cumulet.host
from cumulet.host import joining
from cumulet.host import messages as m
from cumulet.host.verbs import verbs


def every_verb() -> dict[str, type[m.Message[Any]]]:
    for module in pkgutil.iter_modules(cumulet.host.__path__, "cumulet.host."):
        importlib.import_module(module.name)
    return {m.name_of(verb): verb for verb in verbs() if verb.__module__.startswith("cumulet.")}


def sample(of: inspect.Type, *, full: bool) -> object:
    """A value in JSON's terms. `full`: with all that may be left out, else with nothing that may be."""
    match of:
        case inspect.StructType(fields=fields, tag=tag, tag_field=tag_field):
            known = {field.encode_name: sample(field.type, full=full) for field in fields if full or field.required}
            return ({tag_field: tag} if tag_field else {}) | known
        case inspect.UnionType(types=types):
            if not full and any(isinstance(one, inspect.NoneType) for one in types):
                return None
            return sample(next(one for one in types if not isinstance(one, inspect.NoneType)), full=full)
        case (
            inspect.ListType(item_type=item)
            | inspect.VarTupleType(item_type=item)
            | inspect.CollectionType(item_type=item)
        ):
            return [sample(item, full=full)] if full else []
        case inspect.TupleType(item_types=items):
            return [sample(item, full=full) for item in items]
        case inspect.DictType(key_type=key, value_type=value):
            return {str(sample(key, full=full)): sample(value, full=full)} if full else {}
        case inspect.EnumType(cls=cls):
            return next(iter(cls)).value
        case inspect.LiteralType(values=values):
            return values[0]
        case inspect.BoolType():
            return True
        case inspect.IntType(ge=ge, gt=gt):
            return max(7, ge or 0, (gt or 0) + 1)
        case inspect.FloatType():
            return 1.5
        case inspect.StrType(min_length=shortest):
            return "x" * max(1, shortest or 0)
        case inspect.BytesType():
            return "eA=="
        case inspect.NoneType():
            return None
    raise NotImplementedError(f"no sample of {of}")


def of_verb(verb: type[m.Message[Any]]) -> dict[str, object]:
    asked, answered = inspect.type_info(verb), inspect.type_info(m.answer_type(verb))
    return {
        "least": sample(asked, full=False),
        "most": sample(asked, full=True),
        "least_answered": sample(answered, full=False),
        "most_answered": sample(answered, full=True),
    }


def of_joining() -> dict[str, dict[str, object]]:
    """What is said over HTTPS, by name of its class."""
    said = [one for one in vars(joining).values() if isinstance(one, type) and one.__module__ == joining.__name__]
    found = [one for one in said if issubclass(one, msgspec.Struct) and not one.__name__.startswith("_")]
    return {
        one.__name__: {name: sample(inspect.type_info(one), full=name == "most") for name in ("least", "most")}
        for one in found
    }


def written() -> dict[str, dict[str, object]]:
    return {
        **{f"verb {name}": of_verb(verb) for name, verb in sorted(every_verb().items())},
        **{f"joining {name}": said for name, said in sorted(of_joining().items())},
    }


if __name__ == "__main__":
    lines = (f"{json.dumps(name)}: {json.dumps(one, sort_keys=True)}" for name, one in written().items())
    print("{" + ",\n".join(lines) + "}")
