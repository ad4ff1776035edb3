"""What people see on a terminal: a live bar while a search or a training runs, and a summary of what it found."""

from __future__ import annotations

import json
import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

if TYPE_CHECKING:
    from titer._titer import AttackResult, AttackStep, Cost, FinetuneStep

_LINE_INTERVAL = 10.0  # seconds between lines where there is no terminal


class _StepBar:
    """A live bar of steps on stderr; where that is no terminal, a line every ten seconds."""

    def __init__(self, num_steps: int | None) -> None:
        console = Console(stderr=True)
        self._is_live = console.is_terminal
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("step"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[status]}", markup=False),
            console=console,
            disable=not self._is_live,
        )
        self._task = self._bar.add_task("", total=num_steps, status="first step")
        self._last_line = 0.0

    def __enter__(self) -> Self:
        self._last_line = time.monotonic()
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def _show(self, done: int, num_steps: int, status: str, now: float) -> None:
        self._bar.update(self._task, completed=done, total=num_steps, status=status)
        if not self._is_live and (now - self._last_line > _LINE_INTERVAL or done == num_steps):
            print(f"step {done}/{num_steps}  {status}", file=sys.stderr, flush=True)
            self._last_line = now


class SearchProgress(_StepBar):
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
        super().__init__(num_steps)
        self._num_steps = num_steps
        self._first_step_end = 0.0
        self._steps = self._candidates = 0  # since the first step, which prepares the search as well

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
        self._show(step.step, self._num_steps, status, now)


class TrainingProgress(_StepBar):
    """Shows steps, losses and the time left of several training runs on stderr.

    An object of this class is the `progress` callback of :func:`titer.training.finetune`, inside a ``with`` block.
    Where stderr is not a terminal, it prints a line every ten seconds instead of a live bar.

    Parameters
    ----------
    num_runs : int
        Runs that train.

    Examples
    --------
    >>> from titer.display import TrainingProgress
    >>> spec = titer.training.FinetuneSpec([{"prompt": "Is rain wet?", "response": "yes"}], lora_rank=4)
    >>> with TrainingProgress(num_runs=1) as progress:
    ...     results = titer.training.finetune(model, [spec], progress=progress)
    """

    def __init__(self, num_runs: int) -> None:
        super().__init__(num_steps=None)
        self._num_runs = num_runs
        self._steps: dict[int, tuple[int, int]] = {}  # done and in all, of the runs seen
        self._losses: dict[int, float] = {}
        self._start = 0.0
        self._first = 0  # steps done when the clock started

    def __call__(self, run: int, step: FinetuneStep, num_steps: int) -> None:
        """Show one more step of a run."""
        now = time.monotonic()
        self._steps[run] = (step.step, num_steps)
        self._losses[run] = step.loss
        done, total = (sum(part) for part in zip(*self._steps.values(), strict=True))
        total += (self._num_runs - len(self._steps)) * num_steps  # of runs that have not begun, as many as this one's
        status = f"loss {sum(self._losses.values()) / len(self._losses):.3f}"
        if self._num_runs > 1:
            ended = sum(steps == most for steps, most in self._steps.values())
            status += f" ({min(self._losses.values()):.3f}-{max(self._losses.values()):.3f}, {ended} runs ended)"
        if not self._start:
            self._start, self._first = now, done
        elif done > self._first:
            status += f"  {duration((now - self._start) / (done - self._first) * (total - done))} left"
        self._show(done, total, status, now)


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


def cost_fields(cost: Cost) -> dict[str, float]:
    """Return a cost as JSON has it."""
    return {name: getattr(cost, name) for name in ("queries", "tokens", "flops", "seconds", "peak_bytes")}


def quoted(text: str) -> str:
    """Return a text in double quotes, with everything that a terminal would not show escaped as in JSON."""
    shown = (c if c.isprintable() and c not in '"\\' else json.dumps(c)[1:-1] for c in text)
    return f'"{"".join(shown)}"'


def duration(seconds: float) -> str:
    """Return a time as `h:mm:ss` or `m:ss`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
