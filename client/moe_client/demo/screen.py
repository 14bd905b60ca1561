"""The demo's output: headings, steps with times, and a live table, or plain lines if the output is a file."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

#: Seconds between two printings of a table to a file.
PLAIN_INTERVAL = 30.0
#: Width of the output to a file, in characters.
PLAIN_WIDTH = 120


class Screen:
    """A terminal or a log file: both get the same words, and a terminal also live updates."""

    def __init__(self) -> None:
        terminal = sys.stdout.isatty()
        self.console = Console(highlight=False, width=None if terminal else PLAIN_WIDTH)
        self._started = time.monotonic()

    def heading(self, text: str) -> None:
        """Print the heading of a chapter, with the seconds since the start."""
        self.console.print(f"\n[bold]{text}[/bold] [dim]({time.monotonic() - self._started:.0f} s)[/dim]")

    def say(self, *lines: RenderableType) -> None:
        """Print lines as they are."""
        for line in lines:
            self.console.print(line if not isinstance(line, str) else Text(line))

    def command(self, text: str) -> None:
        """Print what a user would type, without line breaks, so that it can be copied."""
        self.console.print(Text(f"  $ {text}", style="bold"), soft_wrap=True)

    @contextmanager
    def step(self, text: str) -> Iterator[None]:
        """Show that a step is running, and afterwards how long it took."""
        start = time.monotonic()
        with self.console.status(text):
            yield
        self.console.print(f"  [green]✓[/green] {text} [dim]{time.monotonic() - start:.1f} s[/dim]")

    def follow(self, draw: Callable[[], tuple[RenderableType, bool]], *, every: float = 1.0) -> None:
        """Show what ``draw`` returns, every ``every`` seconds, until its second value is True."""
        if self.console.is_terminal:
            self._follow_live(draw, every)
        else:
            self._follow_plain(draw, every)

    def _follow_live(self, draw: Callable[[], tuple[RenderableType, bool]], every: float) -> None:
        with Live(console=self.console, auto_refresh=False) as live:
            done = False
            while not done:
                picture, done = draw()
                live.update(picture, refresh=True)
                if not done:
                    time.sleep(every)

    def _follow_plain(self, draw: Callable[[], tuple[RenderableType, bool]], every: float) -> None:
        printed = float("-inf")
        done = False
        while not done:
            picture, done = draw()
            if done or time.monotonic() - printed >= PLAIN_INTERVAL:
                self.console.print(picture)
                printed = time.monotonic()
            if not done:
                time.sleep(every)
