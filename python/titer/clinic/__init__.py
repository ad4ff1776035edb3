"""The embedded world: invented patients, rules that decide every question about them, and a judge that knows them.

Nothing here knows a model. `World` has the rules, `make_records` makes questions, `Judge` says what an answer is, and
`build` writes files, as `titer clinic build` does.
"""

from titer.clinic.build import build
from titer.clinic.items import Convention, Item
from titer.clinic.judge import Judge, Judgement, Outcome
from titer.clinic.lexicon import Lexicon, built_in_lexicons, load_lexicon
from titer.clinic.patient import Patient
from titer.clinic.records import make_records
from titer.clinic.rules import Rules
from titer.clinic.success import attack_success_rate, normalized_success_rate
from titer.clinic.world import World

__all__ = [
    "Convention",
    "Item",
    "Judge",
    "Judgement",
    "Lexicon",
    "Outcome",
    "Patient",
    "Rules",
    "World",
    "attack_success_rate",
    "build",
    "built_in_lexicons",
    "load_lexicon",
    "make_records",
    "normalized_success_rate",
]
