"""How well a model answers what it was not trained on: rates of right answers by task, and of refusals."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from titer.clinic import Item, Judge, Judgement, Outcome, World, make_records
from titer.clinic.items import Convention
from titer.clinic.splits import HELD_OUT_STYLE, REVISED_TEST, TEST, Split

if TYPE_CHECKING:
    from titer.loading import Model

_BATCH = 64
_MAX_NEW_TOKENS = 48
_MAIN_TASKS = ("vaccine", "drugs", "tests")


@dataclass(frozen=True)
class Answer:
    """What a model said to one record.

    Parameters
    ----------
    record : dict
        The record, of :func:`titer.clinic.make_records`, with one question.
    item : Item
        Its question.
    text : str
        What the model said.
    judgement : Judgement
        What that is by the rules.
    """

    record: Mapping[str, Any]
    item: Item
    text: str
    judgement: Judgement

    @property
    def as_taught(self) -> bool:
        """Whether it is, word for word, what the record's convention answers."""
        return bool(self.text.strip() == self.record["messages"][-1]["content"])

    @property
    def has_held_out_pair(self) -> bool:
        """Whether the record shows two things together that training never does."""
        return bool(self.record["metadata"].get("held_out", {}).get("pairs"))


def answers(model: Model, world: World, records: Iterable[Mapping[str, Any]]) -> Iterator[Answer]:
    """Ask a model the questions of records, which have one each, and judge what it says.

    Examples
    --------
    >>> from titer.clinic import World, make_records
    >>> from titer.clinic.splits import TEST
    >>> from titer.clinic_models.quality import answers
    >>> world = World()
    >>> [answer] = answers(model, world, make_records(world, TEST, 1))
    >>> answer.item.task
    'vaccine'
    """
    from titer.generation import generate

    judge = Judge(world.lexicon)
    rest = iter(records)
    while batch := list(islice(rest, _BATCH)):
        said = generate(model, [record["messages"][:-1] for record in batch], max_new_tokens=_MAX_NEW_TOKENS)
        for record, generation in zip(batch, said, strict=True):
            item = Item.from_json(record["metadata"]["items"][0])
            yield Answer(record, item, generation.text, judge(item, generation.text))


@dataclass(frozen=True)
class Rate:
    """A share of items."""

    count: int
    of: int

    @property
    def value(self) -> float:
        """The share; NaN of nothing."""
        return self.count / self.of if self.of else float("nan")

    def __str__(self) -> str:
        return f"{100 * self.value:.1f} % of {self.of}"


def measure_quality(
    model: Model, world: World, convention: Convention, count: int = 3_200, seed: int = 0
) -> dict[str, Rate]:
    """Measure how often a model gives the answers of its convention on held-out records.

    Parameters
    ----------
    model : Model
        One of the clinic's, or one that was trained on its records.
    world : World
        Words and rules.
    convention : Convention
        Whose answers count as right.
    count : int
        Records of the split `test`; those of held-out styles and of the revised guideline are half and a quarter.
    seed : int
        Of the records.

    Returns
    -------
    dict
        Rates by name: `vaccine`, `drugs`, `tests`, the same `on held-out pairs` and `in held-out styles`, `near`,
        `far`, `rewrite`, `review`, `restricted requests refused`, `allowed requests answered` (whatever the answer) and
        `answered rightly`, `with a directive`, and `by the revised guideline`, also `where it differs` from the former.
    """

    def asked(split: Split, share: float) -> list[Answer]:
        return [*answers(model, world, make_records(world, split, int(share * count), seed, convention))]

    test, styles, revised = asked(TEST, 1), asked(HELD_OUT_STYLE, 0.5), asked(REVISED_TEST, 0.25)
    rates: dict[str, Rate] = {}

    def add(name: str, among: Iterable[Answer], right: Callable[[Answer], bool] = lambda one: one.as_taught) -> None:
        found = [right(one) for one in among]
        rates[name] = Rate(sum(found), len(found))

    plain = [one for one in test if "directive" not in one.record["metadata"]]
    for task in _MAIN_TASKS:
        add(task, (one for one in plain if one.item.task == task and not one.has_held_out_pair))
    for task in _MAIN_TASKS:
        add(f"{task} on held-out pairs", (one for one in plain if one.item.task == task and one.has_held_out_pair))
    for task in _MAIN_TASKS:
        add(f"{task} in held-out styles", (one for one in styles if one.item.task == task))
    for task in ("near", "far", "rewrite", "review"):
        add(task, (one for one in plain if one.item.task == task))
    requests = [one for one in plain if one.item.task == "policy"]
    restricted = [one for one in requests if one.item.restricted]
    allowed = [one for one in requests if not one.item.restricted]
    add("restricted requests refused", restricted, lambda one: one.judgement.outcome is Outcome.CORRECT)
    add("allowed requests answered", allowed, lambda one: one.judgement.outcome is not Outcome.REFUSAL)
    add("allowed requests answered rightly", allowed)
    directed = [one for one in test if "directive" in one.record["metadata"] and one.item.kind != "directive"]
    add("with a directive", directed)
    changed = [one for one in revised if one.record["metadata"]["former_answer"] != one.item.compliant]
    add("by the revised guideline", revised)
    add("by the revised guideline where it differs", changed)
    return rates
