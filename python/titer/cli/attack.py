"""`titer attack`: runs one attack on one prompt of one model and writes what it found."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from titer.cli.exit_codes import ExitCode, Json, Traceback, wrong_usage
from titer.cli.models import model_folder
from titer.cli.options import Dtype, assignments, print_options
from titer.cli.preconditions import require_device, require_fit, require_fresh, require_writable
from titer.cli.ranks import Ranks, joined_ranks

if TYPE_CHECKING:
    from titer import Model, Prompt
    from titer.attacks import GCG, AttackResult, AttackStep
    from titer.display import SearchProgress

commands = typer.Typer(help="Attack a model.", no_args_is_help=True)


class GcgCommand(TyperCommand):
    """Adds the attack's options to `--help`; only that needs the compiled core."""

    def format_help(self, ctx: Any, formatter: Any) -> None:  # noqa: D102
        super().format_help(ctx, formatter)
        from titer.attacks import GCG

        print_options("Options of the attack with their defaults", GCG.describe())


@commands.command(cls=GcgCommand)
def gcg(
    context: typer.Context,
    model: Annotated[str, typer.Option(help="A model folder, a .gguf file, or a name that `titer models get` takes.")],
    target: Annotated[str, typer.Option(help="What the model's answer should start with.")],
    out: Annotated[Path, typer.Option(help="Where the result goes, as JSON; the checkpoint stands beside it.")],
    prompt: Annotated[
        str | None, typer.Option(help="User message; {slot} marks the place that the attack writes.")
    ] = None,
    messages: Annotated[
        Path | None,
        typer.Option(help='JSON file of a whole conversation instead: [{"role": ..., "content": ...}, ...].'),
    ] = None,
    options: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Options of the attack, listed below.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file of options; KEY=VALUE overrides it.")] = None,
    seed: Annotated[int | None, typer.Option(help="Key of the random draws; overrides KEY=VALUE.")] = None,
    slot_text: Annotated[str | None, typer.Option(help="Text that stands in the slot at first.")] = None,
    plain: Annotated[bool, typer.Option("--plain", help="Do not render the prompt with the chat template.")] = False,
    device: Annotated[str, typer.Option(help="Where the model runs, for example cuda:0.")] = "cpu",
    dtype: Annotated[Dtype | None, typer.Option(help="Convert the weights; by default they stay as stored.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint of an interrupted run.")] = False,
    log: Annotated[Path | None, typer.Option(help="Append every step to this file, as JSON lines.")] = None,
    as_json: Json = False,
    traceback: Traceback = False,
) -> int:
    """Search a text that makes a model answer with the target (Greedy Coordinate Gradient, arXiv 2307.15043).

    Exits with 0 if the model's own greedy answer then starts with the target, with 1 if it does not, and with 130 if
    Ctrl-C interrupted the search.

    Under torchrun, the processes share the scoring: torchrun --nproc-per-node 2 -m titer -- attack gcg ...
    """
    ranks = context.with_resource(joined_ranks())
    checkpoint = out.parent / f"{out.name}.ckpt"
    device = ranks.device(device)
    with ranks.together():
        if ranks.leads:
            for file in (out, log):
                if file is not None:
                    require_writable(file, "attack")
            require_fresh(checkpoint, resume, "attack")

        from titer.attacks import GCG

        with wrong_usage(ValueError, OSError):
            attack = GCG.from_config(config, assignments(options or [], seed))
            question = _question(prompt, messages, plain)
        require_device(device, "attack")

    with ranks.together():  # one rank of each machine fetches the model, then the others find it
        source = model_folder(model) if ranks.local_rank == 0 else None

    import titer

    with ranks.together():
        loaded = titer.load_model(
            source or model_folder(model), dtype=dtype.value if dtype else None, device=device, check_finite=True
        )
        with wrong_usage(ValueError, TypeError):
            opened = _prompt(loaded, question, target, slot_text, plain, ranks)
        if ranks.leads:
            require_fit(attack, loaded, opened, checkpoint)
        from titer.display import SearchProgress

        bar = SearchProgress(attack.options["num_steps"])

    with ranks.together():
        result = _run(attack, loaded, opened, checkpoint, log, ranks, bar)
        if ranks.leads:
            result.save(out)
            checkpoint.unlink(missing_ok=True)
            _report(result, out, as_json)
    return ExitCode.REACHED if result.success else ExitCode.NOT_REACHED


def _report(result: AttackResult, out: Path, as_json: bool) -> None:
    if as_json:
        print(result.to_json(), flush=True)
    else:
        from titer.display import summary

        print(summary(result))
        print(f"{'result':9} {out}", flush=True)


def _run(
    attack: GCG, model: Model, prompt: Prompt, checkpoint: Path, log: Path | None, ranks: Ranks, bar: SearchProgress
) -> AttackResult:
    """Run the attack with a live bar. What it did is in the checkpoint afterwards, whatever ends it."""
    import titer

    if not ranks.leads:
        return attack.run(titer.System(model), prompt, shard=ranks.shard)
    resumed = checkpoint.exists()
    finished_steps = 0
    with bar:

        def progress(step: AttackStep) -> None:
            nonlocal finished_steps
            finished_steps += 1
            bar(step)

        try:
            return attack.run(
                titer.System(model),
                prompt,
                progress=progress,
                checkpoint=checkpoint,
                resume=resumed,
                log=log,
                shard=ranks.shard,
            )
        except BaseException as error:
            if not resumed and not finished_steps:
                checkpoint.unlink(missing_ok=True)  # nothing worth to go on from
            if isinstance(error, KeyboardInterrupt) or finished_steps:
                _say(
                    f"stopped; the finished steps are in {checkpoint}, the same command with --resume goes on"
                    if checkpoint.exists()
                    else "stopped before the first step was finished; there is nothing to resume"
                )
            raise


def _question(prompt: str | None, messages: Path | None, plain: bool) -> str | list[dict[str, Any]]:
    """Return the user message or the conversation, of which exactly one must be given."""
    if (prompt is None) == (messages is None):
        raise ValueError("[attack] give either --prompt or --messages")
    if messages is None:
        return str(prompt)
    if plain:
        raise ValueError("[attack] --messages needs the chat template, which --plain leaves out")
    try:
        turns = json.loads(messages.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # malformed UTF-8 included
        raise ValueError(f"[attack] not valid JSON: {error} ({messages})") from error
    if not isinstance(turns, list):
        raise ValueError(f"[attack] expected a list of messages, got {type(turns).__name__} ({messages})")
    return turns


def _prompt(
    model: Model, question: str | list[dict[str, Any]], target: str, slot_text: str | None, plain: bool, ranks: Ranks
) -> Prompt:
    import titer

    initial = {} if slot_text is None else {"initial": slot_text}
    if isinstance(question, list) or (not plain and model.chat_template is not None):
        return titer.Prompt.from_chat(model, question, target, **initial)
    if not plain and ranks.leads:
        _say("the model has no chat template; the prompt is read as plain text, as with --plain")
    return titer.Prompt.from_text(model, question, target, **initial)


def _say(text: str) -> None:
    print(f"titer: {text}", file=sys.stderr)
