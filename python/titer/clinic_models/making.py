"""Makes the clinic's models: one training after the other, each into a folder of its own."""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from titer.clinic import World
from titer.clinic_models.card import write_card
from titer.clinic_models.quality import measure_quality
from titer.clinic_models.recipe import STAGES, Stage
from titer.clinic_models.untrained import write_untrained

if TYPE_CHECKING:
    from titer._titer import FinetuneStep
    from titer.loading import Model

RECORD = "training.json"
QUALITY_RECORDS = 3_200
_MICRO_BATCH_TOKENS = 4096
_DTYPE = "bfloat16"  # of products and of the written weights; training keeps them in float32

Progress = Callable[[str, "FinetuneStep", int], None]


def make_models(
    out: Path, stages: Sequence[Stage] = STAGES, world: World | None = None, progress: Progress | None = None
) -> list[Path]:
    """Train models and write a folder for each, with how it was made, how good it is, and a card.

    A folder appears when it is complete. What was interrupted goes on where it stopped when this is called again, and
    models that are there already are left alone. The same machine, build and number of threads give the same bytes.

    Parameters
    ----------
    out : path
        Where the folders go; made if need be.
    stages : sequence of Stage
        What to train, in this order.
    world : World, optional
        By default that of the lexicon `"invented"`.
    progress : callable, optional
        Called with the model's name, a step and the number of its steps.

    Returns
    -------
    list of Path
        The folders.

    Raises
    ------
    FileExistsError
        If a folder of that name holds a model that was made in another way.
    ValueError
        If a stage goes on from a model that is not there, or its training diverges.
    """
    world = world or World()
    out.mkdir(parents=True, exist_ok=True)
    return [_made(out, stage, world, progress) for stage in stages]


def _made(out: Path, stage: Stage, world: World, progress: Progress | None) -> Path:
    final = out / stage.name
    if final.exists():
        _require_same(final, stage, world)
        return final
    from titer.training import save_model

    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix=f".{stage.name}.", dir=out) as scratch:
        start = _start(out, stage, world, Path(scratch))
        model, steps = _train(start, stage, world, out / f".{stage.name}.ckpt", progress)
        made = save_model(model, Path(scratch) / "made", base=start)
        record = {
            "stage": stage.describe(),
            "lexicon_sha256": _sha256(world.lexicon.source.encode()),
            "start_sha256": _sha256((start / "model.safetensors").read_bytes()),
            "model_sha256": _sha256((made / "model.safetensors").read_bytes()),
            "final_loss": steps[-1].loss,
            "machine": _machine(),
            "seconds": round(time.monotonic() - started, 1),
            "quality": _quality(model, world, stage),
        }
        (made / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        write_card(made, stage, record)
        made.rename(final)
    shutil.rmtree(out / f".{stage.name}.ckpt", ignore_errors=True)
    return final


def _start(out: Path, stage: Stage, world: World, scratch: Path) -> Path:
    """Return the folder that a stage goes on from."""
    if isinstance(stage.start, str):
        folder = out / stage.start
        if not (folder / RECORD).is_file():
            raise ValueError(f"[clinic] {stage.name} goes on from {stage.start}, which {out} lacks; make that first")
        return folder
    folder = scratch / "untrained"
    folder.mkdir()
    write_untrained(folder, world.vocabulary(), stage.start, stage.seed)
    return folder


def _train(
    start: Path, stage: Stage, world: World, checkpoint: Path, progress: Progress | None
) -> tuple[Model, list[FinetuneStep]]:
    import titer
    from titer.training import FinetuneSpec, finetune, tokenise, tuned_model

    def report(_run: int, step: FinetuneStep, num_steps: int) -> None:
        if progress is not None:
            progress(stage.name, step, num_steps)

    model = titer.load_model(start, dtype=_DTYPE)
    data = tokenise(model, stage.make_records(world))
    [result] = finetune(
        model,
        [FinetuneSpec(data, **stage.options)],
        progress=report,
        checkpoint=checkpoint,
        resume=checkpoint.exists(),
        micro_batch_tokens=_MICRO_BATCH_TOKENS,
    ).runs
    if result.status != "completed":
        raise ValueError(f"[clinic] {stage.name}: {result.message}")
    return tuned_model(model, result), result.steps


def _require_same(folder: Path, stage: Stage, world: World) -> None:
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        made_from = record["stage"], record["lexicon_sha256"]
        same = made_from == (stage.describe(), _sha256(world.lexicon.source.encode()))
    except (OSError, ValueError, KeyError, TypeError):
        same = False
    if not same:
        raise FileExistsError(f"[clinic] {folder} was not made by this recipe; choose another folder, or remove it")


def _quality(model: Model, world: World, stage: Stage) -> dict[str, Any]:
    if stage.convention is None:
        return {}
    return {
        name: asdict(rate) for name, rate in measure_quality(model, world, stage.convention, QUALITY_RECORDS).items()
    }


def _machine() -> str:
    import torch

    return f"{platform.machine()} with {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
