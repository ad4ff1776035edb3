"""Model files from strangers are refused by name, in bounded memory, without a hang; nothing in them is executed."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import bad_input_loader
import titer
from bad_inputs import ROWS
from bad_inputs.row import CANARY, Row
from bad_inputs.weight_rows import shard
from tiny_gguf import write_gguf

WATCHDOG_SECONDS = 120  # by then it hangs; how fast a machine is decides no test


def max_bytes(size: int) -> int:
    return (64 << 20) + 16 * size


class Loader:
    """`bad_input_loader` in its process, which starts anew when an input has ended it."""

    def __init__(self, good: dict[str, Path], cache: Path) -> None:
        self.good = good
        self.cache = cache
        self.process: subprocess.Popen[str] | None = None

    def load(self, loader: str, path: Path) -> dict[str, Any]:
        if self.process is None:
            self.start()
        process = self.process
        assert process is not None and process.stdin is not None and process.stdout is not None
        watchdog = threading.Timer(WATCHDOG_SECONDS, process.kill)
        watchdog.start()
        try:
            process.stdin.write(json.dumps({"load": loader, "path": str(path)}) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        finally:
            watchdog.cancel()
        if not line:
            self.process = None
            pytest.fail(f"the process ended with status {process.wait()}, or took {WATCHDOG_SECONDS} s")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def start(self) -> None:
        """Start the process and load every kind of model once: imports are no part of what a bad one costs."""
        self.process = subprocess.Popen(
            [sys.executable, bad_input_loader.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | {"XDG_CACHE_HOME": str(self.cache), "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        for kind, folder in self.good.items():
            for load in ("model", "show", "answer"):
                if (kind, load) != ("gguf", "show"):
                    assert self.load(load, path_of(kind, folder))["error"] is None

    def stop(self) -> None:
        if self.process is not None:
            self.process.communicate()


@pytest.fixture(scope="module")
def good(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The models that rows damage."""
    folder = tmp_path_factory.mktemp("good")
    gguf = folder / "gguf"
    gguf.mkdir()
    write_gguf(tiny_folder, gguf / "model.gguf")
    return {"folder": tiny_folder, "sharded": shard(shutil.copytree(tiny_folder, folder / "sharded")), "gguf": gguf}


@pytest.fixture(scope="module")
def loader(good: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loader]:
    loader = Loader(good, tmp_path_factory.mktemp("cache"))
    yield loader
    loader.stop()


def path_of(kind: str, folder: Path) -> Path:
    return folder / "model.gguf" if kind == "gguf" else folder


def content_of(folder: Path) -> dict[str, Any]:
    """Return everything below a folder: the kinds of the entries, and what files hold if that is not too long."""
    found: dict[str, Any] = {}
    for path in folder.rglob("*"):
        status = path.lstat()
        found[str(path)] = status.st_mode, status.st_mtime_ns, status.st_size
        if stat.S_ISREG(status.st_mode) and status.st_size < 1 << 20:
            found[str(path)] += (path.read_bytes(),)
    return found


def size_of(folder: Path) -> int:
    return sum(path.lstat().st_size for path in folder.iterdir())


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
def test_bad_input_is_refused(row: Row, good: dict[str, Path], loader: Loader, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(good[row.model], tmp_path / "model"))
    row.damage(folder)
    before = content_of(tmp_path)
    answer = loader.load(row.load, path_of(row.model, folder))

    message = answer["message"]
    assert (answer["error"], bool(re.search(row.message, message))) == (row.error.__name__, True), message[:2000]
    assert message.isprintable() and len(message) < 1500 + len(str(folder)), message[:2000]
    assert row.file in message, message
    assert content_of(tmp_path) == before and CANARY not in {path.name for path in tmp_path.iterdir()}
    assert answer["bytes"] <= max_bytes(size_of(folder))


def test_every_row_has_a_name_of_its_own() -> None:
    names = [row.id for row in ROWS]
    assert len(names) >= 200
    assert sorted(names) == sorted(set(names))


def test_links_of_a_hugging_face_cache_are_followed(tiny_folder: Path, tmp_path: Path) -> None:
    """What is refused elsewhere: every file is a link into a folder beside the snapshots."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "0123"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    for number, file in enumerate(sorted(tiny_folder.iterdir())):
        shutil.copy(file, blobs / str(number))
        (snapshot / file.name).symlink_to(f"../../blobs/{number}")
    bad_input_loader.load(snapshot)
    assert titer.models.show(snapshot)["model_type"] == "llama"


def test_links_within_a_folder_are_followed(tiny_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "model"))
    (folder / "files").mkdir()
    for name in ("config.json", "model.safetensors", "chat_template.jinja"):
        (folder / name).rename(folder / "files" / name)
        (folder / name).symlink_to(f"files/{name}")
    (tmp_path / "link").symlink_to(folder)
    bad_input_loader.load(tmp_path / "link")
