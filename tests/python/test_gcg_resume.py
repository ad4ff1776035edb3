"""Runs repeat bit by bit, also when they are stopped or killed and resumed; a checkpoint fits one search only."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

import titer
from test_gcg import COMPUTED, GCG, Complaint, Victim, victim

__all__ = ["victim"]  # a fixture

SEARCHES: dict[str, dict[str, Any]] = {
    "plain": {},
    "momentum": {"momentum": 0.7},
    "buffer": {"buffer_size": 4, "n_replace": 2},
    "everything": {"momentum": 0.3, "buffer_size": 3, "loss": "mellowmax", "stratified_positions": True},
}
STEPS = 9


def assert_same_bits(one: titer.attacks.AttackResult, other: titer.attacks.AttackResult) -> None:
    assert one.trace[COMPUTED].equals(other.trace[COMPUTED])
    for field in ("ids", "text", "loss", "initial_loss", "success", "completion", "initial_completion", "options_json"):
        assert getattr(one, field) == getattr(other, field), field
    assert (one.cost.queries, one.cost.tokens) == (other.cost.queries, other.cost.tokens)


@pytest.mark.parametrize("search", SEARCHES)
def test_the_same_seed_gives_the_same_bits(victim: Victim, search: str) -> None:
    attack = GCG(num_steps=STEPS, **SEARCHES[search])
    first = attack.run(victim.system, victim.prompt())
    assert_same_bits(attack.run(titer.System(titer.load_model(victim.folder)), victim.prompt()), first)
    other = GCG(num_steps=STEPS, seed=1, **SEARCHES[search]).run(victim.system, victim.prompt())
    assert other.trace["loss"].tolist() != first.trace["loss"].tolist()


def test_a_checkpoint_and_a_log_change_nothing(victim: Victim, tmp_path: Path) -> None:
    plain = GCG().run(victim.system, victim.prompt())
    kept = GCG().run(
        victim.system, victim.prompt(), checkpoint=tmp_path / "c.ckpt", log=tmp_path / "log", progress=lambda _: True
    )
    assert_same_bits(kept, plain)


@pytest.mark.parametrize("how", ["callback", "exception"])
@pytest.mark.parametrize("stops", [[1], [4], [2, 3, 8]], ids=str)
@pytest.mark.parametrize("search", SEARCHES)
def test_stopped_and_resumed_equals_uninterrupted(
    victim: Victim, tmp_path: Path, search: str, stops: list[int], how: str
) -> None:
    attack = GCG(num_steps=STEPS, **SEARCHES[search])
    checkpoint = tmp_path / "result.json.ckpt"

    def stop_at(limit: int) -> Any:
        def progress(step: titer.attacks.AttackStep) -> bool:
            if step.step == limit and how == "exception":
                raise Complaint
            return step.step < limit

        return progress

    for limit in stops:
        try:
            part = attack.run(
                victim.system, victim.prompt(), checkpoint=checkpoint, resume=True, progress=stop_at(limit)
            )
            assert how == "callback" and part.stop_reason == "callback" and len(part.trace) == limit
        except Complaint:
            assert how == "exception"
        assert os.listdir(tmp_path) == [checkpoint.name]
    resumed = attack.run(victim.system, victim.prompt(), checkpoint=checkpoint, resume=True)
    assert_bits_but_cost(resumed, attack.run(victim.system, victim.prompt()), how)


def assert_bits_but_cost(resumed: titer.attacks.AttackResult, whole: titer.attacks.AttackResult, how: str) -> None:
    """Every part that reports a result has scored and answered its final prompt, which costs queries."""
    computed = [name for name in COMPUTED if how != "callback" or name not in ("queries", "tokens")]
    assert resumed.trace[computed].equals(whole.trace[computed])
    for field in ("ids", "text", "loss", "initial_loss", "success", "completion", "initial_completion", "stop_reason"):
        assert getattr(resumed, field) == getattr(whole, field), field


KILLED_RUN = """
import sys, time, titer
sys.path.insert(0, sys.argv[1])
from test_gcg import GCG, MESSAGE, TARGET
model = titer.load_model(sys.argv[2])
prompt = titer.Prompt.from_chat(model, MESSAGE, target=TARGET, initial="x x x x x x")

def progress(step):
    print(step.step, flush=True)
    time.sleep(0.15)

GCG(num_steps=60, momentum=0.5, buffer_size=2).run(
    titer.System(model), prompt, checkpoint=sys.argv[3], progress=progress
)
"""


def test_killed_and_resumed_equals_uninterrupted(victim: Victim, tmp_path: Path) -> None:
    checkpoint = tmp_path / "result.json.ckpt"
    command = [sys.executable, "-c", KILLED_RUN, str(Path(__file__).parent), str(victim.folder), str(checkpoint)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        steps = 0
        while steps < 14:  # at least two seconds, of which checkpoints are one apart
            line = process.stdout.readline()
            assert line, "the run ended before it was killed"
            steps = int(line)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert checkpoint.exists()
    attack = GCG(num_steps=60, momentum=0.5, buffer_size=2)
    seen: list[int] = []
    resumed = attack.run(
        victim.system, victim.prompt(), checkpoint=checkpoint, resume=True, progress=lambda s: seen.append(s.step)
    )
    assert 1 < seen[0] <= 15 and seen[-1] == 60
    assert_same_bits(resumed, attack.run(victim.system, victim.prompt()))


def test_a_finished_search_stays_finished(victim: Victim, tmp_path: Path) -> None:
    checkpoint = tmp_path / "c.ckpt"
    first = GCG().run(victim.system, victim.prompt(), checkpoint=checkpoint)
    seen: list[int] = []
    again = GCG().run(
        victim.system, victim.prompt(), checkpoint=checkpoint, resume=True, progress=lambda s: seen.append(s.step)
    )
    assert seen == []
    assert_bits_but_cost(again, first, "callback")


def test_without_resume_the_search_starts_anew(victim: Victim, tmp_path: Path) -> None:
    checkpoint = tmp_path / "c.ckpt"
    first = GCG().run(victim.system, victim.prompt(), checkpoint=checkpoint)
    seen: list[int] = []
    again = GCG().run(victim.system, victim.prompt(), checkpoint=checkpoint, progress=lambda s: seen.append(s.step))
    assert seen == [1, 2, 3, 4]
    assert_same_bits(again, first)


def test_an_absent_checkpoint_is_a_start(victim: Victim, tmp_path: Path) -> None:
    result = GCG().run(victim.system, victim.prompt(), checkpoint=tmp_path / "none.ckpt", resume=True)
    assert_same_bits(result, GCG().run(victim.system, victim.prompt()))


def test_costs_of_the_parts_add_up(victim: Victim, tmp_path: Path) -> None:
    checkpoint = tmp_path / "c.ckpt"
    attack = GCG(num_steps=6)

    def fail(step: titer.attacks.AttackStep) -> bool:
        if step.step == 3:
            raise Complaint
        return True

    with pytest.raises(Complaint):
        attack.run(victim.system, victim.prompt(), checkpoint=checkpoint, progress=fail)
    resumed = attack.run(victim.system, victim.prompt(), checkpoint=checkpoint, resume=True).trace
    whole = attack.run(victim.system, victim.prompt()).trace
    assert resumed["queries"].equals(whole["queries"]) and resumed["tokens"].equals(whole["tokens"])
    assert (resumed["seconds"].diff().dropna() > 0).all()
    # Opening the session a second time costs a little.
    ratio = resumed["flops"].iloc[-1] / whole["flops"].iloc[-1]
    assert 1 <= ratio < 1.05


@pytest.fixture
def checkpoint(victim: Victim, tmp_path: Path) -> Path:
    path = tmp_path / "c.ckpt"
    GCG().run(victim.system, victim.prompt(), checkpoint=path, progress=lambda step: step.step < 2)
    return path


@pytest.mark.parametrize(
    ("options", "prompt", "culprit"),
    [
        ({"seed": 1}, {}, "options"),
        ({"search_width": 25}, {}, "options"),
        ({"momentum": 0.1}, {}, "options"),
        ({}, {"target": "Sure"}, "target_ids"),
        ({}, {"place": "prefix"}, "before_ids|after_ids"),
    ],
    ids=str,
)
def test_a_checkpoint_of_another_search_is_refused(
    victim: Victim, checkpoint: Path, options: dict[str, Any], prompt: dict[str, Any], culprit: str
) -> None:
    before = checkpoint.read_bytes()
    with pytest.raises(ValueError, match=rf"belongs to another search: '({culprit})' differs.*{checkpoint.name}"):
        GCG(**options).run(victim.system, victim.prompt(**prompt), checkpoint=checkpoint, resume=True)
    assert checkpoint.read_bytes() == before


def test_a_checkpoint_of_another_slot_length_is_refused(victim: Victim, checkpoint: Path) -> None:
    with pytest.raises(ValueError, match=f"another search.*{checkpoint.name}"):
        GCG().run(victim.system, victim.prompt(initial="x x x"), checkpoint=checkpoint, resume=True)


def test_a_checkpoint_of_another_model_is_refused(victim: Victim, checkpoint: Path, tiny_folder: Path) -> None:
    model = titer.load_model(tiny_folder)
    prompt = titer.Prompt.from_chat(
        model, "Tell me about the town. {slot}", target="Sure, here is", initial="x x x x x x"
    )
    with pytest.raises(ValueError, match="another search"):
        GCG().run(titer.System(model), prompt, checkpoint=checkpoint, resume=True)


@pytest.mark.parametrize("change", ["weights", "dtype"])
def test_a_checkpoint_of_the_same_prompt_on_other_weights_is_refused(
    victim: Victim, checkpoint: Path, tmp_path: Path, change: str
) -> None:
    folder = shutil.copytree(victim.folder, tmp_path / "other")
    if change == "weights":
        weights = load_file(folder / "model.safetensors")
        weights["model.layers.1.mlp.up_proj.weight"] *= 1.01
        save_file(weights, folder / "model.safetensors")
    model = titer.load_model(folder, dtype="bfloat16" if change == "dtype" else None)
    with pytest.raises(ValueError, match=r"belongs to another search: 'system' differs; resume with the model"):
        GCG().run(titer.System(model), victim.prompt(), checkpoint=checkpoint, resume=True)


def test_more_steps_or_smaller_batches_may_be_asked_for_at_a_resume(victim: Victim, checkpoint: Path) -> None:
    resumed = GCG(num_steps=STEPS, batch_size=7).run(victim.system, victim.prompt(), checkpoint=checkpoint, resume=True)
    whole = GCG(num_steps=STEPS).run(victim.system, victim.prompt())
    assert resumed.trace["ids"].tolist() == whole.trace["ids"].tolist()
    again = GCG(num_steps=STEPS + 2).run(victim.system, victim.prompt(), checkpoint=checkpoint, resume=True)
    assert len(again.trace) == STEPS + 2
    fewer = GCG(num_steps=3).run(victim.system, victim.prompt(), checkpoint=checkpoint, resume=True)
    assert len(fewer.trace) == STEPS + 2 and fewer.ids == again.ids


@pytest.mark.parametrize(
    "damage", ["truncated", "empty", "garbage", "other safetensors", "broken state", "huge header"]
)
def test_a_damaged_checkpoint_is_refused_by_name(victim: Victim, checkpoint: Path, damage: str) -> None:
    whole = checkpoint.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + length])
    if damage == "other safetensors":
        header["__metadata__"] = {"format": "pt"}
    if damage == "broken state":
        state = json.loads(header["__metadata__"]["state"])
        state["buffer"][0]["ids"] = "x x x"
        header["__metadata__"]["state"] = json.dumps(state)
    rewritten = json.dumps(header).encode()
    content = {
        "truncated": whole[:-40],
        "empty": b"",
        "garbage": b"{" * 500,
        "huge header": (2**60).to_bytes(8, "little") + whole[8:],
    }.get(damage, len(rewritten).to_bytes(8, "little") + rewritten + whole[8 + length :])
    checkpoint.write_bytes(content)
    with pytest.raises(ValueError, match=checkpoint.name):
        GCG().run(victim.system, victim.prompt(), checkpoint=checkpoint, resume=True)
    assert checkpoint.read_bytes() == content


@pytest.mark.parametrize(
    "change",
    [
        {"buffer": []},
        {"buffer": [{"loss": 1.0, "ids": [3, 3, 3]}]},
        {"best": {"loss": 1.0, "ids": [3] * 7}},
        {"buffer": [{"loss": 1.0, "ids": [3, 3, 3, 3, 3, 9999]}]},
        {"step": -1},
    ],
    ids=str,
)
def test_a_checkpoint_whose_state_cannot_be_is_refused(
    victim: Victim, checkpoint: Path, change: dict[str, Any]
) -> None:
    whole = checkpoint.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + length])
    header["__metadata__"]["state"] = json.dumps(json.loads(header["__metadata__"]["state"]) | change)
    rewritten = json.dumps(header).encode()
    checkpoint.write_bytes(len(rewritten).to_bytes(8, "little") + rewritten + whole[8 + length :])
    with pytest.raises((ValueError, IndexError)):
        GCG().run(victim.system, victim.prompt(), checkpoint=checkpoint, resume=True)


def test_a_checkpoint_that_cannot_be_written_is_an_os_error(victim: Victim, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        GCG().run(victim.system, victim.prompt(), checkpoint=tmp_path / "nowhere" / "c.ckpt")


def test_checkpoints_are_written_while_the_search_runs(victim: Victim, tmp_path: Path) -> None:
    checkpoint = tmp_path / "c.ckpt"
    versions: set[bytes] = set()

    def progress(step: titer.attacks.AttackStep) -> None:
        time.sleep(0.4)
        if checkpoint.exists():
            versions.add(checkpoint.read_bytes())

    GCG(num_steps=8).run(victim.system, victim.prompt(), checkpoint=checkpoint, progress=progress)
    assert len(versions) >= 2
