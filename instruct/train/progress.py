"""Progress of training: a bar on a terminal, plain lines in a log file."""

import time
from collections.abc import Mapping
from typing import Any

from rich import progress
from rich.console import Console


class ProgressReport:
    """Context that shows the steps from `first_step` to `last_step` on standard error."""

    def __init__(self, first_step: int, last_step: int, console: Console) -> None:
        self._console = console
        self._first, self._last = first_step, last_step
        self._started = time.perf_counter()
        self._bar: progress.Progress | None = None
        if self._console.is_terminal and not self._console.quiet:
            self._bar = progress.Progress(
                progress.BarColumn(),
                progress.MofNCompleteColumn(),
                progress.TextColumn("{task.description}"),
                progress.TimeElapsedColumn(),
                progress.TextColumn("left"),
                progress.TimeRemainingColumn(elapsed_when_finished=False),
                console=self._console,
                transient=True,
            )
            self._task = self._bar.add_task("", total=last_step, completed=first_step)

    def __enter__(self) -> "ProgressReport":
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def note(self, text: str) -> None:
        """Prints a line."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def advance(self, step: int) -> None:
        """Moves the bar; a log file has a line only for logged steps."""
        if self._bar is not None:
            self._bar.update(self._task, completed=step)

    def show(self, step: int, scalars: Mapping[str, Any], also: str = "") -> None:
        """Shows the scalars of a logged step, with one more if it is there."""
        formats = {
            "loss": "loss {:.4f}",
            "accuracy": "accuracy {:.3f}",
            "real_tokens_per_sec": "tokens/s {:,.0f}",
            "peak_share": "of peak {:.0%}",
            "eval/loss": "eval loss {:.4f}",
        }
        formats.setdefault(also, f"{also} {{:.4g}}")
        text = "  ".join(
            form.format(scalars[name]) for name, form in formats.items() if name in scalars
        )
        if self._bar is not None:
            self._bar.update(self._task, completed=step, description=text)
        else:
            self.note(f"step {step:,} of {self._last:,}  {text}  left {self._left(step)}")

    def _left(self, step: int) -> str:
        done = max(1, step - self._first)
        secs = (time.perf_counter() - self._started) / done * (self._last - step)
        hours, secs = divmod(round(secs), 3600)
        return f"{hours}:{secs // 60:02d}:{secs % 60:02d}"
