"""The data card of a build: what is in each file, how balanced it is, and what is held out."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

from titer.clinic.phrasings import HELD_OUT_RULE
from titer.clinic.styles import HELD_OUT_STYLES, STYLES
from titer.clinic.world import World

_WORD = re.compile(r"[a-z]+|[0-9]+")


class Tally:
    """Counts the records of one split as they are written."""

    def __init__(self) -> None:
        self._records = self._words = self._notes = self._unusual = self._directives = self._held_out = 0
        self._distinct: set[str] = set()
        self._answers: dict[str, Counter[str]] = defaultdict(Counter)

    def add(self, record: Mapping[str, Any]) -> None:
        """Count a record."""
        metadata = record["metadata"]
        self._records += 1
        for message in record["messages"]:
            words = _WORD.findall(message["content"])
            self._words += len(words)
            self._distinct.update(words)
        answers = [message["content"] for message in record["messages"] if message["role"] == "assistant"]
        for item, answer in zip(metadata["items"], answers, strict=True):
            self._answers[item["task"]][answer] += 1
        self._notes += "style" in metadata
        self._unusual += "unusual" in metadata
        self._directives += "directive" in metadata
        self._held_out += metadata.get("held_out", {}).get("pairs", False)

    def summary(self) -> dict[str, Any]:
        """Return the counts; shares are of the records that have a note, rounded to four places."""
        return {
            "records": self._records,
            "questions": sum(sum(answers.values()) for answers in self._answers.values()),
            "words_per_record": round(self._words / self._records, 1) if self._records else 0.0,
            "distinct_words": len(self._distinct),
            "unusual_notes": round(self._unusual / self._notes, 4) if self._notes else 0.0,
            "records_with_directive": self._directives,
            "records_with_held_out_pair": self._held_out,
            "tasks": {task: _balance(self._answers[task]) for task in sorted(self._answers)},
        }


def _balance(answers: Counter[str]) -> dict[str, Any]:
    total = sum(answers.values())
    answer, count = min(answers.items(), key=lambda pair: (-pair[1], pair[0]))
    return {"questions": total, "commonest_answer": answer, "its_share": round(count / total, 4)}


def held_out_lists(world: World) -> dict[str, Any]:
    """Return what training never shows, for the card."""
    return {
        "styles": [style.name for style in HELD_OUT_STYLES],
        "condition_pairs": [list(pair) for pair in world.held_out.conditions],
        "sign_pairs": [list(pair) for pair in world.held_out.signs],
        "object_pairs": [list(pair) for pair in world.held_out.objects],
        "phrasings": HELD_OUT_RULE,
    }


def card_text(card: Mapping[str, Any]) -> str:
    """Write the card for people, as Markdown."""
    lines = [
        f"# Clinic, lexicon `{card['lexicon']}`, seed {card['seed']}",
        "",
        "Invented patients, rules and requests, made by `titer clinic build`: no real person, and no medical advice.",
        f"Answers follow the convention `{card['convention']}`; what is right, the rules decide, which are drawn from",
        "`lexicon.yaml`. Licence: Apache 2.0, as the generator.",
        "",
        "The command that makes the same bytes again (all counts are in `card.json`):",
        "",
        "```sh",
        _command(card),
        "```",
        "",
        "| file | records | questions | words a record | distinct words | unusual notes | directives | unseen pairs |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, file in card["files"].items():
        lines.append(
            f"| `{name}` | {file['records']} | {file['questions']} | {file['words_per_record']} | "
            f"{file['distinct_words']} | {100 * file['unusual_notes']:.0f} % | {file['records_with_directive']} | "
            f"{file['records_with_held_out_pair']} |"
        )
    lines += ["", "| file | task | questions | commonest answer | its share |", "| --- | --- | --- | --- | --- |"]
    lines += [
        f"| `{name}` | {task} | {part['questions']} | {part['commonest_answer']} | {100 * part['its_share']:.0f} % |"
        for name, file in card["files"].items()
        for task, part in file["tasks"].items()
    ]
    held_out = card["held_out"]
    lines += [
        "",
        "## Held out of training",
        "",
        f"- styles: {', '.join(held_out['styles'])} (training has {', '.join(style.name for style in STYLES)})",
        f"- phrasings: {held_out['phrasings']}",
    ]
    for kind in ("condition_pairs", "sign_pairs", "object_pairs"):
        pairs = ", ".join(f"{one} with {other}" for one, other in held_out[kind])
        lines.append(f"- {kind.replace('_', ' ')} ({len(held_out[kind])}): {pairs}")
    lines += ["", "## SHA-256", ""]
    lines += [f"- `{name}`: {file['sha256']}" for name, file in card["files"].items()]
    return "\n".join(lines) + "\n"


def _command(card: Mapping[str, Any]) -> str:
    counts = [
        f"--{name.removesuffix('.jsonl').replace('_', '-')} {part['records']}" for name, part in card["files"].items()
    ]
    lexicon = card["lexicon"] if card["built_in"] else "lexicon.yaml"
    first = f"titer clinic build --out DIR --seed {card['seed']} --lexicon {lexicon} --convention {card['convention']}"
    return " \\\n  ".join([first, " ".join(counts[:4]), " ".join(counts[4:])])
