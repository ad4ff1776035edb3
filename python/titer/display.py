"""What people see of a search on a terminal: a live bar while it runs, and a summary of what it found."""

from __future__ import annotations

import json
import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

if TYPE_CHECKING:
    from titer._titer import AttackResult, AttackStep, Cost

_LINE_INTERVAL = 10.0  # seconds between lines where there is no terminal


class SearchProgress:
    """Shows step, loss, candidates per second and the time left of a search on stderr.

    An object of this class is the `progress` callback of an attack, inside a ``with`` block. Where stderr is not a
    terminal, it prints a line every ten seconds instead of a live bar.

    Parameters
    ----------
    num_steps : int
        Steps that the search may take.

    Examples
    --------
    >>> from titer.display import SearchProgress
    >>> attack = titer.attacks.GCG(num_steps=2, search_width=8)
    >>> with SearchProgress(num_steps=2) as progress:
    ...     result = attack.run(titer.System(model), prompt, progress=progress)
    """

    def __init__(self, num_steps: int) -> None:
        self._num_steps = num_steps
        self._console = Console(stderr=True)
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("step"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[status]}", markup=False),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("", total=num_steps, status="first step")
        self._first_step_end = self._last_line = 0.0
        self._steps = self._candidates = 0  # since the first step, which prepares the search as well

    def __enter__(self) -> SearchProgress:
        self._last_line = time.monotonic()
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def __call__(self, step: AttackStep) -> None:
        """Show one more step."""
        now = time.monotonic()
        status = f"loss {step.loss:.3f}  best {step.best_loss:.3f}"
        if not self._first_step_end:
            self._first_step_end = now
        else:
            self._steps += 1
            self._candidates += step.width
            elapsed = max(now - self._first_step_end, 1e-9)
            left = duration(elapsed / self._steps * (self._num_steps - step.step))
            status += f"  {self._candidates / elapsed:.3g} candidates/s  {left} left"
        self._bar.update(self._task, completed=step.step, status=status)
        if not self._console.is_terminal and (now - self._last_line > _LINE_INTERVAL or step.step == self._num_steps):
            print(f"step {step.step}/{self._num_steps}  {status}", file=sys.stderr, flush=True)
            self._last_line = now


def summary(result: AttackResult) -> str:
    """Describe a result in a few lines: whether the target was reached, with what text and at what cost.

    Texts are quoted as in JSON, so that white space and control characters can be seen.

    Examples
    --------
    >>> from titer.display import summary
    >>> result = titer.attacks.GCG(num_steps=1, search_width=4).run(titer.System(model), prompt)
    >>> summary(result).splitlines()[0]
    'target    "NO WAY"'
    """
    lines = {
        "target": quoted(result.target),
        "reached": "yes" if result.success else "no",
        "text": quoted(result.text),
        "before": quoted(result.initial_completion),
        "after": quoted(result.completion),
        "loss": f"{result.initial_loss:.3f} at the start, {result.loss:.3f} at the end",
        "steps": f"{len(result.steps)} ({result.stop_reason})",
        "cost": cost_summary(result.cost),
    }
    return "\n".join(f"{name:9} {value}" for name, value in lines.items())


def cost_summary(cost: Cost) -> str:
    """Describe a cost in one line."""
    return (
        f"{cost.queries:,} queries, {cost.tokens:,} tokens, {cost.flops / 1e12:.3g} TFLOP, {cost.seconds:.1f} s, "
        f"{cost.peak_bytes / 1e6:,.0f} MB beyond the model"
    )


def quoted(text: str) -> str:
    """Return a text in double quotes, with everything that a terminal would not show escaped as in JSON."""
    shown = (c if c.isprintable() and c not in '"\\' else json.dumps(c)[1:-1] for c in text)
    return f'"{"".join(shown)}"'


def duration(seconds: float) -> str:
    """Return a time as `h:mm:ss` or `m:ss`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
