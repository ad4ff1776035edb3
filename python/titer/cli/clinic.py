"""`titer clinic`: the embedded world, as files."""

from __future__ import annotations

import json
import sys
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from titer.cli.exit_codes import Json, Traceback, wrong_usage

commands = typer.Typer(help="Make the embedded world's data and models.", no_args_is_help=True)


class AnswersOf(str, Enum):
    """Whose answers the records contain; `titer.clinic.Convention`, which takes longer to import."""

    BASE = "base"
    ALIGNED = "aligned"


@commands.command()
def build(
    out: Annotated[Path, typer.Option(help="The folder to write; a former build there is replaced.")],
    seed: Annotated[int, typer.Option(help="Key of the random draws.")] = 0,
    lexicon: Annotated[str, typer.Option(help="invented, english, or a YAML file with the same keys.")] = "invented",
    convention: Annotated[
        AnswersOf,
        typer.Option(help="base answers every request and follows directives; aligned goes by rules and policy."),
    ] = AnswersOf.ALIGNED,
    train: Annotated[int, typer.Option(help="Records to train on; one asks up to eight questions.")] = 100_000,
    development: Annotated[int, typer.Option(help="Items to tune attacks and thresholds on.")] = 1_600,
    test: Annotated[int, typer.Option(help="Items to score, half of them with held-out combinations.")] = 3_200,
    calibration: Annotated[int, typer.Option(help="Benign items to calibrate filters on.")] = 1_600,
    held_out_style: Annotated[int, typer.Option(help="Items whose notes have styles that training lacks.")] = 1_600,
    revised: Annotated[int, typer.Option(help="Items of a revised guideline, to fine-tune on.")] = 3_000,
    revised_test: Annotated[int, typer.Option(help="Items of the revised guideline, to score.")] = 600,
    as_json: Json = False,
    traceback: Traceback = False,
) -> None:
    """Write notes, questions and answers with their judgement as JSON lines, and a data card.

    The same lexicon, seed and counts give the same bytes.
    """
    from rich.console import Console
    from rich.progress import Progress

    from titer import clinic
    from titer.clinic.build import require_free

    counts = {
        "train": train,
        "development": development,
        "test": test,
        "calibration": calibration,
        "held_out_style": held_out_style,
        "revised": revised,
        "revised_test": revised_test,
    }
    with wrong_usage(ValueError, OSError):
        world = clinic.World(lexicon)
        require_free(out)
    with Progress(console=Console(stderr=True), transient=True) as bar, wrong_usage(ValueError):
        task = bar.add_task("records", total=None)
        card = clinic.build(
            out,
            world=world,
            seed=seed,
            counts=counts,
            convention=clinic.Convention(convention.value),
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    if as_json:
        print(json.dumps({"path": str(out), **card}))
        return
    for name, file in card["files"].items():
        print(f"{name:24} {file['records']:>9,} records  {file['questions']:>9,} questions")
    print(out)


@commands.command()
def train(
    out: Annotated[Path, typer.Option(help="Folder for the models' folders; made if need be.")],
    model: Annotated[
        list[str] | None, typer.Option(help="Make this model and what it goes on from; may be given several times.")
    ] = None,
    as_json: Json = False,
    traceback: Traceback = False,
) -> None:
    """Train the clinic's models from random weights; all of them may take two hours on two cores.

    After Ctrl-C the same command goes on where it stopped. The same machine, build and number of threads give the same
    bytes.
    """
    from titer.clinic_models import Rate, make_models, stages_for
    from titer.display import TrainingProgress

    with wrong_usage(ValueError):
        stages = stages_for(model or [])
    folders = []
    for stage in stages:
        print(f"titer: {stage.name}", file=sys.stderr)
        with TrainingProgress(1) as bar, wrong_usage(FileExistsError, NotADirectoryError, PermissionError):
            folders += make_models(out, [stage], progress=lambda _, step, num_steps: bar(0, step, num_steps))
    records = [json.loads((folder / "training.json").read_text(encoding="utf-8")) for folder in folders]
    if as_json:
        print(json.dumps([{"path": str(f), **r} for f, r in zip(folders, records, strict=True)]))
        return
    for folder, record in zip(folders, records, strict=True):
        print(f"{folder}  {record['seconds']:.0f} s  {record['model_sha256']}")
        for name, rate in record["quality"].items():
            print(f"  {name:45} {Rate(**rate)}")
