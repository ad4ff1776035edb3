"""Fixtures of the Python tests: tiny models made on the spot, real models and peers from the cache.

Tests that need something which must be downloaded run when the cache has it, or when `--downloads`, which `./dev test`
gives, or `--models` allows to fetch it. Otherwise they are deselected, and pytest's summary counts them.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from tiny_models import write_tiny_llama
from titer import models

if TYPE_CHECKING:
    from transformers import PreTrainedModel

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks" / "python"))  # for the peers

# A shell that starts the tests in the background has them, and what they start, ignore Ctrl-C; some of them press it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

_DOWNLOADS = {  # fixture: (option that allows the download, path below the cache folder)
    "smollm2_folder": ("--downloads", "models/smollm2-135m-instruct/titer.json"),
    "gemma3_folder": ("--models", "models/gemma3-270m/titer.json"),
    "nanogcg_folder": ("--downloads", "peers/nanogcg-0.3.0"),
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--downloads", action="store_true", help="fetch SmolLM2 and nanoGCG, which tests use (213 MB)")
    parser.addoption("--models", action="store_true", help="fetch Gemma 3 270M, too (238 MB)")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    absent = {
        fixture
        for fixture, (option, path) in _DOWNLOADS.items()
        if not config.getoption(option) and not (models.cache_folder() / path).exists()
    }
    deselected = [item for item in items if absent.intersection(getattr(item, "fixturenames", ()))]
    if deselected:
        config.hook.pytest_deselected(items=deselected)
        items[:] = [item for item in items if item not in deselected]


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random llama of 24 k parameters with a chat template."""
    return write_tiny_llama(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session")
def smollm2_folder() -> Path:
    """SmolLM2-135M-Instruct."""
    return models.get("smollm2")


@pytest.fixture(scope="session")
def smollm2_module(smollm2_folder: Path) -> PreTrainedModel:
    """The same in transformers, in float32."""
    from transformers import AutoModelForCausalLM

    module: PreTrainedModel = AutoModelForCausalLM.from_pretrained(smollm2_folder, dtype=torch.float32)
    return module.eval()


@pytest.fixture(scope="session")
def gemma3_folder() -> Path:
    """Gemma 3 270M, a base model without a chat template."""
    return models.get("gemma3-270m")


@pytest.fixture(scope="session")
def gemma3_module(gemma3_folder: Path) -> PreTrainedModel:
    """The same in transformers, in float32."""
    from transformers import AutoModelForCausalLM

    module: PreTrainedModel = AutoModelForCausalLM.from_pretrained(gemma3_folder, dtype=torch.float32)
    return module.eval()


@pytest.fixture(scope="session")
def nanogcg_folder() -> Path:
    """The folder that nanoGCG is installed in."""
    from peers import nanogcg_peer

    return nanogcg_peer.install()


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own, empty at the start."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return models.cache_folder()
