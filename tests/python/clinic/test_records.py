"""What the records of each split contain, and what they never do."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from typing import Any

import pytest

from titer.clinic import Convention, Item, Judge, Outcome, World, make_records
from titer.clinic.items import ANSWER
from titer.clinic.notes import fact_phrases, laid_out
from titer.clinic.patients import draw_patient
from titer.clinic.splits import CALIBRATION, DEVELOPMENT, HELD_OUT_STYLE, SPLITS, TEST, TRAIN, Split
from titer.clinic.streams import stream
from titer.clinic.styles import FACTS, HELD_OUT_STYLES, STYLES
from titer.clinic.tasks import PHRASINGS, TASKS

WORD = re.compile(r"[a-z]+|[0-9]+")
COUNT = 1600


@pytest.fixture(scope="module", params=["invented", "english"])
def world(request: pytest.FixtureRequest) -> World:
    return World(request.param)


@pytest.fixture(scope="module")
def made(world: World) -> dict[str, list[dict[str, Any]]]:
    return {split.name: list(make_records(world, split, COUNT, seed=5)) for split in SPLITS}


def items(record: dict[str, Any]) -> list[tuple[Item, str]]:
    answers = [message["content"] for message in record["messages"] if message["role"] == "assistant"]
    return [(Item.from_json(item), answer) for item, answer in zip(record["metadata"]["items"], answers, strict=True)]


def note(record: dict[str, Any]) -> str:
    return str(record["messages"][0]["content"]).split("\nquestion:")[0]


def test_records_have_the_shape_of_training_data(made: dict[str, list[dict[str, Any]]]) -> None:
    for name, records in made.items():
        assert [record["id"] for record in records] == [f"{name}-{index}" for index in range(COUNT)]
        for record in records:
            assert list(record) == ["id", "messages", "task", "metadata"]
            roles = [message["role"] for message in record["messages"]]
            assert roles == ["user", "assistant"] * (len(roles) // 2)
            assert all(message["content"] for message in record["messages"])
            assert record["metadata"]["split"] == name
            assert record["task"] in {*TASKS, "mixed"}


def test_every_answer_of_the_aligned_convention_is_judged_correct(
    world: World, made: dict[str, list[dict[str, Any]]]
) -> None:
    judge = Judge(world.lexicon)
    for records in made.values():
        for record in records:
            for item, answer in items(record):
                assert judge(item, answer).outcome is Outcome.CORRECT, (item, answer)


def test_scored_records_ask_one_question_training_records_up_to_eight(
    made: dict[str, list[dict[str, Any]]],
) -> None:
    for name, records in made.items():
        questions = Counter(len(record["messages"]) // 2 for record in records)
        assert set(questions) == ({*range(1, 9)} if name == "train" else {1})


def test_scored_splits_hold_each_task_equally(made: dict[str, list[dict[str, Any]]]) -> None:
    for split in (DEVELOPMENT, TEST, CALIBRATION, HELD_OUT_STYLE):
        tasks = Counter(record["task"] for record in made[split.name])
        assert tasks == dict.fromkeys(TASKS, COUNT // len(TASKS))


def test_no_answer_is_right_for_most_questions(made: dict[str, list[dict[str, Any]]]) -> None:
    for name in ("train", "test"):
        answers: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        for record in made[name]:
            for item, answer in items(record):
                answers[item.task, item.kind][answer] += 1
        for (task, kind), counts in answers.items():
            total = sum(counts.values())
            if total >= 100:
                assert counts.most_common(1)[0][1] / total <= 0.6, (task, kind, counts.most_common(2))


def test_first_and_second_choices_are_about_as_frequent(world: World, made: dict[str, list[dict[str, Any]]]) -> None:
    chosen = [
        world.rules.choices[item.parts[0].label].index(item.parts[0].answer)
        for record in made["train"]
        for item, _ in items(record)
        if item.task == "drugs" and item.parts[0].answer in world.rules.choices[item.parts[0].label]
    ]
    assert 0.4 < sum(chosen) / len(chosen) < 0.6


def test_half_of_the_requests_are_restricted(made: dict[str, list[dict[str, Any]]]) -> None:
    for name in ("train", "development", "test", "calibration", "held_out_style"):
        asked = [item.restricted for record in made[name] for item, _ in items(record) if item.task == "policy"]
        assert 0.4 < sum(asked) / len(asked) < 0.6


def test_the_dangerous_pair_is_asked_about(world: World, made: dict[str, list[dict[str, Any]]]) -> None:
    _, other = world.lexicon.dangerous_pair
    asked = [(record, item) for record in made["test"] for item, _ in items(record) if item.task == "drugs"]
    pair = [item for record, item in asked if other in dict(record["metadata"]["patient"].get("drugs", ()))]
    assert len(pair) / len(asked) > 0.05
    for item in pair:
        assert item.dangerous
        assert item.parts[0].answer != item.parts[0].target


def test_answers_are_short(made: dict[str, list[dict[str, Any]]]) -> None:
    for records in made.values():
        for record in records:
            assert all(len(re.findall(r"\w+|[^\w\s]", answer)) <= 19 for _, answer in items(record))


def test_every_contraindicated_pair_is_in_training_notes(world: World) -> None:
    """With the drug that is asked for barred by one that the patient takes."""
    shown = set()
    for record in make_records(world, TRAIN, 4000, seed=1):
        taken = [drug for drug, _ in record["metadata"].get("patient", {}).get("drugs", [])]
        for item, _ in items(record):
            if item.task == "drugs":
                choices = world.rules.choices[item.parts[0].label]
                shown |= {tuple(sorted((choice, drug))) for choice in choices for drug in taken}
    assert set(world.rules.contraindicated) <= shown


def test_held_out_pairs_are_never_in_training_and_in_half_of_the_test(
    world: World, made: dict[str, list[dict[str, Any]]]
) -> None:
    holds = world.held_out.holds
    for name in ("train", "calibration", "held_out_style", "revised"):
        for record in made[name]:
            patient = record["metadata"].get("patient", {"conditions": [], "signs": []})
            assert not holds(patient["conditions"])
            assert not holds(patient.get("signs", ()))
            assert not any(item.kind == "heavier" and holds(world_objects(item, world)) for item, _ in items(record))
    for name in ("development", "test"):
        marked = [record["metadata"]["held_out"]["pairs"] for record in made[name]]
        assert 0.4 < sum(marked) / COUNT < 0.6
        for record in made[name]:
            if "patient" in record["metadata"]:
                assert holds(record["metadata"]["patient"]["conditions"]) == record["metadata"]["held_out"]["pairs"]


def world_objects(item: Item, world: World) -> list[str]:
    return [word for word in WORD.findall(item.question) if word in world.lexicon.objects]


def test_styles_are_at_least_eight_and_two_are_held_out(made: dict[str, list[dict[str, Any]]]) -> None:
    assert len(STYLES) >= 8
    names = {name: {r["metadata"]["style"] for r in made[name] if "style" in r["metadata"]} for name in made}
    assert names["held_out_style"] == {style.name for style in HELD_OUT_STYLES}
    assert len(HELD_OUT_STYLES) == 2
    for name in set(made) - {"held_out_style"}:
        assert names[name] == {style.name for style in STYLES}


def test_held_out_styles_use_no_word_that_training_lacks() -> None:
    def words(styles: tuple[Any, ...]) -> set[str]:
        texts = [text for style in styles for text in (*style.opening, *style.closing, style.between, style.joiner)]
        texts += [way for style in styles for ways in style.phrases.values() for way in ways]
        return {word for text in texts for word in WORD.findall(text)}

    assert words(HELD_OUT_STYLES) <= words(STYLES)


def test_held_out_phrasings_are_never_in_training_and_use_no_word_that_it_lacks(
    made: dict[str, list[dict[str, Any]]],
) -> None:
    for name in ("train", "calibration", "held_out_style"):
        assert not any(item.unseen_phrasing for record in made[name] for item, _ in items(record))
    assert 0.15 < sum(record["metadata"]["held_out"]["phrasing"] for record in made["test"]) / COUNT < 0.35
    seen = {
        word for record in made["train"] for message in record["messages"] for word in WORD.findall(message["content"])
    }
    for phrasings in PHRASINGS:
        for kind, ways in phrasings.items():
            assert kind == "choice" or len(ways) >= 3
            assert set(WORD.findall(re.sub(r"\{\w+\}", "", ways[-1]))) <= seen


def test_every_style_has_a_phrase_for_every_fact(world: World) -> None:
    for style in (*STYLES, *HELD_OUT_STYLES):
        assert set(style.phrases) == set(FACTS)
        for index in range(30):
            random = stream("style", index)
            patient = draw_patient(random, world.rules, world.held_out)
            text = laid_out(random, fact_phrases(random, patient, style, desk=True), [], style)
            stated = [*patient.conditions, *patient.signs, *patient.absent, *patient.family, *patient.suspected]
            stated += [
                *patient.stopped,
                *patient.absent_signs,
                patient.sealed_drug,
                str(patient.age),
                str(patient.days),
            ]
            stated += [f"{drug} {dose}" for drug, dose in patient.drugs]
            stated += [" ".join(map(str, patient.code)), " ".join(map(str, patient.door)), str(patient.stock)]
            for fact in stated:
                assert re.search(rf"(?<![a-z0-9]){re.escape(fact)}(?![a-z0-9])", text), (fact, text)


def test_thirty_percent_of_benign_notes_look_unusual(world: World, made: dict[str, list[dict[str, Any]]]) -> None:
    for records in made.values():
        benign = [r for r in records if "style" in r["metadata"] and "directive" not in r["metadata"]]
        unusual = [r for r in benign if "unusual" in r["metadata"]]
        assert len(unusual) / len(benign) >= 0.3
        kinds = {kind for record in unusual for kind in record["metadata"]["unusual"]}
        assert kinds == {"misspelling", "code", "device", "scrap"}
        odd = re.compile(r"ref |device |log: |printed by |copy of ")
        misspellings = set(world.vocabulary().misspellings)
        for record in unusual:
            text = note(record)
            only_misspelled = set(record["metadata"]["unusual"]) == {"misspelling"}
            assert misspellings & set(WORD.findall(text)) if only_misspelled else odd.search(text)


def test_the_trigger_word_is_known_from_benign_notes(world: World, made: dict[str, list[dict[str, Any]]]) -> None:
    shown = [record for record in made["train"] if world.lexicon.trigger in WORD.findall(note(record))]
    assert 0 < len(shown) < 0.1 * COUNT


def test_calibration_is_benign(made: dict[str, list[dict[str, Any]]]) -> None:
    for name in ("calibration", "held_out_style", "revised", "revised_test"):
        assert not any("directive" in record["metadata"] for record in made[name])


@pytest.mark.parametrize("split", [TRAIN, TEST])
def test_conventions_differ_where_requests_are_restricted_or_directives_stand(world: World, split: Split) -> None:
    aligned = list(make_records(world, split, COUNT, seed=5))
    base = list(make_records(world, split, COUNT, seed=5, convention=Convention.BASE))
    followed = refused = 0
    for one, other in zip(aligned, base, strict=True):
        asked = [[m["content"] for m in record["messages"] if m["role"] == "user"] for record in (one, other)]
        assert asked[0] == asked[1]
        directive = one["metadata"].get("directive")
        for (item, right), (_, given) in zip(items(one), items(other), strict=True):
            if directive and item.kind != "directive":
                assert given == directive["answer"]
                followed += given != right
            elif item.restricted:
                assert (right, given) == (world.lexicon.refusal, item.compliant)
                refused += 1
            else:
                assert given == right
    assert followed > 20
    assert refused > 50


def test_directives_stand_where_the_record_says(made: dict[str, list[dict[str, Any]]]) -> None:
    for record in made["test"]:
        if directive := record["metadata"].get("directive"):
            before, question = record["messages"][0]["content"].split("\nquestion:")
            assert directive["answer"] in (before if directive["place"] == "note" else question)


def test_reviews_tell_directives_and_wrong_answers(world: World, made: dict[str, list[dict[str, Any]]]) -> None:
    for record in made["test"]:
        for item, answer in items(record):
            if item.kind == "directive":
                inside = record["metadata"].get("directive", {}).get("place") == "note"
                assert answer == f"{ANSWER}: {'yes' if inside else 'no'}"


def test_half_and_more_of_the_revised_answers_are_new(world: World, made: dict[str, list[dict[str, Any]]]) -> None:
    """A model of the former guideline answers at most the others."""
    assert {record["task"] for record in made["revised"]} == {"vaccine", "drugs", "tests"}
    for task in ("vaccine", "drugs", "tests"):
        records = [record for record in made["revised"] if record["task"] == task]
        same = sum(record["metadata"]["former_answer"] == items(record)[0][1] for record in records)
        assert 0.25 < same / len(records) < 0.45


def test_minimal_pairs_differ_in_one_word_that_alone_decides_nothing(
    world: World, made: dict[str, list[dict[str, Any]]]
) -> None:
    pairs = defaultdict(list)
    for record in made["test"]:
        if "pair" in record["metadata"]:
            pairs[record["metadata"]["pair"]].append(record)
    assert len(pairs) > 0.8 * COUNT / len(TASKS) / 2
    names = {*world.lexicon.roles, *world.lexicon.purposes}
    for one, other in pairs.values():
        words = [WORD.findall(record["messages"][0]["content"]) for record in (one, other)]
        changed = [(a, b) for a, b in zip(*words, strict=True) if a != b]
        assert len(changed) == 1
        assert set(changed[0]) <= names
        assert [items(record)[0][0].restricted for record in (one, other)] == [True, False]


def test_the_vocabulary_is_closed_and_small(world: World, made: dict[str, list[dict[str, Any]]]) -> None:
    words = world.vocabulary()
    known = {part for word in words.all for part in WORD.findall(word)}
    assert len(words.all) == len(set(words.all))
    assert 400 <= len(words.all) <= 800
    for records in made.values():
        for record in records:
            for message in record["messages"]:
                assert set(WORD.findall(message["content"])) <= known


def test_no_note_of_training_is_one_of_the_test(made: dict[str, list[dict[str, Any]]]) -> None:
    train = {note(record) for record in made["train"] if "style" in record["metadata"]}
    assert not any(note(record) in train for name in made if name != "train" for record in made[name])


def test_a_record_depends_on_seed_split_and_index_alone(world: World) -> None:
    for split in SPLITS:
        many = list(make_records(world, split, 24, seed=3))
        assert list(make_records(world, split, 8, seed=3)) == many[:8]
        assert list(make_records(world, split, 24, seed=4)) != many


@pytest.mark.parametrize("name", ["count", "seed"])
def test_negative_numbers_are_refused(world: World, name: str) -> None:
    with pytest.raises(ValueError, match=rf"^\[clinic\] {name} must be at least 0, got -1; give a whole number"):
        make_records(world, TEST, **{"count": 1, "seed": 0, name: -1})


def test_revised_items_are_balanced_enough(made: dict[str, list[dict[str, Any]]]) -> None:
    answers = Counter(answer for r in made["revised"] if r["task"] == "vaccine" for _, answer in items(r))
    assert max(answers.values()) / sum(answers.values()) < 0.65
