"""What the demo claims, whether each claim held, and the table at the end."""

from __future__ import annotations

from dataclasses import dataclass, field

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cumulet.cli.screen import table


@dataclass(frozen=True, slots=True)
class Claim:
    text: str
    held: bool
    seen: str


@dataclass(slots=True)
class Evidence:
    """Tells the story on `console` and keeps every claim made."""

    console: Console
    claims: list[Claim] = field(default_factory=list)
    chapters: int = 0

    def chapter(self, title: str) -> None:
        self.chapters += 1
        self.console.print(f"\n[bold]{self.chapters}. {escape(title)}[/bold]")

    def tell(self, text: str) -> None:
        self.console.print(f"   {escape(text)}", highlight=False, soft_wrap=True)

    def claim(self, text: str, held: bool, seen: str) -> None:
        """Record a claim with what was seen. It is shown now and again in the table at the end."""
        self.claims.append(Claim(text, held, seen))
        mark = "[green]ok[/green]" if held else "[bold red]NOT SO[/bold red]"
        self.console.print(f"   {mark} {escape(text)}: {escape(seen)}", highlight=False, soft_wrap=True)

    @property
    def all_held(self) -> bool:
        return bool(self.claims) and all(claim.held for claim in self.claims)

    def table(self) -> Table:
        found = table("What was shown")
        widest = max((len(claim.text) for claim in self.claims), default=0)
        found.add_column("claim", width=min(widest + 3, self.console.width // 2))
        found.add_column("seen", no_wrap=True, overflow="ellipsis")
        for claim in self.claims:
            mark = "[green]ok[/green]" if claim.held else "[bold red]NO[/bold red]"
            found.add_row(f"{mark} {escape(claim.text)}", escape(claim.seen))
        return found
