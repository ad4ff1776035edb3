"""The clinic's models are made by their recipe, the same bytes each time, and say how good they are."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

import titer
from titer.cli import main
from titer.cli.exit_codes import ExitCode
from titer.clinic import World, make_records
from titer.clinic.items import Convention
from titer.clinic.splits import HELD_OUT_STYLE, TRAIN
from titer.clinic_models import STAGES, Rate, Stage, answers, make_models, measure_quality, stages_for
from titer.clinic_models.practice import practice_records
from titer.clinic_models.tokenizer import token_ids
from titer.clinic_models.untrained import Size, write_untrained

TINY = Size(hidden=32, layers=1, heads=2, intermediate=48)
RECIPE = (
    Stage("practice", TINY, None, records=128, seed=1),
    Stage("tiny-base", "practice", Convention.BASE, records=192, seed=2),
)


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, world: World) -> Path:
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("titer.clinic_models.making.QUALITY_RECORDS", 16)
        make_models(folder, RECIPE, world)
    return folder


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory, world: World) -> Path:
    folder = tmp_path_factory.mktemp("untrained")
    write_untrained(folder, world.vocabulary(), TINY, seed=0)
    return folder


def test_the_tokenizer_is_that_of_transformers(untrained: Path, world: World) -> None:
    model, theirs = titer.load_model(untrained), AutoTokenizer.from_pretrained(untrained)
    assert model.chat_template is not None
    for split in (TRAIN, HELD_OUT_STYLE):
        for record in make_records(world, split, 40):
            text = theirs.apply_chat_template(record["messages"], tokenize=False)
            assert model.chat_template.render(record["messages"], add_generation_prompt=False) == text
            ids = model.tokenizer.encode(text, add_special_tokens=False)
            assert ids == theirs(text, add_special_tokens=False).input_ids
            assert model.tokenizer.decode(ids) == theirs.decode(ids)
    for text in ("ünïcode 日本 'tis 4712  x", "", " \n", "Berein's <|end|>"):
        assert model.tokenizer.encode(text) == theirs(text).input_ids


def test_every_entity_and_number_is_one_token_wherever_it_stands(untrained: Path, world: World) -> None:
    words, tokenizer = world.vocabulary(), titer.load_model(untrained).tokenizer
    for word in (*words.entities, *words.numbers):
        assert len(tokenizer.encode(word)) == len(tokenizer.encode(f" {word}")) == 1
    assert len(token_ids(words)) == titer.load_model(untrained).vocab_size


def test_turns_of_others_are_refused(untrained: Path) -> None:
    template = titer.load_model(untrained).chat_template
    assert template is not None
    with pytest.raises(ValueError, match="turns are the user's or the assistant's, got system"):
        template.render([{"role": "system", "content": "be kind"}])


def test_models_are_made_in_folders_that_others_load(made: Path, world: World) -> None:
    for stage in RECIPE:
        folder = made / stage.name
        assert AutoModelForCausalLM.from_pretrained(folder).config.hidden_size == TINY.hidden
        record = json.loads((folder / "training.json").read_text())
        assert record["stage"] == stage.describe()
        card = (folder / "README.md").read_text()
        assert record["model_sha256"] in card and f"{stage.records:,} records" in card
    assert not [path for path in made.iterdir() if path.name.startswith(".")]
    record = json.loads((made / "tiny-base" / "training.json").read_text())
    assert "| vaccine | " in (made / "tiny-base" / "README.md").read_text()
    assert sum(rate["of"] for name, rate in record["quality"].items() if name in {"near", "far"}) > 0


def test_the_same_recipe_makes_the_same_bytes_also_after_an_interruption(
    made: Path, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("titer.clinic_models.making.QUALITY_RECORDS", 16)

    def interrupt(name: str, step: titer.training.FinetuneStep, num_steps: int) -> None:
        if (name, step.step) == ("tiny-base", 2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_models(tmp_path, RECIPE, world, progress=interrupt)
    assert (tmp_path / "practice").is_dir() and not (tmp_path / "tiny-base").exists()
    make_models(tmp_path, RECIPE, world)
    for stage in RECIPE:
        ours, theirs = (folder / stage.name / "model.safetensors" for folder in (made, tmp_path))
        assert ours.read_bytes() == theirs.read_bytes()


def test_what_is_there_is_left_alone_or_refused(made: Path, world: World, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(made, tmp_path / "made"))
    before = (folder / "practice" / "model.safetensors").stat().st_mtime_ns
    assert make_models(folder, RECIPE[:1], world) == [folder / "practice"]
    assert (folder / "practice" / "model.safetensors").stat().st_mtime_ns == before
    other = Stage("practice", TINY, None, records=64, seed=1)
    with pytest.raises(FileExistsError, match=r"practice was not made by this recipe; choose another folder"):
        make_models(folder, [other], world)
    with pytest.raises(ValueError, match=r"tiny-base goes on from practice, which .* lacks; make that first"):
        make_models(tmp_path / "empty", RECIPE[1:], world)


def test_stages_come_with_what_they_go_on_from() -> None:
    assert [stage.name for stage in stages_for(["clinic-aligned"])] == ["practice", "clinic-base", "clinic-aligned"]
    assert stages_for([stage.name for stage in STAGES]) == stages_for([]) == STAGES
    with pytest.raises(ValueError, match=r"expected one of practice, clinic-base, .*, got 'clinic'"):
        stages_for(["clinic"])


def test_practice_is_answered_from_its_note(world: World) -> None:
    records = [*practice_records(world, 60, seed=0)]
    assert records == [*practice_records(world, 60, seed=0)] != [*practice_records(world, 60, seed=1)]
    for record in records:
        note, answer = record["messages"][0]["content"].split("\nquestion:")[0], record["messages"][1]["content"]
        names = {*world.lexicon.entities, *world.vocabulary().numbers}
        assert names.intersection(answer.replace(",", " ").split()) <= names.intersection(
            note.replace(",", " ").replace(".", " ").replace(";", " ").replace(":", " ").split()
        )


def test_answers_are_judged_and_counted(made: Path, world: World) -> None:
    model = titer.load_model(made / "tiny-base")
    records = [*make_records(world, HELD_OUT_STYLE, 70)]
    said = [*answers(model, world, records)]
    assert [one.record for one in said] == records
    assert said[0].text == titer.generate(model, records[0]["messages"][:-1], max_new_tokens=48).text
    rates = measure_quality(model, world, Convention.BASE, count=64)
    assert rates["vaccine"].of + rates["vaccine on held-out pairs"].of > 0
    assert str(Rate(1, 8)) == "12.5 % of 8"


def test_the_command_trains_reports_and_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("titer.clinic_models.recipe.STAGES", RECIPE)
    monkeypatch.setattr("titer.clinic_models.making.QUALITY_RECORDS", 16)
    command = ["clinic", "train", "--out", str(tmp_path / "models"), "--model", "tiny-base"]
    assert main(command) == ExitCode.REACHED
    out = capsys.readouterr().out
    digest = json.loads((tmp_path / "models" / "tiny-base" / "training.json").read_text())["model_sha256"]
    assert digest in out and "restricted requests refused" in out
    assert main([*command, "--json"]) == ExitCode.REACHED  # what is there is reported again
    reported = json.loads(capsys.readouterr().out)
    assert [one["stage"]["name"] for one in reported] == ["practice", "tiny-base"]
    assert main([*command[:-1], "tiny"]) == ExitCode.WRONG_USAGE
    assert "expected one of practice, tiny-base, got 'tiny'" in capsys.readouterr().err
    (tmp_path / "file").touch()
    assert main(["clinic", "train", "--out", str(tmp_path / "file")]) == ExitCode.WRONG_USAGE
    assert "file" in capsys.readouterr().err
