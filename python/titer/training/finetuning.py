"""Fine-tuning runs: a model, data, options."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from titer import _titer
from titer._titer import Dataset, FinetuneOptions, FinetuneStep, Finetuning, TrainingData
from titer.training.tokenising import hash_of_template, tokenise

if TYPE_CHECKING:
    from titer.loading import Model


class FinetuneSpec:
    """One run: what it learns from, and how.

    Parameters
    ----------
    data : TrainingData, Dataset, path or iterable of records
        A path is that of a JSON lines file. Records are tokenised with the model's chat template
        (:func:`titer.training.tokenise`); what several runs share is tokenised once.
    options : FinetuneOptions, optional
        How it learns. Otherwise keyword arguments are those of :class:`titer.training.FinetuneOptions`.

    Examples
    --------
    >>> records = [{"prompt": "Is rain wet?", "response": "yes"}]
    >>> titer.training.FinetuneSpec(records, lora_rank=4, seed=1).options
    FinetuneOptions(lora_rank=4, seed=1)
    """

    def __init__(self, data: Any, options: FinetuneOptions | None = None, **keywords: Any) -> None:
        if options is not None and keywords:
            raise TypeError(f"[finetune] give options or keywords, got both: {', '.join(keywords)}")
        self.data = data
        self.options = FinetuneOptions(**keywords) if options is None else options

    def __repr__(self) -> str:
        return f"FinetuneSpec({type(self.data).__name__}, {self.options!r})"


def finetune(
    model: Model,
    specs: Sequence[FinetuneSpec],
    *,
    progress: Callable[[int, FinetuneStep, int], bool | None] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    resume: bool = False,
    micro_batch_tokens: int = 1024,
) -> Finetuning:
    """Train several runs on one base model, which stays as it is.

    Runs of `lora` that have `target_modules` and `lora_rank` in common train together, and every product of the base is
    computed for the rows of all of them at once. Runs of `full` follow one after the other. The loss is the mean
    negative log-likelihood of the answers' tokens. A run whose loss or gradient is not finite stops alone.

    Parameters
    ----------
    model : Model
        The base.
    specs : list of FinetuneSpec
        The runs.
    progress : callable, optional
        Called with the run's index, a :class:`FinetuneStep` and the number of its steps after every step of every run;
        returning False stops all.
    checkpoint : path, optional
        Folder for the state of the runs, written every 30 seconds or so, when a run ends, and when it is interrupted.
    resume : bool
        Go on from `checkpoint` where that exists, as if never interrupted.
    micro_batch_tokens : int
        Tokens that go through the model at a time: a cap on memory, which changes results by rounding only.

    Returns
    -------
    Finetuning
        `runs`, a :class:`FinetuneResult` for each spec, and their common `cost`.

    Raises
    ------
    ValueError
        If records or options do not fit the model, or the checkpoint is that of another fine-tuning.
    OSError
        If a file cannot be read or written.

    Examples
    --------
    >>> records = [{"prompt": "Is rain wet?", "response": "yes"}, {"prompt": "Is fire wet?", "response": "no"}]
    >>> specs = [titer.training.FinetuneSpec(records, num_epochs=2, seed=seed, lora_rank=4) for seed in range(3)]
    >>> results = titer.training.finetune(model, specs)
    >>> [len(run.steps) for run in results.runs]
    [2, 2, 2]
    >>> results.runs[0].status
    'completed'
    """
    known: dict[int, TrainingData] = {}
    runs = [(spec.options, _tokens(model, spec.data, known)) for spec in specs]
    return _titer.finetune(
        model,
        runs,
        progress=progress,
        checkpoint=None if checkpoint is None else Path(checkpoint),
        resume=resume,
        micro_batch_tokens=micro_batch_tokens,
        template_hash=hash_of_template(model),
    )


def _tokens(model: Model, data: Any, known: dict[int, TrainingData]) -> TrainingData:
    if isinstance(data, TrainingData):
        return data
    if id(data) not in known:
        records: Iterable[Any] = Dataset(Path(data)) if isinstance(data, (str, os.PathLike)) else data
        known[id(data)] = tokenise(model, records)
    return known[id(data)]
