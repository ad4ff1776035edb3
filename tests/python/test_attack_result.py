"""Results are kept whole: saved and read back to the same bits, logged line by line, drawn."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import titer
from test_gcg import GCG, Complaint, Victim, victim
from titer.attacks import AttackResult

__all__ = ["victim"]  # a fixture


@pytest.fixture(scope="module")
def result(victim: Victim) -> AttackResult:
    attack = GCG(optim_str_init=["x x x x x x"], allow_non_ascii=True)
    return attack.run(victim.system, victim.prompt(target='Sure, "here" — é\n'))


FIELDS = [
    "attack", "target", "text", "ids", "initial_loss", "loss", "success", "initial_completion",
    "completion", "stop_reason", "template_hash",
]  # fmt: skip


def test_saved_and_loaded_is_the_same_to_the_bit(result: AttackResult, tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    result.save(path)
    assert os.listdir(tmp_path) == ["result.json"]
    loaded = AttackResult.load(path)
    for field in FIELDS:
        assert json.loads(json.dumps(getattr(loaded, field))) == json.loads(json.dumps(getattr(result, field)))
    assert loaded.trace.equals(result.trace)
    for field in ("queries", "tokens", "flops", "seconds", "peak_bytes"):
        assert getattr(loaded.cost, field) == getattr(result.cost, field)
    assert loaded.options_json == result.options_json
    written = path.read_bytes()
    loaded.save(path)
    assert path.read_bytes() == written


def test_the_file_is_plain_json(result: AttackResult, tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    result.save(path)
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["format"] == "titer.attack_result.v1"
    assert content["options"]["search_width"] == 24
    assert content["ids"] == result.ids and content["loss"] == result.loss
    assert [step["loss"] for step in content["trace"]] == result.trace["loss"].tolist()
    assert path.read_bytes().endswith(b"}\n")


def test_the_trace_is_a_data_frame(result: AttackResult) -> None:
    assert isinstance(result.trace, pd.DataFrame)
    assert list(result.trace.columns) == [
        "step", "loss", "best_loss", "width", "draws", "ids", "queries", "tokens", "flops", "seconds", "peak_bytes",
    ]  # fmt: skip


def test_saving_replaces_an_older_file(result: AttackResult, tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text("old" * 10_000)
    result.save(path)
    assert AttackResult.load(path).text == result.text


MANY = json.dumps({str(i): i for i in range(1001)}).encode()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "result.json"),
        (b"[]", "result.json"),
        (b'{"format": "other"}', r"'format' is not titer\.attack_result\.v1"),
        (b'{"format": "titer.attack_result.v1"}', "not an attack result.*result.json"),
        (b'{"format": "titer.attack_result.v1", "attack": 3}', "not an attack result"),
        (b'{"format": "titer.attack_result.v1", "attack": "", "options": []}', "'options' must be.*result.json"),
        (b'{"format": "titer.attack_result.v1", "attack": "", "options": {"a": {}}}', "'options' must be"),
        (b'{"format": "titer.attack_result.v1", "attack": "", "options": {"a": [[]]}}', "'options' must be"),
        (b'{"format": "titer.attack_result.v1", "attack": "", "options": ' + MANY + b"}", "'options' must be"),
        (b'{"format": "\xff"}', "UTF-8"),
        (b'{"a": ' * 5000, "result.json"),
    ],
)
def test_files_that_are_no_results_are_refused_by_name(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "result.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        AttackResult.load(path)


def test_a_missing_file_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.json"):
        AttackResult.load(tmp_path / "none.json")


def test_a_full_disk_is_an_os_error(result: AttackResult) -> None:
    with pytest.raises(OSError, match="No space left"):
        result.save("/dev/full")


LIMITED = """
import os, resource, sys, titer
sys.path.insert(0, sys.argv[1])
from test_gcg import GCG, MESSAGE, TARGET

model = titer.load_model(sys.argv[2])
prompt = titer.Prompt.from_chat(model, MESSAGE, target=TARGET, initial="x x x x x x")
run = lambda **how: GCG(momentum=0.5).run(titer.System(model), prompt, **how)
result = run()
os.chdir(sys.argv[3])
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
for write in (lambda: result.save("result.json"), lambda: run(checkpoint="c.ckpt"), lambda: run(log="log.jsonl")):
    try:
        write()
        print("written")
    except OSError as error:
        print(type(error).__name__, error.errno)
"""


def test_a_file_that_does_not_fit_leaves_the_old_one(victim: Victim, tmp_path: Path) -> None:
    """A limit on file sizes stands for a full disk."""
    for name in ("result.json", "c.ckpt"):
        (tmp_path / name).write_text("old")
    (tmp_path / "log.jsonl").write_text('{"event":"old"}\n')
    run = subprocess.run(
        [sys.executable, "-c", LIMITED, str(Path(__file__).parent), str(victim.folder), str(tmp_path)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert run.stdout.splitlines() == ["OSError 27"] * 3
    assert sorted(os.listdir(tmp_path)) == ["c.ckpt", "log.jsonl", "result.json"]
    assert (tmp_path / "result.json").read_text() == (tmp_path / "c.ckpt").read_text() == "old"
    lines = (tmp_path / "log.jsonl").read_text().splitlines()
    assert lines[0] == '{"event":"old"}'
    assert all(json.loads(line) for line in lines), "every line that was written is whole"


def test_the_log_tells_start_steps_and_result(victim: Victim, tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    result = GCG().run(victim.system, victim.prompt(), log=path)
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert [record["event"] for record in records] == ["start", "step", "step", "step", "step", "result"]
    start, *steps, end = records
    assert start["attack"] == "gcg" and start["options"] == json.loads(result.options_json)
    assert start["initial_loss"] == result.initial_loss
    assert [step["loss"] for step in steps] == result.trace["loss"].tolist()
    assert [step["cost"]["queries"] for step in steps] == result.trace["queries"].tolist()
    assert end["text"] == result.text and end["success"] == result.success and end["loss"] == result.loss


def test_the_log_grows_by_every_run_and_keeps_what_a_failed_one_wrote(victim: Victim, tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"

    def fail(step: titer.attacks.AttackStep) -> bool:
        raise Complaint

    with pytest.raises(Complaint):
        GCG().run(victim.system, victim.prompt(), log=path, progress=fail)
    GCG(num_steps=1).run(victim.system, victim.prompt(), log=path)
    events = [json.loads(line)["event"] for line in path.read_text().splitlines()]
    assert events == ["start", "step", "start", "step", "result"]


def test_a_log_with_another_writer_is_refused(victim: Victim, tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"

    def run_inside(step: titer.attacks.AttackStep) -> None:
        GCG().run(victim.system, victim.prompt(), log=path)

    with pytest.raises(BlockingIOError, match=r"log\.jsonl"):
        GCG().run(victim.system, victim.prompt(), log=path, progress=run_inside)


def test_a_result_can_be_drawn(result: AttackResult) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    axes = result.plot()
    lines = {line.get_label(): line for line in axes.get_lines()}
    assert list(lines["best so far"].get_ydata()) == result.trace["best_loss"].tolist()
    assert list(lines["step"].get_xdata()) == result.trace["step"].tolist()
    assert "not reached" in axes.get_title()
    own = plt.subplots()[1]
    assert result.plot(own) is own
    axes.figure.canvas.draw()
    plt.close("all")


@pytest.mark.parametrize(
    ("loss", "label"),
    [
        ("cross_entropy", "cross entropy loss (nats per target token)"),
        ("mellowmax", "mellowmax loss (logits)"),
        ("carlini_wagner", "carlini wagner loss (logits)"),
    ],
)
def test_a_drawing_names_the_loss_and_its_unit(victim: Victim, loss: str, label: str) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    axes = GCG(num_steps=1, loss=loss).run(victim.system, victim.prompt()).plot()
    assert axes.get_ylabel() == label
    plt.close("all")
