"""`docs/scale.md` and its curves, made from `docs/scale.json`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import msgspec

DOCS = Path(__file__).parents[1] / "docs"
FILE = DOCS / "scale.json"
WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 640, 360, 60, 40, 190, 40
COLOURS = ("#1b6ca8", "#c0392b", "#2e8b57", "#8e44ad", "#b8860b", "#34495e")


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """What a cloud of `hosts` cost; `page_of_few_ms`: a page before the `servers` were made."""

    hosts: int
    servers: int
    start_s: float
    restart_s: float
    boot_ms: float
    move_ms: float
    fill_s: float
    page_of_few_ms: float
    first_page_ms: float
    last_page_ms: float
    idle_cpu_percent: float
    resident_mb: float
    boot_cpu_ms: float = 0.0
    """CPU of the control plane and its hosts for one server; 0: it was not measured yet."""
    restart_cpu_s: float = 0.0
    """The same from the start of the process until a server is ACTIVE."""
    at: str = ""
    load: float = 0.0
    """Of the machine, at its end."""
    cores: int = 0
    """The machine's."""


ROWS = (
    ("one server, POST to ACTIVE", "boot_ms", "ms"),
    ("CPU for one server", "boot_cpu_ms", "ms"),
    ("live migration, request to completed", "move_ms", "ms"),
    ("the servers made, hundreds a request", "fill_s", "s"),
    ("a page of 100 servers, of about as many", "page_of_few_ms", "ms"),
    ("the first page of 100 of all servers", "first_page_ms", "ms"),
    ("the last page of 100", "last_page_ms", "ms"),
    ("CPU of all hosts' heartbeats, nobody asking", "idle_cpu_percent", "% of a core"),
    ("resident memory", "resident_mb", "MB"),
    ("first start to first answer", "start_s", "s"),
    ("started again, to a server that is ACTIVE", "restart_s", "s"),
    ("CPU for that", "restart_cpu_s", "s"),
)
CURVES = ("boot_ms", "move_ms", "first_page_ms", "last_page_ms", "idle_cpu_percent", "resident_mb")


def write_page(points: Sequence[Point]) -> None:
    (DOCS / "scale.svg").write_text(curves(points), encoding="utf-8")
    (DOCS / "scale.md").write_text(page(points), encoding="utf-8")


def page(points: Sequence[Point]) -> str:
    head = "| hosts | " + " | ".join(f"{one.hosts:,}" for one in points) + " |"
    rule = "|---|" + "---|" * len(points)
    rows = [f"| servers | {' | '.join(f'{one.servers:,}' for one in points)} |"]

    def shown(value: float) -> str:
        return f"{value:,g}" if value else "-"

    rows += [
        f"| {title} ({unit}) | {' | '.join(shown(getattr(one, name)) for one in points)} |"
        for title, name, unit in ROWS
    ]
    when = ", ".join(f"{one.hosts:,} hosts at {one.at} under a load of {one.load:g}" for one in points)
    loads, first, last = [one.load for one in points], points[0], points[-1]
    boot, move = last.boot_ms / first.boot_ms, last.move_ms / first.move_ms
    return f"""# What a cloud costs as it grows

`make scale` measures it (`HOSTS="10 100"` for some of it) on one machine of {last.cores} cores: `cumulet up` with
simulated hosts and a PostgreSQL server. The control plane is the same code as with real hosts. `docs/scale.json` has
the numbers, and this page is made from them.

{head}
{rule}
{chr(10).join(rows)}

![curves](scale.svg)

Measured: {when}.

## How to read it

- The goals: a boot and a move cost at most twice what they cost among 10 hosts, and a page costs the same however many
  servers there are.
- Simulated hosts live in the control plane's process, so its memory and CPU include theirs. Agents of real hosts run
  elsewhere, and are asked over the bus.
- There are ten servers for each host, and at most as many as the table says: to make a hundred thousand takes over an
  hour (`python -m benchmarks.scale 10000 --servers 100000`). All are of one project.
- The machine had a load of {min(loads):g} to {max(loads):g} on {last.cores} cores, and that is in all of these numbers.
  Differences of less than half mean nothing. If a number is lower with more hosts, the load was lower.

## What is not as it should be

Among {last.hosts:,} hosts a boot costs {boot:.1f} times what it costs among {first.hosts}, and a move {move:.1f} times;
the goal is twice. A control plane that starts again is at work after {last.restart_s:g} s, because it asks each host
first; the goal is 10 s. A dash is what was not measured yet.

Many servers at once take longer than as many single boots, because PostgreSQL lets transactions that touch the same
rows be tried again: some two tries for each server. The CPU of heartbeats is the control plane's, without PostgreSQL's.

Until 2026-11-30 a boot counted all servers of its project, and a search for leftovers held the database while it read
all operations anew for each server: among 5,000 servers on SQLite no one could write for 14 s of each 30.

Until 2026-11-29 a hundred boots at once made the conductor that leads lose its lead: its renewal waited behind their
steps. While nobody led, each boot read all hosts. A thousand servers then took 148 s among 1,000 hosts, and among
10,000 one request of ten was not done after two minutes.

Until 2026-11-29 a boot on PostgreSQL made the control plane read all hosts again, a page of servers read all hosts, and
400 hosts were asked in one step of the event loop. Among 10,000 hosts a page then took 172 ms of the clock, a boot 208
ms and a restart 38 s, on a machine with a load of 10 to 18.

## What would be next

Each host is asked every quarter of `host_silent_seconds`. Instead, hosts could tell what is new by themselves. One
conductor watches all hosts; instead, several could each hold the lease on a part of them.
"""


def curves(points: Sequence[Point]) -> str:
    """Each as a multiple of its first, over hosts; both axes logarithmic."""
    first, last = math.log10(points[0].hosts), math.log10(points[-1].hosts)
    values = {
        name: [max(getattr(one, name), 1e-9) / max(getattr(points[0], name), 1e-9) for one in points] for name in CURVES
    }
    most = max(2.0, *(max(one) for one in values.values()))
    least = min(0.5, *(min(one) for one in values.values()))
    low, high = math.floor(math.log10(least) * 2) / 2, math.ceil(math.log10(most) * 2) / 2

    def x(hosts: int) -> float:
        share = (math.log10(hosts) - first) / (last - first) if last > first else 0.5
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def y(multiple: float) -> float:
        return HEIGHT - BOTTOM - (math.log10(multiple) - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    text = '<text x="{:.0f}" y="{:.0f}" font-size="11" font-family="sans-serif" fill="{}"{}>{}</text>'
    drawn = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        text.format(LEFT, TOP - 16, "#000", "", f"as a multiple of what it is with {points[0].hosts} hosts"),
    ]
    for step in range(round(low * 2), round(high * 2) + 1, 2):
        multiple = 10 ** (step / 2)
        drawn.append(f'<path d="M{LEFT} {y(multiple):.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        drawn.append(text.format(8, y(multiple) + 4, "#555", "", f"x {multiple:g}"))
    for one in points:
        drawn.append(text.format(x(one.hosts), HEIGHT - 14, "#555", ' text-anchor="middle"', f"{one.hosts:,} hosts"))
    names = {name: title for title, name, _ in ROWS}
    for number, (name, line) in enumerate(values.items()):
        colour = COLOURS[number % len(COLOURS)]
        path = " ".join(f"{x(one.hosts):.1f},{y(value):.1f}" for one, value in zip(points, line, strict=True))
        drawn.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for one, value in zip(points, line, strict=True):
            drawn.append(f'<circle cx="{x(one.hosts):.1f}" cy="{y(value):.1f}" r="3" fill="{colour}"/>')
        words = names[name].split(",")[0][:32]
        drawn.append(text.format(WIDTH - RIGHT + 12, TOP + 16 * number, colour, "", words))
    return "\n".join([*drawn, "</svg>", ""])
