"""The largest bodies that operations accept, or refuse only once they have looked at all of it."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from typing import Any

from cumulet.web.json_reader import LARGEST_BODY

NUMBERS = (50, 5000)
"""How many items a long list has: no more than fit into a body."""
MANY: dict[str, object] = {
    "metadata": {"{n}": "v" * 200},
    "properties": {"{n}": "v" * 200},
    "extra_specs": {"hw:{n}": "v" * 200},
    "tags": ["tag-{n}"],
    "networks": [{"port": "00000000-0000-4000-8000-{n:012d}"}],
    "security_groups": ["00000000-0000-4000-8000-{n:012d}"],
    "allowed_address_pairs": [{"ip_address": "10.0.{high}.{low}"}],
    "fixed_ips": [{"ip_address": "10.0.{high}.{low}"}],
    "allocation_pools": [{"start": "10.0.{high}.{low}", "end": "10.0.{high}.{low}"}],
    "dns_nameservers": ["10.0.{high}.{low}"],
    "host_routes": [{"destination": "10.{high}.{low}.0/24", "nexthop": "10.0.0.1"}],
    "routes": [{"destination": "10.{high}.{low}.0/24", "nexthop": "10.0.0.1"}],
    "prefixes": ["10.{high}.{low}.0/24"],
    "traits": ["CUSTOM_{n}"],
    "aggregates": ["00000000-0000-4000-8000-{n:012d}"],
    "description": "x" * 100_000,
    "user_data": "QUJD" * 20_000,
}
"""By the name of a field: a value for it. For objects that accept it, whether it is required or not."""


def numbered(value: object, n: int) -> Any:
    """`value` with `{n}`, `{high}` and `{low}` filled in, at every depth."""
    if isinstance(value, str):
        return value.format(n=n, high=n // 250, low=n % 250 + 1) if "{" in value else value
    if isinstance(value, dict):
        return {numbered(name, n): numbered(part, n) for name, part in value.items()}
    return [numbered(part, n) for part in value] if isinstance(value, list) else value


def varied(value: object, n: int) -> Any:
    """A copy of `value` with other names in it."""
    if isinstance(value, dict):
        return {
            key: f"{part}-{n}" if key in ("name", "display_name") and isinstance(part, str) else varied(part, n)
            for key, part in value.items()
        }
    return value


def repeated(one: Any, number: int, room: int) -> Any:
    """A list's only item, or an object's only pair, as often as fits into `room` bytes, at most `number` times."""
    if isinstance(one, str):
        return one[:room]
    text = json.dumps(one)
    most = max(1, min(number, room // (len(text) + 4)))
    made = _made(text)
    for n in range(len(made), most):
        made.append(numbered(one if isinstance(one, dict) else varied(one[0], n), n))
    if isinstance(one, dict):
        return {name: value for pair in made[:most] for name, value in pair.items()}
    return made[:most]


@functools.lru_cache(2 * len(MANY))
def _made(_one: str) -> list[Any]:
    """What was made of an item so far: every operation is asked with the same ones."""
    return []


def larger(body: object, query_path: str) -> Iterator[Any]:
    """The body with much more of one thing at a time."""
    room = LARGEST_BODY - len(json.dumps(body)) - 1000
    for number in NUMBERS:
        if isinstance(body, list) and body:
            yield repeated(body[:1], number, room)
        if not isinstance(body, dict):
            continue
        if len(body) == 1 and query_path.startswith("/network/") and query_path.endswith(f"/{next(iter(body))}s"):
            [(name, one)] = body.items()
            yield {f"{name}s": repeated([one], number, room)}
        for name, value in body.items():
            for part in _parts(value, number, room):
                yield {**body, name: part}
        for name, one in MANY.items():
            yield {**body, name: repeated(one, number, room)}


def _parts(value: object, number: int, room: int) -> Iterator[Any]:
    if isinstance(value, list) and value:
        yield repeated(value[:1], number, room)
    if isinstance(value, dict):
        for name, part in value.items():
            if isinstance(part, list) and part:
                yield {**value, name: repeated(part[:1], number, room)}
            if isinstance(part, str) and name == "name":
                yield {**value, "min_count": 1000, "max_count": 1000}
        for name, one in MANY.items():
            yield {**value, name: repeated(one, number, room)}
        if value and all(isinstance(part, str) for part in value.values()):
            yield {f"{name}-{n}": part for n in range(min(number, 1000)) for name, part in list(value.items())[:1]}
