"""Pictures of results. Imported with matplotlib only when a plot is asked for."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from titer._titer import AttackResult


_UNITS = {"cross_entropy": "nats per target token", "mellowmax": "logits", "carlini_wagner": "logits"}


def plot_attack(result: AttackResult, ax: Axes | None = None) -> Axes:
    """Draw a search's loss against its steps.

    Parameters
    ----------
    result : AttackResult
        What an attack returned.
    ax : matplotlib Axes, optional
        Drawn on; new ones by default.

    Returns
    -------
    matplotlib Axes
    """
    import matplotlib.pyplot as plt

    axes = plt.subplots(figsize=(6, 3.5), layout="constrained")[1] if ax is None else ax
    trace = result.trace
    axes.plot(trace["step"], trace["loss"], color="0.7", linewidth=1, label="step")
    axes.plot(trace["step"], trace["best_loss"], color="tab:blue", label="best so far")
    axes.axhline(result.initial_loss, color="tab:gray", linestyle=":", linewidth=1, label="start")
    axes.set_xlabel("step")
    loss = json.loads(result.options_json).get("loss", "cross_entropy")
    axes.set_ylabel(f"{loss.replace('_', ' ')} loss ({_UNITS[loss]})")
    axes.set_title(f"{result.attack}: target {'reached' if result.success else 'not reached'}")
    axes.legend(frameon=False)
    return axes
