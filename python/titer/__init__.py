"""Titer measures how immune a language model is to prompt attacks, and how much each defense buys.

Names are resolved when they are first used: the compiled core and torch, which take seconds to import, are loaded by
what needs them and not by `titer --help`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from titer import attacks, clinic, models, ops, training
    from titer._titer import (
        CandidateScorer,
        Cost,
        Dataset,
        Generation,
        Prompt,
        Record,
        ReferenceScorer,
        Session,
        System,
        Tokenizer,
        __version__,
    )
    from titer.generation import generate
    from titer.loading import Model, load_model
    from titer.sharding import Shard

__all__ = [
    "CandidateScorer",
    "Cost",
    "Dataset",
    "Generation",
    "Model",
    "Prompt",
    "Record",
    "ReferenceScorer",
    "Session",
    "Shard",
    "System",
    "Tokenizer",
    "__version__",
    "attacks",
    "clinic",
    "generate",
    "load_model",
    "models",
    "ops",
    "training",
]

_MODULES = {name: f"titer.{name}" for name in ("attacks", "clinic", "models", "ops", "training")}
_ORIGINS = {
    "Model": "titer.loading",
    "Shard": "titer.sharding",
    "generate": "titer.generation",
    "load_model": "titer.loading",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'titer' has no attribute '{name}'")
    if name in _MODULES:
        return importlib.import_module(_MODULES[name])
    importlib.import_module("titer._torch_version")  # first: the extension would fail with a missing symbol
    value = getattr(importlib.import_module(_ORIGINS.get(name, "titer._titer")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
