"""One record in the making: draw a case, choose what to ask, write the note around it, answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from random import Random
from typing import Any

from titer.clinic.depot import draw_notice
from titer.clinic.directives import demanded_answer, directive_text
from titer.clinic.items import Convention, Item
from titer.clinic.notes import fact_phrases, laid_out, write_notice
from titer.clinic.patients import Pairs, draw_patient
from titer.clinic.rules import Rules
from titer.clinic.splits import Split
from titer.clinic.tasks import Case, review
from titer.clinic.unusual import misspelled, odd_phrase, scrap
from titer.clinic.world import World

_UNUSUAL_SHARE = 0.4  # of notes
_NOISE_SHARE = 0.15  # of questions: a scrap follows, as an attack's slot would
_DESK_SHARE = 0.2  # of notes that no question needs the desk's numbers of
_REVISED_SHARE = 0.65  # of the revised guideline's items that it answers in another way


class Draft:
    """A record in the making.

    Parameters
    ----------
    world : World
        Words and rules.
    split : Split
        What the record may show.
    random : random.Random
        Where all its draws come from.
    convention : Convention
        Whose answers it contains.
    restricted : bool, optional
        Whether a request is one that the policy forbids; drawn where it is not given.
    """

    def __init__(
        self, world: World, split: Split, random: Random, convention: Convention, restricted: bool | None = None
    ) -> None:
        self._world, self._split, self._random, self._convention = world, split, random, convention
        self._unseen_pairs = split.held_out and random.random() < 0.5
        self._unseen_phrasing = split.held_out and random.random() < 0.25
        self._case = self._draw_case(world.revised_rules if split.revised else world.rules, restricted)
        self._items: list[Item] = []
        self._messages: list[dict[str, str]] = []
        self._metadata: dict[str, Any] = {"split": split.name, "convention": convention.value}

    def ask_about_note(self, questions: Iterable[Callable[[Random, Case], Item]]) -> None:
        """Write the patient's note and ask about it."""
        items = self._distinct(questions)
        self._ask(items, self._note(items), [item.answer(self._world.lexicon, self._convention) for item in items])

    def ask_about_notice(self, questions: Iterable[Callable[[Random, Case], Item]]) -> None:
        """Write the depot's notice and ask about it."""
        items = self._distinct(questions)
        notice = write_notice(self._random, self._case.notice)
        self._ask(items, f"notice: {notice}", [item.compliant for item in items])

    def ask_without_note(self, questions: Iterable[Callable[[Random, Case], Item]]) -> None:
        """Ask about the rules alone."""
        items = self._distinct(questions)
        self._ask(items, None, [item.compliant for item in items])

    def ask_against_directive(self, question: Callable[[Random, Case], Item]) -> None:
        """Ask one question, with a directive in the note or beside the question."""
        self._ask_with_directive(question, self._random.choice(("note", "note", "question")))

    def ask_for_directive(self) -> None:
        """Ask whether the note contains a directive, and let it contain one as often as not."""
        if self._random.random() < 0.5:
            self._ask_with_directive(review.directive_question, "note")
        elif self._random.random() < 0.3:
            self._ask_with_directive(review.directive_question, "question")
        else:
            self.ask_about_note([review.directive_question])

    def ask_by_revised_guideline(self, question: Callable[[Random, Case], Item]) -> None:
        """Ask what the revised guideline answers in another way than the former one, or, less often, in the same."""
        random = self._random
        differs = random.random() < _REVISED_SHARE
        while True:
            state = random.getstate()
            item = question(random, self._case)
            random.setstate(state)
            former = question(random, replace(self._case, rules=self._world.rules))
            if (item.compliant != former.compliant) == differs:
                break
            self._case = self._draw_case(self._case.rules, None)
        self._metadata["former_answer"] = former.compliant
        self.ask_about_note([lambda _random, _case: item])

    @property
    def has_directive(self) -> bool:
        """Whether a directive stands in the note or beside the question."""
        return "directive" in self._metadata

    def record(self, identity: str, **metadata: str) -> dict[str, Any]:
        """Return the finished record."""
        tasks = {item.task for item in self._items}
        return {
            "id": identity,
            "messages": self._messages,
            "task": tasks.pop() if len(tasks) == 1 else "mixed",
            "metadata": {**self._metadata, **metadata, "items": [item.to_json() for item in self._items]},
        }

    def _draw_case(self, rules: Rules, restricted: bool | None) -> Case:
        world, random = self._world, self._random
        pairs = Pairs.HELD_OUT if self._unseen_pairs else Pairs.SEEN
        return Case(
            rules=rules,
            depot=world.depot,
            held_out=world.held_out,
            patient=draw_patient(random, rules, world.held_out, pairs),
            notice=draw_notice(random, world.lexicon),
            unseen_phrasing=self._unseen_phrasing,
            unseen_pairs=self._unseen_pairs,
            restricted=restricted,
        )

    def _distinct(self, questions: Iterable[Callable[[Random, Case], Item]]) -> list[Item]:
        """Draw the questions, without those that were asked before."""
        items = (question(self._random, self._case) for question in questions)
        return [*{item.question: item for item in items}.values()]

    def _ask_with_directive(self, question: Callable[[Random, Case], Item], place: str) -> None:
        random, lexicon = self._random, self._world.lexicon
        self._case = replace(self._case, directive=place == "note")
        item = question(random, self._case)
        demanded = demanded_answer(random, item, lexicon)
        text = directive_text(random, demanded, self._unseen_phrasing)
        self._metadata["directive"] = {"place": place, "answer": demanded}
        follows = self._convention is Convention.BASE and item.kind != "directive"
        answer = demanded if follows else item.answer(lexicon, self._convention)
        note = self._note([item], [text] if place == "note" else [])
        self._ask([item], note, [answer], text if place == "question" else "")

    def _note(self, items: Sequence[Item], directives: Sequence[str] = ()) -> str:
        random, lexicon, words = self._random, self._world.lexicon, self._world.vocabulary()
        style = random.choice(self._split.styles)
        desk = any(map(_needs_desk, items)) or random.random() < _DESK_SHARE
        phrases = fact_phrases(random, self._case.patient, style, desk)
        extras = [*directives]
        unusual = []
        for _ in range(random.choice((1, 1, 2)) if random.random() < _UNUSUAL_SHARE else 0):
            if random.random() < 0.3:
                written, phrases = phrases, misspelled(random, phrases, frozenset(words.misspellings))
                unusual += ["misspelling"] if phrases != written else []
            else:
                kind, phrase = odd_phrase(random, lexicon, words.all)
                extras.append(phrase)
                unusual.append(kind)
        self._metadata["style"] = style.name
        if unusual:
            self._metadata["unusual"] = unusual
        self._metadata["patient"] = self._case.patient.to_json()
        return f"note: {laid_out(random, phrases, extras, style)}"

    def _ask(self, items: list[Item], context: str | None, answers: list[str], after: str = "") -> None:
        for item, answer in zip(items, answers, strict=True):
            lines = [] if context is None or self._messages else [context]
            question = f"question: {item.question}{f' {after}.' if after else ''}"
            if self._random.random() < _NOISE_SHARE:
                question = f"{question} {scrap(self._random, self._world.vocabulary().all)}"
                self._metadata["noise"] = True
            content = "\n".join([*lines, question])
            self._messages += [{"role": "user", "content": content}, {"role": "assistant", "content": answer}]
        self._items = items
        if self._split.held_out:
            unseen_phrasing = any(item.unseen_phrasing for item in items)
            self._metadata["held_out"] = {"pairs": self._unseen_pairs, "phrasing": unseen_phrasing}


def _needs_desk(item: Item) -> bool:
    """Whether the question may be about what only the desk's part of a note tells."""
    return item.task == "policy" or (item.task == "review" and item.kind == "answer")
