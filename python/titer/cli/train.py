"""`titer train`: fine-tunes one model on one or more files of records."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from titer.cli.exit_codes import ExitCode, Json, Traceback, WrongUsageError, wrong_usage
from titer.cli.models import model_folder
from titer.cli.options import Dtype, assignments, print_options
from titer.cli.preconditions import require_device, require_fresh, require_writable

if TYPE_CHECKING:
    from titer import Dataset, Model
    from titer.training import FinetuneOptions, FinetuneResult, FinetuneStep, Finetuning

_RECORD = "training.json"


class TrainCommand(TyperCommand):
    """Adds the options of a run to `--help`; only that needs the compiled core."""

    def format_help(self, ctx: Any, formatter: Any) -> None:  # noqa: D102
        super().format_help(ctx, formatter)
        from titer.training import FinetuneOptions

        print_options("Options of a run with their defaults", FinetuneOptions.describe())


def train(
    model: Annotated[str, typer.Option(help="A model folder, a .gguf file, or a name that `titer models get` takes.")],
    data: Annotated[list[Path], typer.Option(help="JSON lines of records; each file given is a run of its own.")],
    out: Annotated[
        Path,
        typer.Option(help="Folder to make: of the adapter (as PEFT has it), or of the model where all weights learn."),
    ],
    options: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Options of a run, listed below.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file of options; KEY=VALUE overrides it.")] = None,
    seed: Annotated[
        list[int] | None, typer.Option(help="Key of the random draws; each one given makes a run for each file.")
    ] = None,
    device: Annotated[str, typer.Option(help="Where the model runs, for example cuda:0.")] = "cpu",
    dtype: Annotated[Dtype | None, typer.Option(help="Convert the weights; by default they stay as stored.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint of an interrupted run.")] = False,
    as_json: Json = False,
    traceback: Traceback = False,
) -> int:
    """Fine-tune a model on records of messages, or of prompt and response.

    Several runs (of several files or seeds) train at once, and get a folder each inside --out. Exits with 0 if all of
    them came to their end, with 1 if one diverged, and with 130 if Ctrl-C interrupted them.
    """
    checkpoint = out.parent / f"{out.name}.ckpt"
    if out.exists():
        raise WrongUsageError(f"[train] {out} exists; choose another folder, or remove it")
    require_writable(out, "train")
    require_fresh(checkpoint, resume, "train")

    from titer.training import FinetuneOptions

    keys: list[int | None] = [*seed] if seed else [None]
    with wrong_usage(ValueError, OSError):
        runs = [
            (file, FinetuneOptions.from_config(config, assignments(options or [], key)))
            for file in data
            for key in keys
        ]
    require_device(device, "train")

    import titer

    with wrong_usage(ValueError, OSError):
        datasets = {file: titer.Dataset(file) for file in data}
    loaded = titer.load_model(
        model_folder(model), dtype=dtype.value if dtype else None, device=device, check_finite=True
    )
    results = _run(loaded, datasets, runs, checkpoint)
    _write(loaded, datasets, runs, results, out)
    shutil.rmtree(checkpoint, ignore_errors=True)
    _report(runs, results, out, as_json)
    return ExitCode.REACHED if all(run.status == "completed" for run in results.runs) else ExitCode.NOT_REACHED


def _run(
    model: Model, datasets: dict[Path, Dataset], runs: list[tuple[Path, FinetuneOptions]], checkpoint: Path
) -> Finetuning:
    """Train with a live bar. What the runs did is in the checkpoint afterwards, whatever ends them."""
    from titer.display import TrainingProgress
    from titer.training import FinetuneSpec, finetune, tokenise

    with wrong_usage(ValueError):
        tokens = {file: tokenise(model, dataset) for file, dataset in datasets.items()}
    specs = [FinetuneSpec(tokens[file], options) for file, options in runs]
    steps = 0
    with TrainingProgress(len(specs)) as bar:

        def progress(run: int, step: FinetuneStep, num_steps: int) -> None:
            nonlocal steps
            steps += 1
            bar(run, step, num_steps)

        try:
            return finetune(model, specs, progress=progress, checkpoint=checkpoint, resume=checkpoint.exists())
        except ValueError as error:
            if steps == 0:  # options, data or checkpoint that do not fit
                raise WrongUsageError(str(error)) from error
            raise
        finally:
            if steps and sys.exc_info()[0] is not None:
                _say(f"stopped; the finished steps are in {checkpoint}, the same command with --resume goes on")


def _write(
    model: Model,
    datasets: dict[Path, Dataset],
    runs: list[tuple[Path, FinetuneOptions]],
    results: Finetuning,
    out: Path,
) -> None:
    """Write a folder for each run that has a result, with a record of how it was made; all of them or none."""
    from titer.display import cost_fields
    from titer.training import save_model, tuned_model

    if not any(_has_result(result) for result in results.runs):
        return
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as scratch:
        made = Path(scratch) / "out"
        for index, ((file, options), result) in enumerate(zip(runs, results.runs, strict=True)):
            if not _has_result(result):
                continue
            folder = _folder(made, index, len(runs))
            folder.parent.mkdir(parents=True, exist_ok=True)
            if result.adapter is not None:
                result.adapter.save(folder, base_name=str(model.path or ""))
            else:
                save_model(tuned_model(model, result), folder)
            record = {
                "status": result.status,
                "message": result.message,
                "base_sha256": model.weights_sha256(),
                "data": {"file": str(file), "records": len(datasets[file]), "merkle_root": datasets[file].merkle_root},
                "options": options.options,
                "steps": result.trace.to_dict(orient="list"),
                "cost_of_all_runs": cost_fields(results.cost),
            }
            (folder / _RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        made.rename(out)


def _has_result(result: FinetuneResult) -> bool:
    return result.adapter is not None or result.model is not None


def _folder(out: Path, index: int, count: int) -> Path:
    return out if count == 1 else out / f"run-{index}"


def _report(runs: list[tuple[Path, FinetuneOptions]], results: Finetuning, out: Path, as_json: bool) -> None:
    from titer.display import cost_fields, cost_summary

    described = [_described(result, _folder(out, i, len(runs))) for i, result in enumerate(results.runs)]
    if as_json:
        print(json.dumps({"runs": described, "cost": cost_fields(results.cost)}), flush=True)
        return
    for (file, options), run in zip(runs, described, strict=True):
        losses = "" if run["loss"] is None else f", loss {run['first_loss']:.3f} to {run['loss']:.3f}"
        print(f"{file} seed {options.options['seed']}: {run['status']} after {run['steps']} steps{losses}")
        for line in (run["message"], run["folder"]):
            if line:
                print(f"  {line}")
    print(f"{'cost':9} {cost_summary(results.cost)}", flush=True)


def _described(result: FinetuneResult, folder: Path) -> dict[str, Any]:
    steps = result.steps
    return {
        "status": result.status,
        "message": result.message,
        "steps": len(steps),
        "first_loss": steps[0].loss if steps else None,
        "loss": steps[-1].loss if steps else None,
        "folder": str(folder) if _has_result(result) else None,
    }


def _say(text: str) -> None:
    print(f"titer: {text}", file=sys.stderr)
