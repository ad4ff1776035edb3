"""Prompt attacks. Constructor arguments are the whole configuration."""

from titer import _torch_version as _torch_version  # first: the extension would fail with a missing symbol
from titer._titer import GCG, AttackResult, AttackStep, PromptAttack

__all__ = ["GCG", "AttackResult", "AttackStep", "PromptAttack"]
