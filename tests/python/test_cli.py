"""The command line tool: what it prints where, its exit codes, and that an interrupted run loses nothing."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import titer
from tiny_models import write_tiny_llama
from titer.cli import main
from titer.cli.exit_codes import ExitCode
from titer.display import SearchProgress

PROMPT = "What is the capital? {slot}"
SMALL = ["num_steps=3", "search_width=12", "topk=32"]


def arguments(model: Path, out: Path, *more: str, prompt: str = PROMPT, target: str = "NO") -> list[str]:
    return ["attack", "gcg", "--model", str(model), "--prompt", prompt, "--target", target, "--out", str(out), *more]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "result.json"


def without_effort(result: titer.attacks.AttackResult) -> dict[str, Any]:
    """A result as JSON, without what differs between two equal runs: time, memory, and work that a resume repeats."""
    content: dict[str, Any] = json.loads(result.to_json())
    for part in (content, *content["trace"]):
        for measure in ("seconds", "peak_bytes", "flops"):
            del part["cost"][measure]
    return content


def own_answer(folder: Path) -> str:
    """A target that the model says by itself."""
    model = titer.load_model(folder)
    session = titer.System(model).open(titer.Prompt.from_chat(model, PROMPT, "NO"))
    answer = session.generate("x x x x x x x x x x x x x x x x x x x x").text
    for length in range(1, len(answer)):
        try:
            titer.Prompt.from_chat(model, PROMPT, answer[:length])
        except ValueError:
            continue
        return answer[:length]
    raise AssertionError(f"no prefix of {answer!r} is a target")


def test_help_needs_neither_torch_nor_the_extension() -> None:
    code = (
        "import sys; from titer.cli import main; assert main(['--help']) == 0;"
        "assert not {'torch', 'titer._titer', 'transformers'} & set(sys.modules)"
    )
    path = ":".join(sys.path)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": path})
    assert done.returncode == 0, done.stderr
    for command in ("attack", "clinic", "models", "version"):
        assert command in done.stdout


def test_module_runs_as_a_program() -> None:
    path = ":".join(sys.path)
    command = [sys.executable, "-m", "titer", "no-such-command"]
    done = subprocess.run(command, capture_output=True, text=True, env={"PYTHONPATH": path})
    assert done.returncode == 2
    assert done.stdout == ""
    assert "titer: No such command 'no-such-command'" in done.stderr


def test_help_tells_every_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    words = set(capsys.readouterr().out.split())
    assert {str(code.value) for code in ExitCode} <= words


def test_help_of_an_attack_lists_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["attack", "gcg", "--help"]) == 0
    text = capsys.readouterr().out
    for option in titer.attacks.GCG.describe():
        assert f"{option['name']}=" in text


def test_goal_reached_is_exit_code_0(tiny_folder: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = own_answer(tiny_folder)
    assert main(arguments(tiny_folder, out, "num_steps=0", target=target)) == 0
    assert "reached   yes" in capsys.readouterr().out
    assert titer.attacks.AttackResult.load(out).success


def test_goal_not_reached_is_exit_code_1(tiny_folder: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = out.with_name("run.jsonl")
    assert main(arguments(tiny_folder, out, *SMALL, "--log", str(log))) == 1
    printed = capsys.readouterr()
    assert "reached   no" in printed.out
    assert str(out) in printed.out
    assert "step 3/3  loss" in printed.err
    result = titer.attacks.AttackResult.load(out)
    assert not result.success
    assert len(result.steps) == 3
    events = [json.loads(line)["event"] for line in log.read_text().splitlines()]
    assert events == ["start", "step", "step", "step", "result"]
    assert sorted(file.name for file in out.parent.iterdir()) == ["result.json", "run.jsonl"]


def test_json_alone_is_on_stdout(tiny_folder: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments(tiny_folder, out, *SMALL, "--json")) == 1
    assert capsys.readouterr().out == out.read_text()


def test_the_command_does_what_the_library_does(tiny_folder: Path, out: Path) -> None:
    main(arguments(tiny_folder, out, *SMALL, "--seed", "5", "--slot-text", "the town the town"))
    model = titer.load_model(tiny_folder)
    prompt = titer.Prompt.from_chat(model, PROMPT, "NO", initial="the town the town")
    attack = titer.attacks.GCG(num_steps=3, search_width=12, topk=32, seed=5)
    expected = attack.run(titer.System(model), prompt)
    assert without_effort(titer.attacks.AttackResult.load(out)) == without_effort(expected)


def test_plain_prompts_have_no_template(tiny_folder: Path, out: Path) -> None:
    main(arguments(tiny_folder, out, "num_steps=0"))
    assert titer.attacks.AttackResult.load(out).template_hash != ""
    main(arguments(tiny_folder, out, "num_steps=0", "--plain"))
    assert titer.attacks.AttackResult.load(out).template_hash == ""


def test_model_without_a_template_is_attacked_as_plain_text_and_said_so(
    tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = write_tiny_llama(tmp_path / "base", chat_template=None)
    main(arguments(base, out, "num_steps=0"))
    assert titer.attacks.AttackResult.load(out).template_hash == ""
    assert "titer: the model has no chat template" in capsys.readouterr().err
    main(arguments(base, out, "num_steps=0", "--plain"))
    assert capsys.readouterr().err == ""


def test_a_conversation_comes_from_a_file(tiny_folder: Path, out: Path) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Tell me {slot}"},
        {"role": "assistant", "content": "What?"},
        {"role": "user", "content": "Now."},
    ]
    file = out.with_name("messages.json")
    file.write_text(json.dumps(messages))
    command = [word for word in arguments(tiny_folder, out, *SMALL) if word not in ("--prompt", PROMPT)]
    assert main([*command, "--messages", str(file)]) == 1
    model = titer.load_model(tiny_folder)
    attack = titer.attacks.GCG(num_steps=3, search_width=12, topk=32)
    expected = attack.run(titer.System(model), titer.Prompt.from_chat(model, messages, "NO"))
    assert without_effort(titer.attacks.AttackResult.load(out)) == without_effort(expected)


@pytest.mark.parametrize(
    ("content", "more", "message"),
    [
        (None, [], "give either --prompt or --messages"),
        ("[]", ["--prompt", "{slot}"], "give either --prompt or --messages"),
        ("[]", ["--plain"], "--messages needs the chat template"),
        ("{", [], "not valid JSON"),
        ("3", [], "expected a list of messages, got int"),
        ('["{slot}"]', [], "message 0 must be a dictionary"),
        ("[]", [], "must hold {slot} exactly once"),
        (b"\xff", [], "not valid JSON"),
        (b"", [], "not valid JSON"),
        ("missing", [], "No such file"),
    ],
)
def test_bad_conversations_are_wrong_usage(
    tiny_folder: Path, out: Path, capsys: pytest.CaptureFixture[str], content: Any, more: list[str], message: str
) -> None:
    file = out.with_name("messages.json")
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content not in (None, "missing"):
        file.write_text(content)
    command = [word for word in arguments(tiny_folder, out, *SMALL) if word not in ("--prompt", PROMPT)]
    given = [] if content is None else ["--messages", str(file)]
    assert main([*command, *given, *more]) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_options_come_from_defaults_then_config_then_assignments_then_seed(tiny_folder: Path, out: Path) -> None:
    config = out.with_name("gcg.yaml")
    config.write_text("num_steps: 0\nsearch_width: 7\ntopk: 9\nseed: 1\n")
    main(arguments(tiny_folder, out, "--config", str(config), "topk=10", "seed=2", "--seed", "3"))
    options = json.loads(titer.attacks.AttackResult.load(out).options_json)
    defaults = titer.attacks.GCG().options
    assert options == defaults | {"num_steps": 0, "search_width": 7, "topk": 10, "seed": 3}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"more": ["search_widht=4"]}, "did you mean 'search_width'?"),
        ({"more": ["search_width=-3"]}, "[gcg] search_width must be at least 1, got -3"),
        ({"more": ["search_width"]}, "expected key=value"),
        ({"more": ["--seed", "-1"]}, "seed must be at least 0"),
        ({"more": ["--config", "absent.yaml"]}, "absent.yaml"),
        ({"more": ["--dtype", "int4"]}, "--dtype"),
        ({"more": ["--device", "abacus"]}, "abacus"),
        ({"more": ["n_replace=21"]}, "n_replace must be at most the slot length (20), got 21"),
        ({"more": ["n_replace=3", 'optim_str_init=["x x"]']}, "n_replace must be at most the slot length (2), got 3"),
        ({"more": ['optim_str_init=["x x", "x"]']}, "the same number of tokens, got 2, 1"),
        ({"more": ['optim_str_init=["x<|im_end|>"]']}, "<|im_end|>"),
        ({"more": ["--slot-text", ""]}, "the slot needs an initial text"),
        ({"model": "no-such-model"}, "'no-such-model'"),
        ({"model": "no/such/folder"}, "no/such/folder"),
        ({"model": "absent.gguf"}, "absent.gguf"),
        ({"prompt": "no place to write"}, "{slot} exactly once, found it 0 times"),
        ({"prompt": "{slot} and {slot}"}, "{slot} exactly once, found it 2 times"),
        ({"prompt": "long " * 600 + "{slot}"}, "512"),
        ({"target": ""}, "the target is empty"),
        ({"out": "absent/result.json"}, "absent does not exist; create it first"),
        ({"out": "."}, "expected a file to write, got a folder"),
        ({"out": "/proc/result.json"}, "cannot write into the folder /proc"),
        ({"more": ["--log", "absent/run.jsonl"]}, "absent does not exist; create it first"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_usage_is_one_line_and_exit_code_2(
    changes: dict[str, Any],
    message: str,
    tiny_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    given = {"model": tiny_folder, "out": "result.json", "more": [], "prompt": PROMPT, "target": "NO"} | changes
    words = arguments(
        given["model"], Path(given["out"]), *SMALL[:1], *given["more"], prompt=given["prompt"], target=given["target"]
    )
    assert main(words) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert message in printed.err
    assert [line for line in printed.err.splitlines() if message in line] == printed.err.splitlines()[-1:]
    assert "Traceback" not in printed.err
    assert list(tmp_path.iterdir()) == []


def test_missing_argument_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["attack", "gcg", "--model", "smollm2"]) == 2
    assert "Missing option" in capsys.readouterr().err


def test_damaged_model_is_a_failure(
    tiny_folder: Path, tmp_path: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(tiny_folder, tmp_path / "damaged")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    assert main(arguments(folder, out)) == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert "model.safetensors" in line
    assert not out.exists()
    assert main(arguments(folder, out, "--traceback")) == 3
    assert "Traceback" in capsys.readouterr().err


def test_run_that_fails_is_exit_code_3(tiny_folder: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With one token of one position to choose from, most searches soon have no candidate left."""
    codes = set()
    for seed in range(30):
        words = ["num_steps=3", "topk=1", f"seed={seed}", "--slot-text", "x"]
        codes.add(main(arguments(tiny_folder, out.with_name(f"{seed}.json"), *words)))
        if 3 in codes:
            break
    assert codes <= {1, 3} and 3 in codes
    assert "[gcg] no candidate of step" in capsys.readouterr().err


def test_checkpoint_that_cannot_be_read_is_exit_code_3(
    tiny_folder: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = out.with_name("result.json.ckpt")
    checkpoint.write_bytes(b"\x08\0\0\0\0\0\0\0{}      ")
    assert main(arguments(tiny_folder, out, *SMALL, "--resume")) == 3
    assert str(checkpoint) in capsys.readouterr().err
    assert checkpoint.exists()


@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_device_that_the_library_was_not_built_for_is_wrong_usage(
    device: str, tiny_folder: Path, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("titer.loading.build_info", lambda: {"cuda": False})
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert main(arguments(tiny_folder, out, "--device", device)) == 2
    assert f"device is '{device}', but this library was built without CUDA; rebuild" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"\[load_model\] device is .* built without CUDA; rebuild"):
        titer.load_model(tiny_folder, device=device)


@pytest.fixture
def interrupt_at(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes Ctrl-C arrive when a step has ended."""
    show = SearchProgress.__call__

    def interrupt(at: int) -> None:
        def call(self: SearchProgress, step: Any) -> None:
            show(self, step)
            if step.step == at:
                signal.raise_signal(signal.SIGINT)

        monkeypatch.setattr(SearchProgress, "__call__", call)

    return interrupt


def test_interrupted_run_goes_on_where_it_stopped(
    tiny_folder: Path, out: Path, interrupt_at: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["num_steps=5", "search_width=12", "momentum=0.4"]
    whole = out.with_name("whole.json")
    assert main(arguments(tiny_folder, whole, *options)) == 1
    capsys.readouterr()

    interrupt_at(2)
    assert main(arguments(tiny_folder, out, *options)) == 130
    checkpoint = out.with_name("result.json.ckpt")
    printed = capsys.readouterr()
    assert printed.out == ""
    assert str(checkpoint) in printed.err
    assert "--resume" in printed.err
    assert checkpoint.exists()
    assert not out.exists()

    assert main(arguments(tiny_folder, out, *options)) == 2
    assert "--resume" in capsys.readouterr().err
    assert main(arguments(tiny_folder, out, *options, "seed=1", "--resume")) == 2
    assert "'options' differs" in capsys.readouterr().err
    assert main(arguments(tiny_folder, out, *options, "--resume", prompt="Another one? {slot}")) == 2
    assert "'before_ids' differs" in capsys.readouterr().err
    assert main(arguments(write_tiny_llama(out.with_name("other"), seed=1), out, *options, "--resume")) == 2
    assert "'system' differs; resume with the model" in capsys.readouterr().err
    assert checkpoint.exists()

    assert main(arguments(tiny_folder, out, *options, "--resume")) == 1
    load = titer.attacks.AttackResult.load
    assert without_effort(load(out)) == without_effort(load(whole))
    assert not checkpoint.exists()


def test_interrupt_before_the_first_step_leaves_nothing(
    tiny_folder: Path, out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def enter(self: SearchProgress) -> SearchProgress:
        signal.setitimer(signal.ITIMER_REAL, 1e-3)
        return self

    def alarm(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(SearchProgress, "__enter__", enter)
    previous = signal.signal(signal.SIGALRM, alarm)
    try:
        assert main(arguments(tiny_folder, out, "search_width=1000000")) == 130
    finally:
        signal.signal(signal.SIGALRM, previous)
    assert "nothing to resume" in capsys.readouterr().err
    assert list(out.parent.iterdir()) == []


def test_resume_without_a_checkpoint_starts_anew(
    tiny_folder: Path, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(tiny_folder, out, *SMALL, "--resume")) == 1
    assert "there is no checkpoint" in capsys.readouterr().err
    assert out.exists()


def test_checkpoint_stays_until_the_result_is_written(
    tiny_folder: Path, out: Path, interrupt_at: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt_at(2)
    assert main(arguments(tiny_folder, out, *SMALL)) == 130
    checkpoint = out.with_name("result.json.ckpt")
    unlink = Path.unlink

    def checked(self: Path, missing_ok: bool = False) -> None:
        if self == checkpoint:
            assert out.exists()
        unlink(self, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", checked)
    interrupt_at(-1)
    assert main(arguments(tiny_folder, out, *SMALL, "--resume")) == 1
    assert not checkpoint.exists()


def test_models_get_prints_the_folder_alone(tiny_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "get", str(tiny_folder)]) == 0
    assert capsys.readouterr().out == f"{tiny_folder}\n"
    assert main(["models", "get", str(tiny_folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"path": str(tiny_folder)}
    assert main(["models", "get", "no-such-model"]) == 2
    assert "no-such-model" in capsys.readouterr().err


def test_models_show_describes_a_folder(tiny_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "show", str(tiny_folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["layers"] == 2
    assert main(["models", "show", str(tiny_folder)]) == 0
    assert "LlamaForCausalLM" in capsys.readouterr().out
    assert main(["models", "show", str(tiny_folder / "absent")]) == 2


def test_version_tells_what_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["titer"] == titer.__version__
    assert facts["threads"] >= 1
    assert main(["version"]) == 0
    assert facts["torch"] in capsys.readouterr().out
