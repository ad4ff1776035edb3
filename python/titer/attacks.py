"""Prompt attacks. Constructor arguments are the whole configuration."""

from titer._titer import GCG, AttackResult, AttackStep, PromptAttack

__all__ = ["GCG", "AttackResult", "AttackStep", "PromptAttack"]
