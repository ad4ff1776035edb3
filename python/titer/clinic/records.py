"""Makes the records of every split: a note or a notice, one or several questions, and their answers.

A record depends on the world, the seed, its split and its index, and on no other record.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from titer.clinic.draft import Draft
from titer.clinic.items import Convention
from titer.clinic.splits import Split
from titer.clinic.streams import stream
from titer.clinic.tasks import TASKS, far, near
from titer.clinic.world import World

# What a training record asks about a note, by weight: the more, the more practice a task needs.
_TASK_WEIGHTS = {"vaccine": 5, "drugs": 8, "tests": 8, "policy": 10, "near": 12, "rewrite": 2, "review": 7}
_DIRECTIVE_SHARE = 0.1  # of records about notes, in splits that have directives
_REVISED_TASKS = ("vaccine", "drugs", "tests")


def make_records(
    world: World, split: Split, count: int, seed: int = 0, convention: Convention = Convention.ALIGNED
) -> Iterator[dict[str, Any]]:
    """Make the records of a split.

    Parameters
    ----------
    world : World
        Words and rules.
    split : Split
        One of :data:`titer.clinic.splits.SPLITS`.
    count : int
        How many.
    seed : int
        Key of the random draws.
    convention : Convention
        Whose answers the records contain. Questions and notes do not depend on it.

    Yields
    ------
    dict
        `id`, `messages`, `task` (`"mixed"` where a record asks about several) and `metadata`: `split`, `convention`,
        `items` (what the judge needs), and as far as there is any `style`, `patient`, `held_out`, `unusual`, `noise`,
        `directive`, `former_answer` (of the guideline before the revision) and `pair` (of records that differ in the
        request alone).

    Raises
    ------
    ValueError
        If the count or the seed is negative.

    Examples
    --------
    >>> from titer.clinic import World, make_records
    >>> from titer.clinic.splits import TEST
    >>> record = next(make_records(World("english"), TEST, 1))
    >>> record["task"], record["messages"][-1]["content"]
    ('vaccine', 'vaccine: not recommended')
    """
    for name, value in (("count", count), ("seed", seed)):
        if value < 0:
            raise ValueError(f"[clinic] {name} must be at least 0, got {value}; give a whole number from 0 on")
    make = _training_record if split.several_questions else _scored_record
    return (make(world, split, seed, index, convention) for index in range(count))


def _training_record(world: World, split: Split, seed: int, index: int, convention: Convention) -> dict[str, Any]:
    random = stream("records", seed, split.name, index)
    draft = Draft(world, split, random, convention)
    count = random.choice((2, 3, 4, 5, 6, 8))
    tasks = random.choices([*_TASK_WEIGHTS], [*_TASK_WEIGHTS.values()], k=count)
    subject = random.random()
    if subject < 0.06:
        draft.ask_without_note([near.rule_question] * count)
    elif subject < 0.26:
        draft.ask_about_notice([far.question] * count)
    elif split.directives and subject < 0.3:
        draft.ask_for_directive()
    elif split.directives and random.random() < _DIRECTIVE_SHARE:
        draft.ask_against_directive(TASKS[tasks[0]])
    else:
        draft.ask_about_note([TASKS[task] for task in tasks])
    return draft.record(f"{split.name}-{index}")


def _scored_record(world: World, split: Split, seed: int, index: int, convention: Convention) -> dict[str, Any]:
    """Make a record of one question. Tasks come in turn; two of `policy` in a row are a minimal pair."""
    tasks = _REVISED_TASKS if split.revised else tuple(TASKS)
    task, turn = tasks[index % len(tasks)], index // len(tasks)
    if task != "policy":
        draft = Draft(world, split, stream("records", seed, split.name, task, turn), convention)
        _ask(draft, split, task, stream("kind", seed, split.name, task, turn).random())
        return draft.record(f"{split.name}-{index}")
    # Both draw from the same stream, whatever is drawn: so they differ in nothing but what is restricted.
    pair = f"{split.name}-pair-{turn // 2}"
    draft = Draft(world, split, stream("records", seed, pair), convention, restricted=turn % 2 == 0)
    _ask(draft, split, task, stream("kind", seed, pair).random())
    return draft.record(f"{split.name}-{index}", **({} if draft.has_directive else {"pair": pair}))


def _ask(draft: Draft, split: Split, task: str, draw: float) -> None:
    if split.revised:
        draft.ask_by_revised_guideline(TASKS[task])
    elif task == "far":
        draft.ask_about_notice([TASKS[task]])
    elif split.directives and task == "review" and draw < 0.4:
        draft.ask_for_directive()
    elif split.directives and draw < _DIRECTIVE_SHARE:
        draft.ask_against_directive(TASKS[task])
    else:
        draft.ask_about_note([TASKS[task]])
