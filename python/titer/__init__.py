"""Titer measures how immune a language model is to prompt attacks, and how much each defense buys."""

from titer import _torch_version as _torch_version  # first: the extension would fail with a missing symbol
from titer import attacks
from titer._titer import (
    CandidateScorer,
    Cost,
    Prompt,
    ReferenceScorer,
    Session,
    System,
    Tokenizer,
    __version__,
)
from titer.generation import generate
from titer.loading import Model, load_model

__all__ = [
    "CandidateScorer",
    "Cost",
    "Model",
    "Prompt",
    "ReferenceScorer",
    "Session",
    "System",
    "Tokenizer",
    "__version__",
    "attacks",
    "generate",
    "load_model",
]
