"""Fine-tuning: K runs at once on one resident base model.

Examples
--------
>>> records = [{"prompt": "Is rain wet?", "response": "yes"}, {"prompt": "Is fire wet?", "response": "no"}]
>>> spec = titer.training.FinetuneSpec(records, learning_rate=1e-3, num_epochs=2, lora_rank=4)
>>> results = titer.training.finetune(model, [spec])
>>> tuned = titer.training.merge(model, results.runs[0].adapter)
"""

from titer import _torch_version as _torch_version  # first: the extension would fail with a missing symbol
from titer._titer import FinetuneOptions, FinetuneResult, FinetuneStep, Finetuning, LoraAdapter, TrainingData
from titer.training.finetuning import FinetuneSpec, finetune
from titer.training.outcome import load_adapter, merge, save_model, tuned_model
from titer.training.tokenising import tokenise

__all__ = [
    "FinetuneOptions",
    "FinetuneResult",
    "FinetuneSpec",
    "FinetuneStep",
    "Finetuning",
    "LoraAdapter",
    "TrainingData",
    "finetune",
    "load_adapter",
    "merge",
    "save_model",
    "tokenise",
    "tuned_model",
]
